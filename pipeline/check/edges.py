"""Checks how streams fit the anchor: they should begin and end with it, and their rates should fit its rate."""

from __future__ import annotations

import numpy as np

from vlapipe.pipeline.check.clocks import RATE_TOLERANCE, steps_s
from vlapipe.pipeline.shards.derive.gaps import find_gaps
from vlapipe.pipeline.shards.derive.stamps import seconds
from vlapipe.pipeline.stream_rows import Rows, StreamRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import CheckSpec, Stream

__all__ = ["check_drift", "check_edges"]

_LEAST_SPAN_S = 3.0  # over a shorter span, the exact times of the first and last row outweigh any drift
_BEYOND = 0.1  # share of the anchor's time that a stream may run before or after it
_GAP_PERIODS = 3.0  # a step of more periods is a gap if the schema has no max_gap_s


def check_edges(anchor: StreamRows, streams: dict[str, Rows], checks: CheckSpec, findings: Findings) -> None:
    """Reports streams that begin or end long before or after the anchor, or do not overlap with it.

    Images beyond the anchor's rows do not train. They may mean that the robot's log is cut short. So a camera that
    runs on for a while is passed over unless this is also a good part of the recording.
    """
    first, last = seconds(anchor.timestamp[[0, -1]])
    for rows in streams.values():
        begins, ends = seconds(rows.timestamp[[0, -1]])
        if begins > last or ends < first:
            expected = f"times within {first:.3f} to {last:.3f} s, as in {anchor.source.path}"
            findings.add("clock.no_overlap", rows.source.path, expected=expected, found=f"{begins:.3f} to {ends:.3f} s")
            continue
        for code, late, expected in (
            ("clock.starts_late", begins - first, "a start"),
            ("clock.ends_early", last - ends, "an end"),
        ):
            if late > checks.edge_s:
                expected += f" within {checks.edge_s:g} s of that of {anchor.source.path}"
                found = f"{late:.4g} s {'after' if code == 'clock.starts_late' else 'before'} it"
                findings.add(code, rows.source.path, expected=expected, found=found)
        allowed = max(checks.edge_s, _BEYOND * (last - first))
        for code, early, what, where in (
            ("clock.starts_early", first - begins, "a start", "before"),
            ("clock.ends_late", ends - last, "an end", "after"),
        ):
            if early > allowed:
                expected = f"{what} within {allowed:.4g} s of that of {anchor.source.path}"
                findings.add(code, rows.source.path, expected=expected, found=f"{early:.4g} s {where} it")


def check_drift(
    streams: dict[str, Rows],
    specs: dict[str, Stream],
    anchor: str,
    checks: CheckSpec,
    findings: Findings,
) -> None:
    """Reports streams whose clock runs faster or slower than the anchor's, judged by the declared rates.

    Each stream is compared with the anchor, or, if the anchor's rate cannot be measured, with the first stream whose
    rate can.
    """
    paces = {}
    for name in sorted(streams, key=lambda name: name != anchor):
        pace = _pace(streams[name], specs[name])
        if pace is not None:
            paces[name] = pace
    if not paces:
        return
    reference, *others = paces
    for name in others:
        ratio = paces[name][0] / paces[reference][0]
        if abs(ratio - 1) > checks.max_drift + paces[name][1] + paces[reference][1]:
            expected = f"the pace of {streams[reference].source.path} within {checks.max_drift:.3g}, by rate_hz of both"
            findings.add("clock.drift", streams[name].source.path, expected=expected, found=f"{ratio:.4f} of it")


def _pace(rows: Rows, stream: Stream) -> tuple[float, float] | None:
    """Returns measured over declared rate, and its uncertainty (jitter at both ends); ``None`` if not measurable."""
    if not stream.rate_hz or rows.num_rows < 2:
        return None
    steps = steps_s(rows.timestamp)
    span = float(steps.sum())
    longest = stream.max_gap_s or _GAP_PERIODS / stream.rate_hz
    if span < _LEAST_SPAN_S or len(find_gaps(rows.timestamp, longest)):
        return None
    pace = len(steps) / span / stream.rate_hz
    if abs(pace - 1) > RATE_TOLERANCE:
        return None
    return pace, 3 * float(np.std(steps)) / span

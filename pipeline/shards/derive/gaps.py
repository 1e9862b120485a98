"""Which frames of an episode have windows that cross no gap; spans of rows only, whatever the number of frames.

A window holds a gap where two of its rows that follow each other, or its newest row and the frame itself, lie more
than ``max_gap_s`` apart. So a frame long after a camera stopped is left out as one is that lies in a camera's gap.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.stamps import seconds
from vlapipe.schemas.schema import SampleDefaults

__all__ = ["frames_between", "gap_rows", "spans_across_gaps", "window_rows"]


def window_rows(sample: SampleDefaults, anchor: str, cameras: Iterable[str]) -> dict[str, int]:
    """How many rows up to its frame a sample reads of each stream."""
    rows = {anchor: sample.state_rows}
    for _, path in sample.sensors:
        stream = path.partition("/")[0]
        rows[stream] = max(rows.get(stream, 0), sample.sensor_rows)
    return rows | dict.fromkeys(cameras, sample.image_rows)


def spans_across_gaps(sample: SampleDefaults, gaps: NDArray[Any], num_rows: int) -> NDArray[np.int64]:
    """The anchor rows ``[first, stop)`` whose windows of the anchor itself cross a gap, ``(gaps, 2)``.

    An action chunk is taken to reach from its frame over all its ``action_rows`` strides, also past the end of the
    episode. The row that its last action looks ahead to does not count: an action has a value only where that row is
    as near in time as the schema says.

    Args:
        sample: the rows that an action chunk takes.
        gaps: the anchor's rows before which there is a gap.
        num_rows: of the anchor that end at the frame.
    """
    gaps = gaps.astype(np.int64)
    reach = (sample.action_rows - 1) * sample.action_stride
    return np.stack([gaps - reach, gaps + num_rows - 1], axis=1)


def gap_rows(
    clock: NDArray[Any], timestamp: NDArray[Any], align: NDArray[np.int32], gaps: NDArray[Any], max_gap_s: float
) -> list[dict[str, Any]]:
    """Where the gaps of a stream beside the anchor lie on the anchor, for windows of any number of rows.

    A frame is left out from ``first`` on, when the last row before the gap is too old, until a whole window lies behind
    the gap: ``rows_behind`` says how many rows of the stream do at the anchor rows ``until``, ``until + 1`` and so on,
    up to the next gap. The stream's end is a gap that nothing follows, unless the episode ends as early.

    Args:
        clock: the anchor's stamps.
        timestamp: the stream's.
        align: the stream's newest row at each anchor row.
        gaps: the stream's rows before which there is a gap, ascending.
        max_gap_s: what is longer is a gap.

    Returns:
        ``first``, ``until`` and ``rows_behind`` of each gap, as plain numbers.
    """
    gaps = gaps.astype(np.int64)
    max_gap: float = max_gap_s
    if timestamp.dtype == clock.dtype == np.int64:
        max_gap = round(max_gap * 1e9)
    else:
        timestamp, clock = seconds(timestamp), seconds(clock)
    last_before = np.append(gaps - 1, len(timestamp) - 1)
    too_old = np.searchsorted(clock, timestamp[last_before] + max_gap, side="right").tolist()
    until = [*np.searchsorted(align, gaps).tolist(), len(clock)]  # align never falls
    rows = [
        {"first": min(old, begin), "until": begin, "rows_behind": (align[begin:end] + (1 - gap)).tolist()}
        for old, begin, end, gap in zip(too_old[:-1], until[:-1], until[1:], gaps.tolist(), strict=True)
    ]
    if too_old[-1] < len(clock):
        rows.append({"first": too_old[-1], "until": len(clock), "rows_behind": []})
    return rows


def frames_between(
    first: NDArray[np.int64], count: NDArray[np.int64], episode: NDArray[np.int64], spans: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The intervals of frames that lie in no span, of all episodes at once.

    Args:
        first: each episode's first frame, an anchor row, ``(E,)``.
        count: each episode's frames ``(E,)``.
        episode: which of these a span belongs to ``(S,)``.
        spans: anchor rows ``[first, stop)`` of that episode ``(S, 2)``, in any order; they may overlap.

    Returns:
        each interval's episode, first anchor row and frames, in order.
    """
    ends = np.cumsum(count)
    begins = ends - count  # the frames of all episodes end to end: an episode's begin there
    kept = spans[:, 0] < spans[:, 1]
    episode, spans = episode[kept], spans[kept]
    spans = (spans - first[episode, None]).clip(0, count[episode, None]) + begins[episode, None]
    # A span of no frame where an episode begins, so that no interval goes on from the one before.
    starts, stops = np.concatenate([begins, spans[:, 0]]), np.concatenate([begins, spans[:, 1]])
    order = np.argsort(starts, kind="stable")
    interval = np.maximum.accumulate(stops[order])
    lengths = np.append(starts[order][1:], ends[-1:]) - interval
    interval, lengths = interval[lengths > 0], lengths[lengths > 0]
    place = np.searchsorted(begins, interval, side="right") - 1
    return place, interval - begins[place] + first[place], lengths

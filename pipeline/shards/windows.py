"""Which frames of an episode have windows that cross no gap; spans of rows only, whatever the number of frames.

A window holds a gap where two of its rows that follow each other, or its newest row and the frame itself, lie more
than ``max_gap_s`` apart. So a frame long after a camera stopped is left out as one is that lies in a camera's gap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.stamps import seconds
from vlapipe.schemas.schema import SampleDefaults

__all__ = ["GappyStream", "frames_between", "spans_across_gaps", "window_rows"]


@dataclass(frozen=True, kw_only=True)
class GappyStream:
    """A stream that windows read beside the anchor, in one episode.

    ``gaps`` are its rows before which there is a gap, ascending; ``align`` its newest row at each anchor row.
    """

    window_rows: int
    max_gap_s: float
    gaps: NDArray[Any]
    align: NDArray[np.int32]
    timestamp: NDArray[Any]


def window_rows(sample: SampleDefaults, anchor: str, views: Iterable[str]) -> dict[str, int]:
    """How many rows up to its frame a sample reads of each stream."""
    rows = {anchor: sample.state_rows}
    for _, path in sample.sensors:
        stream = path.partition("/")[0]
        rows[stream] = max(rows.get(stream, 0), sample.sensor_rows)
    return rows | dict.fromkeys(views, sample.image_rows)


def spans_across_gaps(
    sample: SampleDefaults, clock: NDArray[Any], gaps: NDArray[Any], num_rows: int, others: Iterable[GappyStream]
) -> NDArray[np.int64]:
    """The anchor rows ``[first, stop)`` of an episode whose windows cross a gap, ``(spans, 2)``, in no order.

    An action chunk is taken to reach from its frame over all its ``action_rows`` strides, also past the end of the
    episode. The row that its last action looks ahead to does not count: an action has a value only where that row is
    as near in time as the schema says.

    Args:
        sample: the rows that each window takes.
        clock: the anchor's stamps; only read where ``others`` are given.
        gaps: the anchor's rows before which there is a gap.
        num_rows: of the anchor that end at the frame.
        others: the streams that are read beside it.
    """
    gaps = gaps.astype(np.int64)
    reach = (sample.action_rows - 1) * sample.action_stride
    spans = [np.stack([gaps - reach, gaps + num_rows - 1], axis=1)]
    spans += [_spans_of(stream, clock) for stream in others]
    return np.concatenate(spans)


def _spans_of(stream: GappyStream, clock: NDArray[Any]) -> NDArray[np.int64]:
    """From when the last row before a gap is too old until a whole window lies behind the gap."""
    gaps, times = stream.gaps.astype(np.int64), stream.timestamp
    max_gap: float = stream.max_gap_s
    if times.dtype == clock.dtype == np.int64:
        max_gap = round(max_gap * 1e9)
    else:
        times, clock = seconds(times), seconds(clock)
    # The end of the stream is a gap that nothing follows.
    last_before = np.append(gaps - 1, len(times) - 1)
    first = np.searchsorted(clock, times[last_before] + max_gap, side="right")
    # Where a window begins behind the gap; align never falls, so it is found by bisection.
    whole = np.searchsorted(stream.align, gaps + stream.window_rows - 1)
    first[:-1] = np.minimum(first[:-1], np.searchsorted(stream.align, gaps))
    return np.stack([first, np.append(whole, len(clock))], axis=1).astype(np.int64)


def frames_between(first: int, count: int, spans: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The runs of rows from ``first`` on, ``count`` of them, that lie in no span: where each begins and its length."""
    spans = spans[spans[:, 0] < spans[:, 1]].clip(first, first + count)
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    begins = np.concatenate([[first], np.maximum.accumulate(spans[:, 1])])
    lengths = np.append(spans[:, 0], first + count) - begins
    kept = lengths > 0
    return begins[kept], lengths[kept]

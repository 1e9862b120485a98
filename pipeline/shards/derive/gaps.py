"""Finds the frames of an episode whose windows cross no gap. The functions work on intervals, not on single frames.

A window crosses a gap if two consecutive rows of the window, or its newest row and the frame itself, are more than
``max_gap_s`` apart. So a frame long after a camera stopped is left out, like a frame in a gap of the camera.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.stamps import seconds
from vlapipe.schemas.schema import SampleDefaults

__all__ = ["find_gaps", "frames_between", "gap_rows", "spans_across_gaps", "window_rows"]


def find_gaps(timestamp: NDArray[Any], max_gap_s: float | None) -> NDArray[np.int32]:
    """Returns the rows that follow a step longer than ``max_gap_s``; no rows if ``max_gap_s`` is ``None``."""
    if max_gap_s is None:
        return np.empty(0, dtype=np.int32)
    limit = round(max_gap_s * 1e9) if timestamp.dtype == np.int64 else max_gap_s
    return (np.flatnonzero(timestamp[1:] - timestamp[:-1] > limit) + 1).astype(np.int32)


def window_rows(sample: SampleDefaults, anchor: str, cameras: Iterable[str]) -> dict[str, int]:
    """Returns the number of rows that a sample reads of each stream, up to the frame."""
    rows = {anchor: sample.state_rows}
    for _, path in sample.sensors:
        stream = path.partition("/")[0]
        rows[stream] = max(rows.get(stream, 0), sample.sensor_rows)
    return rows | dict.fromkeys(cameras, sample.image_rows)


def spans_across_gaps(sample: SampleDefaults, gaps: NDArray[Any], num_rows: int) -> NDArray[np.int64]:
    """Returns the anchor rows ``[first, stop)`` whose windows of the anchor cross a gap of the anchor, ``(gaps, 2)``.

    An action chunk counts with all its ``action_rows`` strides, also if it extends past the end of the episode. The row
    that the last action looks ahead to does not count, because an action exists only if that row is within the schema's
    tolerance in time.

    Args:
        sample: gives the rows and the stride of an action chunk.
        gaps: the anchor rows that follow a gap.
        num_rows: number of anchor rows in a window that ends at the frame.
    """
    gaps = gaps.astype(np.int64)
    reach = (sample.action_rows - 1) * sample.action_stride
    return np.stack([gaps - reach, gaps + num_rows - 1], axis=1)


def gap_rows(
    clock: NDArray[Any], timestamp: NDArray[Any], align: NDArray[np.int32], gaps: NDArray[Any], max_gap_s: float
) -> list[dict[str, Any]]:
    """Returns the gaps of a stream other than the anchor, in anchor rows, for windows of any number of rows.

    Frames are left out from anchor row ``first``, where the last row before the gap is too old, until a whole window
    fits after the gap. ``rows_behind`` lists how many rows of the stream are after the gap at the anchor rows
    ``until``, ``until + 1`` and so on, up to the next gap. The end of the stream is a gap without rows after it, unless
    the episode ends before that gap begins.

    Args:
        clock: the anchor's timestamps.
        timestamp: the stream's timestamps.
        align: the stream's newest row at each anchor row.
        gaps: the stream's rows that follow a gap, ascending.
        max_gap_s: a longer step of the clock is a gap.

    Returns:
        ``first``, ``until`` and ``rows_behind`` of each gap, as Python numbers.
    """
    gaps = gaps.astype(np.int64)
    max_gap: float = max_gap_s
    if timestamp.dtype == clock.dtype == np.int64:
        max_gap = round(max_gap * 1e9)
    else:
        timestamp, clock = seconds(timestamp), seconds(clock)
    last_before = np.append(gaps - 1, len(timestamp) - 1)
    too_old = np.searchsorted(clock, timestamp[last_before] + max_gap, side="right").tolist()
    until = [*np.searchsorted(align, gaps).tolist(), len(clock)]  # align never decreases
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
    """Returns the intervals of frames outside all spans, for all episodes at once.

    Args:
        first: each episode's first frame, an anchor row, ``(E,)``.
        count: each episode's number of frames ``(E,)``.
        episode: the episode of each span, an index into ``first`` ``(S,)``.
        spans: anchor rows ``[first, stop)`` of that episode ``(S, 2)``, in any order. Spans may overlap.

    Returns:
        each interval's episode, first anchor row and number of frames, in order.
    """
    ends = np.cumsum(count)
    begins = ends - count  # first frame of each episode if the frames of all episodes are concatenated
    kept = spans[:, 0] < spans[:, 1]
    episode, spans = episode[kept], spans[kept]
    spans = (spans - first[episode, None]).clip(0, count[episode, None]) + begins[episode, None]
    # An empty span at the beginning of each episode, so that no interval extends over two episodes.
    starts, stops = np.concatenate([begins, spans[:, 0]]), np.concatenate([begins, spans[:, 1]])
    order = np.argsort(starts, kind="stable")
    interval = np.maximum.accumulate(stops[order])
    lengths = np.append(starts[order][1:], ends[-1:]) - interval
    interval, lengths = interval[lengths > 0], lengths[lengths > 0]
    place = np.searchsorted(begins, interval, side="right") - 1
    return place, interval - begins[place] + first[place], lengths

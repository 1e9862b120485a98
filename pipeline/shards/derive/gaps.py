"""Finds the frames of an episode whose windows cross no gap. The functions work on intervals, not on single frames.

A window crosses a gap if two consecutive rows of the window, or its newest row and the frame itself, are more than
``max_gap_s`` apart. So a frame long after a camera stopped is left out, like a frame in a gap of the camera.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.stamps import seconds
from vlapipe.schemas.schema import SampleDefaults

__all__ = ["STATE", "find_gaps", "frames_between", "gap_rows", "rows_ahead", "spans_across_gaps", "window_rows"]

STATE = "observation.state"
_UNEVEN = 1.2  # a clock ticks at most so much faster than its mean rate, between its holes


def find_gaps(timestamp: NDArray[Any], max_gap_s: float | None) -> NDArray[np.int32]:
    """Returns the rows that follow a step longer than ``max_gap_s``; no rows if ``max_gap_s`` is ``None``."""
    if max_gap_s is None:
        return np.empty(0, dtype=np.int32)
    limit = round(max_gap_s * 1e9) if timestamp.dtype == np.int64 else max_gap_s
    return (np.flatnonzero(timestamp[1:] - timestamp[:-1] > limit) + 1).astype(np.int32)


def window_rows(
    sample: SampleDefaults, anchor: str, cameras: Iterable[str], rate_hz: Callable[[str], float]
) -> dict[str, int]:
    """Returns for each stream how many rows lie between the oldest row that a sample reads and the frame, both counted.

    ``rate_hz(stream)`` is the rate of a stream's clock, by which windows in seconds are counted in rows.
    """
    timestamps = dict(sample.delta_timestamps)

    def reach(entry: str, stream: str, num_rows: int, stride: int, window_s: float | None) -> int:
        if entry in timestamps:
            return in_rows(max(0.0, -min(timestamps[entry])), stream)
        if window_s is not None:
            return in_rows(window_s * (num_rows - 1) / num_rows, stream)
        return (num_rows - 1) * stride + 1

    def in_rows(span_s: float, stream: str) -> int:
        """The most rows of a span in seconds: holes make the mean rate lower, and jitter may add a row at each end."""
        return math.ceil(span_s * rate_hz(stream) * _UNEVEN) + 3 if span_s else 1

    rows = {anchor: reach(STATE, anchor, sample.state_rows, sample.state_stride, sample.state_s)}
    for name, path in sample.sensors:
        stream, entry = path.partition("/")[0], f"observation.sensors.{name}"
        found = reach(entry, stream, sample.sensor_rows, sample.sensor_stride, sample.sensor_s)
        rows[stream] = max(rows.get(stream, 0), found)
    for camera in cameras:
        entry = f"observation.images.{camera}"
        rows[camera] = reach(entry, camera, sample.image_rows, sample.image_stride, sample.image_s)
    return rows


def rows_ahead(sample: SampleDefaults, rate_hz: float) -> tuple[int, int]:
    """Returns how many anchor rows after the frame the last action, and the last observation, of a sample lie.

    ``rate_hz`` is the rate of the anchor's clock.
    """
    timestamps = dict(sample.delta_timestamps)
    observed = [times for entry, times in timestamps.items() if entry != "action"]
    last_s = max((max(times) for times in observed), default=0.0)
    step = sample.action_stride if sample.action_s is None else sample.action_s / sample.action_rows * rate_hz
    observations = max(math.ceil(sample.ahead_rows * step), math.ceil(max(last_s, 0.0) * rate_hz))
    if "action" in timestamps:
        return math.ceil(max(0.0, *timestamps["action"]) * rate_hz), observations
    return math.ceil((sample.action_rows - 1) * step), observations


def spans_across_gaps(gaps: NDArray[Any], num_rows: int, num_ahead: int) -> NDArray[np.int64]:
    """Returns the anchor rows ``[first, stop)`` whose windows of the anchor cross a gap of the anchor, ``(gaps, 2)``.

    An action chunk counts with all its rows, also if it extends past the end of the episode. The row that the last
    action looks ahead to does not count, because an action exists only if that row is within the schema's tolerance in
    time.

    Args:
        gaps: the anchor rows that follow a gap.
        num_rows: number of anchor rows from the oldest one that a window reads to the frame.
        num_ahead: number of anchor rows after the frame that a sample reaches.
    """
    gaps = gaps.astype(np.int64)
    return np.stack([gaps - num_ahead, gaps + num_rows - 1], axis=1)


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

"""Relates the clocks of an episode's streams, so that training never searches for a time.

A stream with ``starts_with`` shares no common time with the others. Its clock is first moved, so that it begins
together with the stream that ``starts_with`` names.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.check.clocks import find_gaps
from vlapipe.pipeline.shards.derive.stamps import seconds
from vlapipe.pipeline.stream_rows import Rows
from vlapipe.schemas.schema import ImageStream, Schema

__all__ = ["action_rows", "last_row_at_or_before", "row_ahead", "start_with_others"]


def last_row_at_or_before(anchor: NDArray[Any], other: NDArray[Any]) -> NDArray[np.int32]:
    """Returns for each anchor row the index of the other stream's last row at or before it; -1 before its first row.

    Two int64 clocks are compared as integers. Clocks of different dtypes are compared as float64 seconds.
    """
    if anchor.dtype != other.dtype:
        anchor, other = seconds(anchor), seconds(other)
    return (np.searchsorted(other, anchor, side="right") - 1).astype(np.int32)


def row_ahead(timestamp: NDArray[Any], period_s: float, tolerance_s: float) -> NDArray[np.int32]:
    """Returns for each row the index of the row nearest to ``period_s`` later; -1 if none lies within ``tolerance_s``.

    A row is never its own target. Otherwise, with a tolerance of the period or more, the last rows would stand still.
    """
    if timestamp.dtype == np.int64:
        period_s, tolerance_s = round(period_s * 1e9), round(tolerance_s * 1e9)  # int64 clocks count nanoseconds
    wanted = timestamp + timestamp.dtype.type(period_s)
    after = np.minimum(np.searchsorted(timestamp, wanted), len(timestamp) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(wanted - timestamp[before] < timestamp[after] - wanted, before, after)
    rows = np.arange(len(timestamp))
    found = (np.abs(timestamp[nearest] - wanted) <= tolerance_s) & (nearest > rows)
    return np.where(found, nearest, -1).astype(np.int32)


def action_rows(timestamp: NDArray[Any], schema: Schema) -> NDArray[np.int32]:
    """Returns for each anchor row the row whose values its action takes or moves towards; -1 if there is none.

    The kind ``next`` looks one row ahead, however much later that row is, but never across a gap longer than
    ``max_gap_s``.
    """
    action = schema.action
    rows = np.arange(len(timestamp), dtype=np.int32)
    if action.kind == "column":
        return rows
    if action.kind != "next":
        return row_ahead(timestamp, action.period_s, action.tolerance_s)
    ahead = np.append(rows[1:], np.int32(-1))
    ahead[find_gaps(timestamp, schema.anchor_stream.max_gap_s) - 1] = -1
    return ahead


def start_with_others(streams: dict[str, Rows], schema: Schema, cameras: dict[str, tuple[str, ...]]) -> dict[str, Rows]:
    """Returns the streams, each one with ``starts_with`` moved to the clock of the stream that it names.

    ``offset_s`` is added to the start of the moved clock. The cameras of one image stream are moved by one amount, so
    that their times relative to each other stay; the first image of all cameras counts. A stream is not moved if the
    stream that it names could not be read.
    """
    moved = dict(streams)
    waiting = {stream.name: stream for stream in schema.streams if stream.time.starts_with is not None}
    while waiting:
        # The schema has refused circles, so at least one waiting stream waits for no other waiting stream.
        name = next(name for name, stream in waiting.items() if stream.time.starts_with not in waiting)
        time = waiting.pop(name).time
        assert time.starts_with is not None
        ours = _of(name, moved, schema, cameras)
        others = _of(time.starts_with, moved, schema, cameras)
        if ours and others:
            moved |= _move(ours, min(rows.timestamp[0] for rows in others.values()), time.offset_s)
    return moved


def _of(name: str, streams: dict[str, Rows], schema: Schema, cameras: dict[str, tuple[str, ...]]) -> dict[str, Rows]:
    """Returns the stream called ``name``, or the cameras of the image stream called ``name``."""
    names = cameras[name] if isinstance(schema.stream(name), ImageStream) else (name,)
    return {name: streams[name] for name in names if name in streams}


def _move(ours: dict[str, Rows], start: np.int64 | np.float64, offset_s: float) -> dict[str, Rows]:
    """Shifts clocks of one dtype by one amount, so that the earliest stamp becomes ``start``. The dtype is kept."""
    first = min(rows.timestamp[0] for rows in ours.values())
    if isinstance(first, np.int64):
        begins = int(start) if isinstance(start, np.int64) else round(Fraction(float(start)) * 1_000_000_000)
        by = begins + round(Fraction(repr(offset_s)) * 1_000_000_000) - int(first)
        return {name: replace(rows, timestamp=rows.timestamp + np.int64(by)) for name, rows in ours.items()}
    begin = float(start) / 1e9 if isinstance(start, np.int64) else float(start)
    # Subtracting first keeps all digits, because the differences are small numbers.
    return {name: replace(rows, timestamp=(rows.timestamp - first) + (begin + offset_s)) for name, rows in ours.items()}

"""Finds rows by time: the newest row of a stream at each anchor row, and the row that each action looks ahead to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.gaps import find_gaps
from vlapipe.pipeline.shards.derive.stamps import seconds
from vlapipe.schemas.schema import Schema

__all__ = ["action_rows", "last_row_at_or_before", "row_ahead"]


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

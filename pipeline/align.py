"""Relates the clocks of an episode's streams, so that training never searches for a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.readers.clock import seconds

__all__ = ["last_row_at_or_before", "row_ahead"]


def last_row_at_or_before(anchor: NDArray[Any], other: NDArray[Any]) -> NDArray[np.int32]:
    """For each anchor row the index of the other stream's last row at or before it; -1 before its first.

    Two integer clocks are compared as integers; otherwise both as float64 seconds.
    """
    if anchor.dtype != other.dtype:
        anchor, other = seconds(anchor), seconds(other)
    return (np.searchsorted(other, anchor, side="right") - 1).astype(np.int32)


def row_ahead(timestamp: NDArray[Any], period_s: float, tolerance_s: float) -> NDArray[np.int32]:
    """For each row the index of the row nearest to ``period_s`` later; -1 where none lies within ``tolerance_s``.

    A row is never its own target: with a tolerance of the period or more, the last rows would stand still.
    """
    if timestamp.dtype == np.int64:
        period_s, tolerance_s = round(period_s * 1e9), round(tolerance_s * 1e9)  # in the clock's nanoseconds
    wanted = timestamp + timestamp.dtype.type(period_s)
    after = np.searchsorted(timestamp, wanted).clip(max=len(timestamp) - 1)
    before = (after - 1).clip(min=0)
    nearest = np.where(wanted - timestamp[before] < timestamp[after] - wanted, before, after)
    rows = np.arange(len(timestamp))
    found = (np.abs(timestamp[nearest] - wanted) <= tolerance_s) & (nearest > rows)
    return np.where(found, nearest, -1).astype(np.int32)

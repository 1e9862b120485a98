"""Reads stamps into int64 nanoseconds or float64 seconds."""

from __future__ import annotations

import calendar
import re
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.schemas.schema import NANOSECONDS, TimeSpec

__all__ = ["clock_from_numbers", "parse_stamp", "seconds", "seconds_between"]

_WHOLE = re.compile(r"[+-]?\d+\Z")
_MAX_NS = np.iinfo(np.int64).max


def seconds(timestamp: NDArray[Any]) -> NDArray[np.float64]:
    """The clock as float64 seconds (int64 is taken as nanoseconds)."""
    return timestamp / 1e9 if timestamp.dtype == np.int64 else timestamp.astype(np.float64)


def seconds_between(timestamp: NDArray[Any], first: int, last: int) -> float:
    """Time from one row to another in seconds, subtracted before it is converted, so that no digit is lost."""
    difference = timestamp[last] - timestamp[first]
    return float(difference / 1e9 if timestamp.dtype == np.int64 else difference)


def parse_stamp(text: str, time: TimeSpec) -> int | float:
    """One stamp as the clock keeps it: int nanoseconds, or float seconds.

    Raises:
        ValueError: the text is not such a stamp.
    """
    if time.format:
        moment = datetime.strptime(text, time.format)  # read as UTC by timegm below
        return calendar.timegm(moment.timetuple()) * 1_000_000_000 + moment.microsecond * 1000
    if time.integer:
        if not _WHOLE.match(text):
            raise ValueError(text)
        return int(text) * NANOSECONDS[time.unit]
    value = float(text)
    if not np.isfinite(value):
        raise ValueError(text)
    return value / (1_000_000_000 // NANOSECONDS[time.unit])


def clock_from_numbers(values: NDArray[Any], time: TimeSpec) -> NDArray[Any]:
    """A numeric clock in the schema's unit as int64 nanoseconds or float64 seconds.

    Raises:
        OverflowError: integer stamps that do not fit 64 bits of nanoseconds.
        ValueError: the schema says integer and the values are not whole.
    """
    if not time.integer:
        return values.astype(np.float64) / (1_000_000_000 // NANOSECONDS[time.unit])
    if values.dtype.kind not in "iu":
        whole = values.astype(np.int64)
        if not np.array_equal(whole, values):
            raise ValueError("not whole numbers")
        values = whole
    factor = NANOSECONDS[time.unit]
    if len(values) and max(abs(int(values.min())), abs(int(values.max()))) > _MAX_NS // factor:
        raise OverflowError("stamps do not fit int64 nanoseconds")
    return values.astype(np.int64) * factor

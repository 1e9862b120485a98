"""Reads stamps into int64 nanoseconds or float64 seconds, and checks that a clock runs forward."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import NANOSECONDS, TimeSpec

__all__ = ["check_clock", "clock_from_numbers", "parse_stamp", "seconds", "seconds_between"]

_WHOLE = re.compile(r"[+-]?\d+\Z")
_MAX_NS = np.iinfo(np.int64).max
RATE_TOLERANCE = 0.2  # relative distance from the declared rate that is worth a warning


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


def check_clock(
    timestamp: NDArray[Any],
    findings: Findings,
    *,
    file: str,
    column: str | None,
    line_of: Callable[[int], int | None],
    rate_hz: float | None,
) -> None:
    """Report stamps that run backwards, repeat, or tick far from the declared rate; ``line_of`` places a row."""
    if len(timestamp) < 2:
        return
    steps = np.diff(timestamp)
    back = np.flatnonzero(steps < 0)
    if len(back):
        row = int(back[0]) + 1
        by = seconds_between(timestamp, row, row - 1)
        findings.add(
            "clock.backwards",
            file,
            line=line_of(row),
            column=column,
            expected="a later time than the row before",
            found=f"{by:.6g} s earlier",
            count=len(back),
        )
        return
    same = np.flatnonzero(steps == 0)
    if len(same):
        row = int(same[0]) + 1
        findings.add("clock.duplicate", file, line=line_of(row), column=column, count=len(same))
    span = seconds_between(timestamp, 0, -1)
    rate = (len(timestamp) - 1) / span if span > 0 else float("inf")
    if rate_hz and abs(rate - rate_hz) > RATE_TOLERANCE * rate_hz:
        findings.add("clock.rate", file, column=column, expected=f"about {rate_hz:g} Hz", found=f"{rate:.4g} Hz")

"""Adds up a time whose parts are in separate columns: year, month, day, hour, minute, second and smaller parts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlapipe.schemas.schema import TimePart

__all__ = ["NANOSECONDS_A_DAY", "days_since_1970", "expected_part", "is_part", "time_of_day"]

NANOSECONDS_A_DAY = 86_400_000_000_000
# The smallest and the largest value of each part. A second may be 60, a leap second.
_LIMITS: dict[TimePart, tuple[int, int]] = {
    "year": (1970, 2200),
    "month": (1, 12),
    "day": (1, 31),
    "day_of_year": (1, 366),
    "hour": (0, 23),
    "minute": (0, 59),
    "second": (0, 60),
    "millisecond": (0, 999),
    "microsecond": (0, 999_999),
    "nanosecond": (0, 999_999_999),
}
_NANOSECONDS: dict[TimePart, int] = {
    "hour": 3_600_000_000_000,
    "minute": 60_000_000_000,
    "second": 1_000_000_000,
    "millisecond": 1_000_000,
    "microsecond": 1_000,
    "nanosecond": 1,
}


def expected_part(part: TimePart) -> str:
    """Returns a description of a valid cell of this part."""
    least, most = _LIMITS[part]
    named = part.replace("_", " ")
    return f"{named} as a number from {least} to {'under 61' if part == 'second' else f'{most}, whole'}"


def is_part(part: TimePart, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Returns a mask of the numbers that can be such a part: within its limits, and whole except for seconds."""
    least, most = _LIMITS[part]
    if part == "second":
        fits: NDArray[np.bool_] = (values >= least) & (values < most + 1)
        return fits
    whole: NDArray[np.bool_] = (values >= least) & (values <= most) & (values == np.rint(values))
    return whole


def days_since_1970(parts: dict[TimePart, NDArray[np.float64]]) -> NDArray[np.int64] | None:
    """Returns each row's day as int64, -1 if the month or year has no such day; ``None`` if there is no date."""
    if "year" not in parts:
        return None
    year = (parts["year"].astype(np.int64) - 1970).astype("M8[Y]")
    if "day_of_year" in parts:
        first, day = year.astype("M8[D]"), parts["day_of_year"].astype(np.int64)
        after = (year + np.timedelta64(1, "Y")).astype("M8[D]")
    else:
        month = year.astype("M8[M]") + (parts["month"].astype(np.int64) - 1)
        first, day = month.astype("M8[D]"), parts["day"].astype(np.int64)
        after = (month + np.timedelta64(1, "M")).astype("M8[D]")
    days = first + (day - 1)
    numbers: NDArray[np.int64] = np.where(days < after, days.astype(np.int64), -1)
    return numbers


def time_of_day(parts: dict[TimePart, NDArray[np.float64]]) -> NDArray[np.int64]:
    """Returns int64 nanoseconds since midnight; a second's fraction is rounded to the nearest nanosecond."""
    total = np.zeros(len(next(iter(parts.values()))), dtype=np.int64)
    for part, scale in _NANOSECONDS.items():
        if part in parts:
            total += np.rint(parts[part] * scale).astype(np.int64)
    return total

"""Finds the columns of a table that hold date and time of day in parts, such as an hour, a minute and a second."""

from __future__ import annotations

import re
from typing import get_args

from vlapipe.pipeline.infer.columns.columns import Column
from vlapipe.pipeline.read.clocks.time_parts import is_part
from vlapipe.schemas.schema import TimePart

__all__ = ["time_in_parts"]

_NAMES: dict[TimePart, str] = {
    "year": r"years?|yr|yyyy",
    "month": r"months?|mon",
    "day": r"days?|dd|day_?of_?month|dom",
    "day_of_year": r"doy|day_?of_?year|julian_?day",
    "hour": r"hours?|hr|hh|h",
    "minute": r"minutes?|mins?|mi",
    "second": r"seconds?|secs?|ss|s",
    "millisecond": r"ms|msecs?|millis?|milliseconds?",
    "microsecond": r"us|usecs?|micros?|microseconds?",
    "nanosecond": r"ns|nsecs?|nanos?|nanoseconds?",
}


def time_in_parts(columns: list[Column]) -> dict[TimePart, Column]:
    """Return the columns of a time in parts, the largest unit first; empty without an hour and a minute."""
    found: dict[TimePart, Column] = {}
    for column in columns:
        part = _part(column, found)
        if part is not None and part not in found and len(column.finite) and is_part(part, column.finite).all():
            found[part] = column
    if not {"hour", "minute"} <= set(found):
        return {}
    return {part: found[part] for part in get_args(TimePart) if part in found}


def _part(column: Column, found: dict[TimePart, Column]) -> TimePart | None:
    """Return which part a column's name stands for. ``mm`` is a month after a year, and a minute after an hour."""
    names = [name.strip().lower().replace(" ", "_") for name in (column.name, column.base)]
    if names[1] in ("mm", "mm_2"):
        return "month" if "year" in found and "hour" not in found else "minute"
    return next((part for part, known in _NAMES.items() if any(re.fullmatch(known, name) for name in names)), None)

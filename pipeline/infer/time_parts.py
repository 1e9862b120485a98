"""Finds the columns of a table that hold a date and a time of day in parts: an hour, a minute, a second."""

from __future__ import annotations

import re

from vlapipe.pipeline.infer.columns import Column

__all__ = ["time_in_parts"]

# What each part is called, and the most that it reaches.
_PARTS = {
    "hour": (r"hours?|hr|hh|h|stunde", 24),
    "minute": (r"minutes?|mins?|mm|mi", 60),
    "second": (r"seconds?|secs?|ss|s", 61),
    "milli": (r"ms|msecs?|millis?|milliseconds?", 1000),
    "micro": (r"us|usecs?|micros?|microseconds?", 1_000_000),
    "year": (r"years?|yr|yyyy|yy", 2200),
    "month": (r"months?|mon|mm", 12),
    "day": (r"days?|dd|doy", 366),
}


def time_in_parts(columns: list[Column]) -> list[Column]:
    """The columns of a time in parts, in their order; none without a whole hour and a whole minute."""
    found: dict[str, Column] = {}
    for column in columns:
        part = next((part for part in _PARTS if part not in found and _is_part(column, part)), None)
        if part is not None:
            found[part] = column
    if not {"hour", "minute"} <= set(found) or not (found["hour"].whole and found["minute"].whole):
        return []
    return [column for column in columns if column in found.values()]


def _is_part(column: Column, part: str) -> bool:
    pattern, most = _PARTS[part]
    named = any(re.fullmatch(pattern, name.strip().lower()) for name in (column.name, column.base))
    values = column.finite
    return named and len(values) > 0 and values.min() >= 0 and values.max() <= most

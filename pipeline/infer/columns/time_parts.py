"""Finds the columns of a table that hold date and time of day in parts, such as an hour, a minute and a second."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.infer.columns.columns import Column
from vlapipe.pipeline.infer.lexicon import lexicon
from vlapipe.pipeline.read.clocks.time_parts import NANOSECONDS_A_DAY, days_since_1970, is_part, time_of_day
from vlapipe.schemas.schema import TimePart

__all__ = ["sum_of_parts", "time_in_parts"]


def time_in_parts(columns: list[Column]) -> dict[TimePart, Column]:
    """Return the columns of a time in parts, the largest unit first; empty without an hour and a minute."""
    found: dict[TimePart, Column] = {}
    for column in columns:
        part = None if column.of_array else _part(column, found)
        if part is not None and part not in found and len(column.finite) and is_part(part, column.finite).all():
            found[part] = column
    if not {"hour", "minute"} <= set(found):
        return {}
    return {part: found[part] for part in get_args(TimePart) if part in found}


def _part(column: Column, found: dict[TimePart, Column]) -> TimePart | None:
    """Return which part a column's name stands for."""
    known = (
        key
        for key in lexicon().table("time_parts")
        if 1 in (lexicon().likeness(name, "time_parts", key) for name in (column.name, column.base))
    )
    part = next(known, None)
    if part == "month_or_minute":
        return "month" if "year" in found and "hour" not in found else "minute"
    return next((each for each in get_args(TimePart) if each == part), None)


def sum_of_parts(parts: dict[TimePart, Column]) -> tuple[dict[TimePart, Column], NDArray[np.int64]]:
    """Return the parts that make up a time, and their sum in nanoseconds, which is empty if a part has holes.

    A date that is not whole, such as a day without a month, is left out.
    """
    dated = set(parts) >= {"year", "month", "day"} or set(parts) >= {"year", "day_of_year"}
    used = {p: c for p, c in parts.items() if dated or p not in ("year", "month", "day", "day_of_year")}
    if dated and {"day", "month"} <= set(used):
        used.pop("day_of_year", None)
    values = {part: column.values for part, column in used.items()}
    if not all(np.isfinite(each).all() for each in values.values()):
        return used, np.empty(0, dtype=np.int64)
    days = days_since_1970(values)
    return used, time_of_day(values) + (0 if days is None else days * NANOSECONDS_A_DAY)

"""Yields the ways to read the columns of a table as a clock: a number in each unit, text, a sum, or a time in parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.infer.columns.clock_evidence import (
    MOSTLY_STILL,
    named_unit,
    of_name,
    of_steps,
    of_unit,
    rate_of,
)
from vlapipe.pipeline.infer.columns.columns import Column, within
from vlapipe.pipeline.infer.columns.stamp_text import is_date, text_clock
from vlapipe.pipeline.infer.columns.time_parts import sum_of_parts
from vlapipe.pipeline.infer.evidence import Evidence, log_odds, said
from vlapipe.pipeline.infer.text.cells import DATES_S, is_missing
from vlapipe.schemas.schema import NANOSECONDS, TimePart, TimeSpec, TimeUnit

__all__ = ["Way", "listed", "other_beginning", "way_of_parts", "ways_of", "weigh_units"]

_NEAR, _MENTIONED = 2.0, 6.0  # log-odds within which another unit is a possible answer, and within which it is said
_SINCE_1899_S = -25_569 * 86_400.0
_DAY_S, _MIDNIGHT_S = 86_400.0, 600.0
_LONG_STEP_S = 100.0  # from row to row
_UNITS: tuple[TimeUnit, ...] = get_args(TimeUnit)
_OTHER_BEGINNINGS = (  # first and last number around today, seconds in one, and what the column then does
    (6.2e17, 6.6e17, 1e-7, "counts 0.1 us since the year 1, as .NET does"),
    (1.24e17, 1.45e17, 1e-7, "counts 0.1 us since 1601, as Windows does"),
    (730_000, 750_000, 86_400.0, "counts days since the year 0, as MATLAB does"),
)


@dataclass(frozen=True, eq=False)
class Way:
    """A clock that columns could be. ``unit_score`` compares the units of the same columns, in log-odds."""

    columns: tuple[Column, ...]
    time: TimeSpec
    steps_s: NDArray[np.float64]
    stamps_s: NDArray[np.float64]
    evidence: list[Evidence]
    reasons: tuple[str, ...]
    unit_score: float = 0.0

    @cached_property
    def score(self) -> float:
        """The log-odds that the columns are the clock of their rows."""
        return log_odds("clock", self.evidence)

    @property
    def is_coarse(self) -> bool:
        """Whether many rows have the stamp of the row before."""
        return len(self.steps_s) > 1 and bool(np.mean(self.steps_s == 0) >= MOSTLY_STILL)

    @property
    def says(self) -> str:
        """What a schema says of it, in words."""
        return listed(self.columns) + ("" if self.time.format or self.time.parts else f" in {self.time.unit}")


def listed(columns: Iterable[Column]) -> str:
    """Return the quoted names of columns."""
    return ", ".join(repr(column.name) for column in columns)


def weigh_units(
    column: Column, steps: NDArray[np.float64], stated_hz: float | None = None
) -> dict[TimeUnit, tuple[float, list[Evidence]]]:
    """Return the score and the evidence of each unit that a column of stamps could have."""
    found = {unit: of_unit(unit, column, steps, stated_hz) for unit in _UNITS}
    return {unit: (log_odds("clock_unit", evidence), evidence) for unit, evidence in found.items()}


def ways_of(
    column: Column, columns: list[Column], groups: Column | None, stated_hz: float | None, num_alike: int
) -> Iterator[Way]:
    """Yield the ways to read a column as a clock, alone or with the column of its fraction or of its time of day."""
    if column.kind in ("time", "text") and not column.of_array:
        yield from _by_text(column, columns, groups)
    if column.kind != "number" or not len(column.finite) or other_beginning(column) is not None:
        return
    steps = within(column.steps, groups)
    if len(steps) and not np.any(steps > 0):
        return
    pair = _fraction_of(column, columns)
    if pair is not None:
        yield _by_two(column, *pair, groups)
        return
    units, named = weigh_units(column, steps, stated_hz), of_name(column, num_alike)
    best = max(score for score, _ in units.values())
    for unit, (score, found) in units.items():
        if score < best - _NEAR:
            continue
        near = [u for u in units if u != unit and score - units[u][0] < _MENTIONED and len(steps)]
        others = (f"unit {u} is possible too: {rate_of(steps, u):.4g} rows a second" for u in near)
        exact, why_exact = _is_exact(column, unit)
        offset_s = _SINCE_1899_S * any(each.feature == "spreadsheet_dates" for each in found)
        time = TimeSpec(sources=(column.name,), unit=unit, integer=column.whole, exact=exact, offset_s=offset_s)
        scale = NANOSECONDS[unit] / 1e9
        # A time of day that passes midnight falls by a day: a step as short as the others, which the reader refuses.
        steps_s = np.where(np.abs(steps * scale + _DAY_S) < _MIDNIGHT_S, steps * scale + _DAY_S, steps * scale)
        evidence = [*named, *found, *of_steps(column.name, steps_s, column.finite)]
        reasons = (*said("clock_unit", found)[:1], *why_exact, *others, *said("clock", evidence))
        yield Way((column,), time, steps_s, column.finite * scale + offset_s, evidence, reasons, score)


def other_beginning(column: Column) -> tuple[float, str] | None:
    """Return the seconds in one of a column's numbers, and what it counts, if no schema describes its beginning."""
    if column.kind != "number" or not column.rises:
        return None
    first, step = float(column.finite[0]), float(np.median(column.steps))
    found = (each for each in _OTHER_BEGINNINGS if each[0] <= first <= each[1] and column.whole == (each[2] < 1))
    return next((each[2:] for each in found if step * each[2] < _LONG_STEP_S), None)


def _is_exact(column: Column, unit: TimeUnit) -> tuple[bool, tuple[str, ...]]:
    """Return True if stamps have more digits than float64 keeps, and not more than nanoseconds hold; and the reason."""
    numbers = column.numbers
    if column.whole or column.of_array or any("e" in cell.lower() for cell in numbers):
        return False, ()
    if all(Decimal(cell) == Decimal(repr(float(cell))) for cell in numbers):
        return False, ()
    digits = max(len(cell.partition(".")[2].rstrip("0")) for cell in numbers)
    if NANOSECONDS[unit] % 10**digits:
        return False, (f"{digits} decimals are more than nanoseconds hold: kept as float64",)
    return True, ("exact: the stamps have more digits than a float64 keeps",)


def _fraction_of(column: Column, columns: list[Column]) -> tuple[Column, TimeUnit] | None:
    """Find the column with the fraction of whole seconds: of the same name but for the unit, or the next column.

    The numbers of the next column must rise while the seconds stand still, and stay below one second.
    """
    if not column.whole or column.of_array:
        return None
    stem, unit = named_unit(column)
    fitting = [c for c in columns if c is not column and c.whole and len(c.finite) == len(column.finite)]
    for other in fitting if unit == "s" or (stem and unit is None) else ():
        stem_of_other, finer = named_unit(other)
        if stem_of_other == stem and finer in ("ms", "us", "ns") and _below_a_second(other, finer):
            return other, finer
    still = column.steps == 0
    if not DATES_S[0] < column.finite[0] < DATES_S[1] or not np.any(still):
        return None
    units: tuple[TimeUnit, ...] = ("us", "ns")
    for other in fitting:
        if other.position == column.position + 1 and np.all(other.steps[still] > 0):
            largest = other.finite.max()
            return next(
                ((other, u) for u in units if _below_a_second(other, u) and largest * NANOSECONDS[u] >= 1e8), None
            )
    return None


def _below_a_second(column: Column, unit: TimeUnit) -> bool:
    return bool(column.finite.min() >= 0 and column.finite.max() * NANOSECONDS[unit] < NANOSECONDS["s"])


def _by_two(column: Column, other: Column, unit: TimeUnit, groups: Column | None) -> Way:
    scale = NANOSECONDS[unit] / 1e9
    # Steps are computed for each column before they are added: float64 cannot hold epoch seconds with nanoseconds.
    steps = within(column.steps, groups) + within(other.steps, groups) * scale
    time = TimeSpec(sources=(column.name,), unit="s", integer=True, plus=other.name, plus_unit=unit)
    evidence = [*of_name(column), Evidence("unit_of_time"), *of_unit("s", column, column.steps, None)]
    evidence += of_steps(column.name, steps, column.finite)
    why = f"whole seconds in {column.name!r} and {unit} in {other.name!r} are added"
    return Way((column, other), time, steps, column.finite + other.finite * scale, evidence, (why,))


def _by_text(column: Column, columns: list[Column], groups: Column | None) -> Iterator[Way]:
    """Yield the clock that text is, alone or joined with the dates in the column beside it."""
    cells = column.stripped
    both: tuple[Column, ...] = (column,)
    joined = None
    date = next((c for c in columns if abs(c.position - column.position) == 1 and is_date(c.stripped)), None)
    if date is not None and len(date.cells) == len(cells) and not is_date(cells):
        joined = text_clock([f"{day} {time}" for day, time in zip(date.stripped, cells, strict=True)])
    found = joined or text_clock([cell for cell in cells if not is_missing(cell)])
    if found is None:
        return
    time, why = TimeSpec(sources=(column.name,), format=found.form), found.reasons
    if date is not None and joined is not None:
        both, time = (date, column), TimeSpec(sources=(date.name,), plus=column.name, format=found.form)
        why = (f"the date in {date.name!r} and the time of day in {column.name!r} are joined", *why)
    steps = within(np.diff(found.stamps_s), groups)
    evidence = [*of_name(column), Evidence("time_as_text"), *of_steps(column.name, steps, found.stamps_s)]
    yield Way(both, time, steps, found.stamps_s, evidence, why)


def way_of_parts(parts: dict[TimePart, Column], groups: Column | None) -> Way | None:
    """Add up a time in parts. Returns ``None`` if the parts have holes."""
    used, sums = sum_of_parts(parts)
    if not len(sums):
        return None
    steps = within(np.diff(sums) / 1e9, groups)
    evidence = [Evidence("time_in_parts"), *of_steps("the time in parts", steps, sums / 1e9)]
    why = [f"the time stands in parts ({', '.join(used)}), which are added"]
    why += [] if "year" in used else ["there is no date: they count from midnight"]
    time = TimeSpec(parts=tuple((part, column.name) for part, column in used.items()))
    return Way(tuple(used.values()), time, steps, sums / 1e9, evidence, tuple(why))

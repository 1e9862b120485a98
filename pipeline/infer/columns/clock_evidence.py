"""Says what speaks for or against a column being the clock of its rows, and for each unit of its stamps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.infer.columns.columns import Column
from vlapipe.pipeline.infer.evidence import Evidence
from vlapipe.pipeline.infer.lexicon import lexicon, time_unit, words_in
from vlapipe.pipeline.infer.text.cells import DATES_S
from vlapipe.schemas.schema import NANOSECONDS, TimeUnit

__all__ = [
    "MOSTLY_STILL",
    "clock_name",
    "looks_like_time",
    "named_unit",
    "of_name",
    "of_steps",
    "of_unit",
    "rate_of",
    "stem_of",
]

_DAYS_SINCE_1899 = (36_526, 58_440)  # the same years as a spreadsheet counts
_NO_CLOCKS = (
    "duration",
    "step",
    "measures",
    "counts",
)  # lists of lexicon.toml's [clock] that are no clocks' names
_WHOLE_ONLY = ("letter",)  # a list of names that say nothing within other names
_LESS_A_LIST, _WHOLE_NAME = 0.1, 0.5  # a name of the next list is worth less; a whole name is worth this at least
_MEASURES = ("joint", "place", "pose", "gripper", "rate", "object")  # roles
_EVEN = 0.3  # distance of a step from the median, relative to the median
_USUAL_HZ = (10.0, 2000.0)
MOSTLY_STILL = 0.3  # of the steps: then the stamps are coarser than the rows
_SAME_RATE = 0.2
_DECADES = 6.0
_SHORTEST_S = 1e-12  # a step that is shorter, or longer than its inverse, is no time
_FALLS = 20.0


def clock_name(name: str) -> tuple[float, TimeUnit | None]:
    """Return how much a name is like that of a clock, from 0 to 1, and the unit that the name says."""
    words = words_in(name)
    while len(words) > 1 and words[-1].isdigit():
        words = words[:-1]
    like = _like_clock(" ".join(words))
    if like >= _WHOLE_NAME:  # such as "times", which is no "time" in seconds
        return like, None
    for stem, unit in _without_unit(words):
        return (_like_clock(stem) if stem else 0.5), unit
    return like, None


def named_unit(column: Column) -> tuple[str, TimeUnit | None]:
    """Return the words of a column's name without its unit of time, and that unit: ``stamp.nsec`` is stamp, ns."""
    if column.unit in NANOSECONDS:
        return " ".join(words_in(column.base)), time_unit(column.unit)
    return next(_without_unit(words_in(column.base)), (" ".join(words_in(column.base)), None))


def _like_clock(name: str) -> float:
    names = [key for key in lexicon().table("clock") if key not in _NO_CLOCKS]
    likes = [lexicon().likeness(name, "clock", key) for key in names]
    likes = [like * (like == 1 or key not in _WHOLE_ONLY) for like, key in zip(likes, names, strict=True)]
    return max(like**2 * (1 - i * _LESS_A_LIST) for i, like in enumerate(likes))


def _without_unit(words: tuple[str, ...]) -> Iterator[tuple[str, TimeUnit]]:
    """Yield a name without the unit at its end or at its front, or glued to its last word: ``timestampns``."""
    units: tuple[TimeUnit, ...] = get_args(TimeUnit)
    spellings = [(known.split(), unit) for unit in units for known in lexicon().phrases("time_units", unit)]
    spellings.sort(key=lambda each: -len(each[0]))
    for parts, unit in spellings:
        if list(words[-len(parts) :]) == parts and (len(words) > 1 or len(parts[0]) > 1):
            yield " ".join(words[: -len(parts)]), unit
    for parts, unit in spellings:
        if list(words[: len(parts)]) == parts and len(parts[0]) > 1:
            yield " ".join(words[len(parts) :]), unit
    for (part, *more), unit in spellings if words else ():
        stem = words[-1].removesuffix(part)
        if not more and stem != words[-1] and len(stem + part) > 2 and _like_clock(stem) >= _WHOLE_NAME:
            yield " ".join((*words[:-1], stem)), unit


def looks_like_time(column: Column) -> Evidence | None:
    """Return evidence that a column is called a clock, if it is."""
    like = clock_name(column.base)[0]
    return Evidence("named_clock", like, f"{column.name!r} is called a clock") if like >= 0.4 else None


def stem_of(column: Column) -> str:
    """Return the words of a column's name without numbers: columns with the same are one of several, as joints are."""
    return "" if column.name == f"c{column.position + 1}" else " ".join(w for w in words_in(column.base) if w.isalpha())


def of_name(column: Column, num_alike: int = 1) -> list[Evidence]:
    """Say what a column's name, its unit and its place tell. ``num_alike`` columns have the same ``stem_of``."""
    like = clock_name(column.base)[0]
    named = lexicon().likeness
    found = [Evidence("named_clock", like)] if like else []
    measure = max(named(column.base, "roles", key) for key in _MEASURES)
    measure = max(measure, named(column.base, "clock", "measures"))
    measure = max([measure, *(0.8 * (named(column.base, "arms", arm) >= 0.8) for arm in lexicon().table("arms"))])
    if num_alike > 1 and like < _WHOLE_NAME:
        measure = 1.0
    if measure > like:
        found.append(Evidence("named_measure", measure - like))
    counts = max(named(column.base, "roles", "counter"), named(column.base, "clock", "counts"))
    if column.whole and counts > like:
        found.append(Evidence("counts_rows", max(0.5, counts - like)))
    if max(named(column.base, "clock", "duration"), named(column.base, "clock", "step")) >= 0.8:
        found.append(Evidence("named_duration"))
    if column.unit:
        found.append(Evidence("unit_of_time") if column.unit in NANOSECONDS else Evidence("unit_of_other"))
    return [*found, *([Evidence("first_column")] if column.position == 0 else [])]


def of_steps(name: str, steps: NDArray[np.float64], values: NDArray[np.float64]) -> list[Evidence]:
    """Say how a column goes on from row to row. ``steps`` are those within episodes, ``values`` all of its numbers."""
    if not len(steps):
        return []
    up, down, still = (float(np.mean(each)) for each in (steps > 0, steps < 0, steps == 0))
    if not up:
        return [Evidence("never_rises")]
    usual = float(np.median(steps[steps > 0]))
    even = float(np.mean(np.abs(steps - usual) <= _EVEN * usual))
    found = [Evidence("rises", up), Evidence("stands_still", still)]
    if len(steps) > 2:
        found.append(Evidence("even_steps", even, f"{name!r} rises in even steps"))
    # A single damaged stamp is no sign that a clock runs back: the median of three neighbours leaves it out.
    lasting = np.median([values[:-2], values[1:-1], values[2:]], axis=0) if len(values) > 2 else values
    falls = len(steps) == len(values) - 1 and bool(np.any(np.diff(lasting) < 0))
    return [*found, Evidence("runs_back", 1.0 if down and falls else min(1.0, _FALLS * down))]


def of_unit(unit: TimeUnit, column: Column, steps: NDArray[np.float64], stated_hz: float | None) -> list[Evidence]:
    """Say what the name, the numbers' magnitude, their digits and the rate of the rows tell for a unit."""
    found = [Evidence("long_unit")] if unit in ("d", "h", "min") else []
    if (column.unit or clock_name(column.base)[1]) == unit:
        found.append(Evidence("unit_said", 1.0, f"unit {unit}: the name says so"))
    scale = NANOSECONDS[unit] / 1e9
    usual = float(np.median(steps[steps > 0])) if np.any(steps > 0) else 0.0
    if usual and np.mean(steps == 0) >= MOSTLY_STILL:  # rows share stamps
        usual = max(0.0, float(np.mean(steps)))
    rate = 1 / (usual * scale) if _SHORTEST_S < usual * scale < 1 / _SHORTEST_S else None
    first = float(column.finite[0])
    if DATES_S[0] <= first * scale <= DATES_S[1] and unit not in ("d", "h", "min") and not (rate and rate > 1e5):
        year = datetime.fromtimestamp(first * scale, UTC).year
        found.append(Evidence("dates", 1.0, f"unit {unit}: the numbers count from 1970 (the year is {year})"))
    if unit == "d" and _DAYS_SINCE_1899[0] <= first <= _DAYS_SINCE_1899[1] and not column.whole and usual < 1e-3:
        found.append(Evidence("spreadsheet_dates", 1.0, "unit d: days since 1899, as spreadsheets count them"))
    if unit == "s":
        found.append(Evidence("plain_seconds", 0.5 if column.whole else 1.0))
    if rate is None:
        return found
    beyond = max(0.0, math.log10(_USUAL_HZ[0] / rate), math.log10(rate / _USUAL_HZ[1]))
    if stated_hz is not None and abs(rate / stated_hz - 1) < _SAME_RATE:
        found.append(Evidence("rate_as_stated", 1.0, f"unit {unit}: the rate is then that of the lines above the rows"))
    elif stated_hz is not None and not any(each.feature in ("unit_said", "dates") for each in found):
        found.append(Evidence("rate_not_as_stated", 1.0 if column.whole else 0.3))
    said = f"unit {unit}: steps of {usual:g} are then {rate:.4g} rows a second"
    return [*found, Evidence("usual_rate", max(0.0, 1 - beyond / _DECADES), said)]


def rate_of(steps: NDArray[np.float64], unit: TimeUnit = "s") -> float | None:
    """Return the rows per second by the mean step, with gaps left out."""
    steps = steps[steps > 0] * (NANOSECONDS[unit] / 1e9)
    if not len(steps):
        return None
    usual = steps[steps < 10 * np.median(steps)]
    return float(1 / usual.mean()) if len(usual) and usual.mean() else None

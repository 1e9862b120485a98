"""Guesses a table's clock: which column it is, the unit and form of its stamps, or the rate of the rows if none is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.infer.choices import Choices, Option
from vlapipe.pipeline.infer.columns.clock_evidence import (
    DATES_S,
    MOSTLY_STILL,
    looks_like_time,
    named_unit,
    of_name,
    of_steps,
    of_unit,
    rate_of,
    stem_of,
)
from vlapipe.pipeline.infer.columns.columns import Column
from vlapipe.pipeline.infer.columns.stamp_text import is_date, text_clock
from vlapipe.pipeline.infer.columns.time_parts import sum_of_parts, time_in_parts
from vlapipe.pipeline.infer.evidence import Evidence, log_odds, said
from vlapipe.pipeline.infer.lexicon import lexicon
from vlapipe.pipeline.infer.text.cells import is_missing
from vlapipe.schemas.schema import NANOSECONDS, TimePart, TimeSpec, TimeUnit

__all__ = ["ASSUMED_HZ", "ClockGuess", "clock_options", "guess_clock", "looks_like_time", "pick_clock", "unit_of"]

ASSUMED_HZ = 10.0
_SURE = 3.5  # log-odds; a clock that is less likely is asked about
_STATED = 2.0  # log-odds of no clock if a rate stands above the rows
_NEAR, _MENTIONED = 3.0, 6.0  # log-odds within which another unit is a possible answer, and within which it is said
_SAME_RATE = 0.2
_STILL = 10.0  # what standing still costs a column at most
_SINCE_1899_S = -25_569 * 86_400.0
_DAY_S, _MIDNIGHT_S = 86_400.0, 600.0
_OTHER_BEGINNINGS = (  # first and last number around today, seconds in one, and what the column then is
    (6.2e17, 6.6e17, 1e-7, "counts 0.1 us since the year 1, as .NET does"),
    (1.24e17, 1.45e17, 1e-7, "counts 0.1 us since 1601, as Windows does"),
    (730_000, 750_000, 86_400.0, "counts days since the year 0, as MATLAB does"),
)


@dataclass(frozen=True, kw_only=True)
class ClockGuess:
    """A clock, the columns that it uses, and the reasons. ``stamps_s`` holds the times of the first rows, if known."""

    time: TimeSpec
    columns: tuple[str, ...] = ()
    rate_hz: float | None = None
    stamps_s: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    reasons: tuple[str, ...] = ()
    assumed: bool = False  # True if no clock was found, so that the rate is only assumed
    unsure: bool = False  # True if only a person can say that this is the clock
    split_gap_s: float | None = None  # the jump that begins another episode, if the clock begins again within a file

    @property
    def epoch(self) -> bool:
        """True if the clock counts from 1970."""
        return len(self.stamps_s) > 0 and bool(self.stamps_s[0] > DATES_S[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Way:
    """One way to read stamps from columns: by ``score`` they are a clock, and by ``unit_score`` one of this unit."""

    columns: tuple[Column, ...]
    time: TimeSpec
    steps_s: NDArray[np.float64]
    stamps_s: NDArray[np.float64]
    score: float
    unit_score: float = 0.0
    reasons: tuple[str, ...] = ()

    @property
    def is_coarse(self) -> bool:
        """Whether many rows have the stamp of the row before."""
        return len(self.steps_s) > 1 and bool(np.mean(self.steps_s == 0) >= MOSTLY_STILL)


def guess_clock(columns: list[Column], groups: Column | None = None) -> ClockGuess:
    """Return the likeliest clock of a table. ``groups`` is the column whose changes cut the table into episodes."""
    return max(clock_options(columns, groups), key=lambda option: option.score).value


def pick_clock(name: str, options: Sequence[Option[ClockGuess]], choices: Choices) -> ClockGuess:
    """Choose one of the options for a stream, and ask if the evidence leaves open whether it is a clock at all."""
    best = max(options, key=lambda option: option.score)
    # Where only a person can say whether it is a clock at all, one question is enough.
    offered = [option for option in options if not option.value.assumed] if best.value.unsure else options
    taken = choices.pick(f"{name}: clock", offered)
    if taken.value.unsure:
        rate = f"rate_hz = {ASSUMED_HZ:g}"
        choices.ask(f"{name}: clock", taken.says, taken.line, "no column, but rows at a rate that you know", rate)
    return taken.value


@np.errstate(over="ignore", invalid="ignore")
def clock_options(
    columns: list[Column], groups: Column | None = None, *, stated_hz: float | None = None
) -> list[Option[ClockGuess]]:
    """Return the possible clocks of a table, the last of which is none: rows at a rate.

    Args:
        columns: of a table, or arrays of a container with one number a row.
        groups: the column whose changes cut the table into episodes.
        stated_hz: the rate that stands above the rows.
    """
    parts = time_in_parts(columns)
    free = [column for column in columns if column not in parts.values()]
    alike = Counter(filter(None, map(stem_of, free)))
    ways = [way for c in free for way in _ways(c, free, groups, stated_hz, alike[stem_of(c)])]
    of_parts = _by_parts(parts, groups) if parts else None
    ways += [of_parts] if of_parts is not None else []
    ways.sort(key=lambda way: (-way.score, -way.unit_score))
    likely = [way for way in ways if way.score > 0 and not way.is_coarse]
    options = [_no_clock(free, ways, stated_hz)]
    if parts and of_parts not in likely:
        hole = f"the time in parts ({_listed(parts.values())}) stands still, runs back or has holes"
        value = options[0].value
        options[0] = replace(options[0], value=replace(value, reasons=(*value.reasons, hole)))
    if not likely:
        return options
    ours = [way for way in likely if way.columns == likely[0].columns]
    also = list(dict.fromkeys(way.columns[0].name for way in likely if way.columns[0] not in likely[0].columns))
    rest = [f"{', '.join(map(repr, also))} would do as well"] if also and of_parts not in likely[1:] else []
    if parts and likely[0] is not of_parts:
        rest.append(f"the time in parts ({_listed(parts.values())}) would do as well")
    near = [way for way in ours if likely[0].unit_score - way.unit_score < _NEAR]
    return [*(_option(way, way.unit_score - likely[0].unit_score, rest) for way in near), *options]


def _option(way: _Way, behind: float, rest: list[str]) -> Option[ClockGuess]:
    names = tuple(column.name for column in way.columns)
    reasons = tuple(dict.fromkeys((*way.reasons, *rest)))
    unsure = way.score < _SURE
    rate = rate_of(way.steps_s)
    guess = ClockGuess(
        time=way.time, columns=names, rate_hz=rate, stamps_s=way.stamps_s, reasons=reasons, unsure=unsure
    )
    form = f'format = "{way.time.format}"' if way.time.format else f'unit = "{way.time.unit}"'
    says = _listed(way.columns) if way.time.format or way.time.parts else f"{_listed(way.columns)} in {way.time.unit}"
    line = f'time = {{ column = "{names[0]}", {form} }}'
    return Option(value=guess, score=way.score + behind, says=says, line=line, reasons=reasons)


def _ways(
    column: Column, columns: list[Column], groups: Column | None, stated_hz: float | None, num_alike: int
) -> Iterator[_Way]:
    """Yield the ways to read a column as a clock, alone or with the column of its fraction or of its time of day."""
    if column.kind in ("time", "text") and not column.of_array:
        yield from _by_text(column, columns, groups)
    steps = column.steps_within(groups) if column.kind == "number" else np.empty(0)
    if column.kind != "number" or not len(column.finite) or _other_beginning(column) is not None:
        return
    if len(steps) and not np.any(steps > 0):
        return
    pair = _fraction_of(column, columns)
    if pair is not None:
        yield _by_two(column, *pair, groups)
        return
    units = {unit: of_unit(unit, column, steps, stated_hz) for unit in get_args(TimeUnit)}
    scores = {unit: log_odds("clock_unit", found) for unit, found in units.items()}
    named = of_name(column, num_alike)
    for unit, found in units.items():
        if scores[unit] < max(scores.values()) - _NEAR:
            continue
        scale = NANOSECONDS[unit] / 1e9
        steps_s = _over_midnight(steps * scale)
        near = [u for u in units if u != unit and scores[unit] - scores[u] < _MENTIONED and len(steps)]
        evidence = [*named, *found, *of_steps(column.name, steps_s, column.finite)]
        exact, exact_reason = _is_exact(column, unit)
        is_spreadsheet = unit == "d" and any(each.feature == "spreadsheet_dates" for each in found)
        offset_s = _SINCE_1899_S if is_spreadsheet else 0.0
        yield _Way(
            columns=(column,),
            time=TimeSpec(sources=(column.name,), unit=unit, integer=column.whole, exact=exact, offset_s=offset_s),
            steps_s=steps_s,
            stamps_s=column.finite * scale + offset_s,
            score=log_odds("clock", evidence),
            unit_score=scores[unit],
            reasons=(
                *said("clock_unit", found)[:1],
                *exact_reason,
                *(f"unit {u} is possible too: {rate_of(steps, u):.4g} rows a second" for u in near),
                *said("clock", evidence),
            ),
        )


def _over_midnight(steps_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the steps with one over midnight, where a time of day falls by a day, as the short step that it is."""
    return np.where(np.abs(steps_s + _DAY_S) < _MIDNIGHT_S, steps_s + _DAY_S, steps_s)


def unit_of(texts: Sequence[str]) -> tuple[TimeUnit, list[str]]:
    """Guess the unit of rising numbers without a name, and say why."""
    column = Column("", -1, "number", tuple(texts), "", "", ".")
    units = {unit: of_unit(unit, column, column.steps, None) for unit in get_args(TimeUnit)}
    best: TimeUnit = max(units, key=lambda unit: log_odds("clock_unit", units[unit]))
    return best, list(said("clock_unit", units[best])[:1])


def _is_exact(column: Column, unit: TimeUnit) -> tuple[bool, tuple[str, ...]]:
    """Return True if stamps have more digits than float64 keeps, and not more than nanoseconds hold; and the reason."""
    if column.whole or column.of_array or any("e" in cell.lower() for cell in column.numbers):
        return False, ()
    digits = max(len(cell.partition(".")[2].rstrip("0")) for cell in column.numbers)
    if all(_same_digits(cell) for cell in column.numbers):
        return False, ()
    per_unit = str(NANOSECONDS[unit])
    if digits > len(per_unit) - len(per_unit.rstrip("0")):
        return False, (f"{digits} decimals are more than nanoseconds hold: kept as float64",)
    return True, ("exact: the stamps have more digits than a float64 keeps",)


def _same_digits(cell: str) -> bool:
    whole, _, decimals = repr(float(cell)).partition(".")
    given, _, given_decimals = cell.lstrip("+").partition(".")
    return (whole, decimals.rstrip("0")) == (given, given_decimals.rstrip("0"))


def _fraction_of(column: Column, columns: list[Column]) -> tuple[Column, TimeUnit] | None:
    """Find the column with the fraction of whole seconds: of the same name but for the unit, or the next column.

    The numbers of the next column must rise while the seconds stand still, and stay below one second.
    """
    if not column.whole or column.of_array:
        return None
    stem, unit = named_unit(column)
    for other in columns if unit in ("s", None) else ():
        stem_of_other, finer = named_unit(other)
        fits = other.whole and len(other.finite) == len(column.finite) and finer in ("ms", "us", "ns")
        is_ours = stem_of_other == stem and (unit == "s" or bool(stem))
        if other is not column and fits and is_ours and finer and _below_a_second(other, finer):
            return other, finer
    other = next((c for c in columns if c.position == column.position + 1), column)
    still = column.steps == 0
    if other is column or not other.whole or len(other.finite) != len(column.finite) or not np.any(still):
        return None
    if not DATES_S[0] < column.finite[0] < DATES_S[1] or not np.all(other.steps[still] > 0):
        return None
    largest = other.finite.max()
    units: tuple[TimeUnit, ...] = ("us", "ns")
    return next(((other, u) for u in units if _below_a_second(other, u) and largest >= 1e8 / NANOSECONDS[u]), None)


def _below_a_second(column: Column, unit: TimeUnit) -> bool:
    return bool(column.finite.min() >= 0 and column.finite.max() < NANOSECONDS["s"] / NANOSECONDS[unit])


def _by_two(column: Column, other: Column, unit: TimeUnit, groups: Column | None) -> _Way:
    scale = NANOSECONDS[unit] / 1e9
    # Steps are computed for each column before they are added: float64 cannot hold epoch seconds with nanoseconds.
    steps = column.steps_within(groups) + other.steps_within(groups) * scale
    evidence = [*of_name(column), Evidence("unit_of_time"), *of_unit("s", column, column.steps, None)]
    return _Way(
        columns=(column, other),
        time=TimeSpec(sources=(column.name,), unit="s", integer=True, plus=other.name, plus_unit=unit),
        steps_s=steps,
        stamps_s=column.finite + other.finite * scale,
        score=log_odds("clock", [*evidence, *of_steps(column.name, steps, column.finite)]),
        reasons=(f"whole seconds in {column.name!r} and {unit} in {other.name!r} are added",),
    )


def _by_text(column: Column, columns: list[Column], groups: Column | None) -> Iterator[_Way]:
    cells = [cell.strip() for cell in column.cells]
    date = next((c for c in columns if abs(c.position - column.position) == 1 and is_date(_stripped(c))), None)
    joined = None
    if date is not None and len(date.cells) == len(cells) and not is_date(cells):
        joined = text_clock([f"{day} {time}" for day, time in zip(_stripped(date), cells, strict=True)])
    found = joined or text_clock([cell for cell in cells if not is_missing(cell)])
    if found is None:
        return
    steps = np.diff(found.stamps_s)
    if groups is not None and len(groups.cells) == len(found.stamps_s):
        steps = steps[[a == b for a, b in pairwise(groups.cells)]]
    both = (date, column) if date is not None and joined is not None else (column,)
    evidence = [*of_name(column), Evidence("time_as_text"), *of_steps(column.name, steps, found.stamps_s)]
    plus = column.name if len(both) == 2 else None
    joins = (f"the date in {both[0].name!r} and the time of day in {column.name!r} are joined",) if plus else ()
    yield _Way(
        columns=both,
        time=TimeSpec(sources=(both[0].name,), plus=plus, format=found.form),
        steps_s=steps,
        stamps_s=found.stamps_s,
        score=log_odds("clock", evidence),
        reasons=(*joins, *found.reasons),
    )


def _stripped(column: Column) -> list[str]:
    return [cell.strip() for cell in column.cells]


def _by_parts(parts: dict[TimePart, Column], groups: Column | None) -> _Way | None:
    """Add up a time in parts. Returns ``None`` if the parts have holes."""
    used, sums = sum_of_parts(parts)
    if not len(sums):
        return None
    steps = np.diff(sums) / 1e9
    if groups is not None and len(groups.cells) == len(sums):
        steps = steps[[a == b for a, b in pairwise(groups.cells)]]
    evidence = [Evidence("time_in_parts"), *of_steps("the time in parts", steps, sums / 1e9)]
    dated = () if "year" in used else ("there is no date: they count from midnight",)
    return _Way(
        columns=tuple(used.values()),
        time=TimeSpec(parts=tuple((part, column.name) for part, column in used.items())),
        steps_s=steps,
        stamps_s=sums / 1e9,
        score=log_odds("clock", evidence),
        reasons=(f"the time stands in parts ({', '.join(used)}), which are added", *dated),
    )


def _listed(columns: Iterable[Column]) -> str:
    return ", ".join(repr(column.name) for column in columns)


def _no_clock(columns: list[Column], ways: list[_Way], stated_hz: float | None) -> Option[ClockGuess]:
    """Return the answer that no column is the clock, with the rate that the columns tell, or else an assumed one."""
    rate, why, assumed = _rate_by_steps(columns) or _rate_by_coarse_stamps(columns, ways) or (None, "", True)
    counter = next((column for column in columns if rate is None and _counts_rows(column)), None)
    if rate is None:
        counts = f"{counter.name!r} counts, and {ASSUMED_HZ:g} counts" if counter else f"{ASSUMED_HZ:g} rows"
        why = f"no column is a clock; {counts} a second are only assumed: correct rate_hz"
    reasons = [why]
    for column in columns:
        sample = next((cell for cell in column.cells if not is_missing(cell)), "")
        if column.kind == "text" and looks_like_time(column) and any(ch.isdigit() for ch in sample):
            reasons.append(
                f"{column.name!r} is called a clock, but holds text such as {sample!r}: print it as a number or a date"
            )
    hz = float(f"{rate or ASSUMED_HZ:.4g}")
    guess = ClockGuess(
        time=TimeSpec(sources=(counter.name,) if counter else (), index_rate_hz=hz),
        columns=(counter.name,) if counter else (),
        rate_hz=rate_of(counter.steps / hz) if counter else hz,
        reasons=tuple(reasons),
        assumed=assumed,
    )
    says = f"no column: {counter.name if counter else 'rows'} at {hz:g} a second"
    score = 0.0 if stated_hz is None else _STATED
    return Option(value=guess, score=score, says=says, line=f"rate_hz = {hz:g}", reasons=guess.reasons)


def _counts_rows(column: Column) -> bool:
    """Return whether a column numbers rows or messages: by its name, and because it rises."""
    is_named = any(each.feature == "counts_rows" for each in of_name(column)) if column.whole else False
    return is_named and len(column.steps) > 0 and bool(np.all(column.steps > 0))


def _rate_by_steps(columns: list[Column]) -> tuple[float, str, bool] | None:
    """Return the rate if a column says how long each row takes. If it varies, the rate is the mean, and is assumed."""
    for column in columns:
        if column.kind != "number" or lexicon().likeness(column.base, "clock", "step") < 0.8 or not len(column.finite):
            continue
        steps = column.finite[column.finite > 0]
        if len(steps) < len(column.finite) - 1 or not len(steps):
            continue
        units = {unit: log_odds("clock_unit", of_unit(unit, column, steps, None)) for unit in get_args(TimeUnit)}
        unit: TimeUnit = max(units, key=lambda unit: units[unit])
        rate = rate_of(steps, unit)
        varies = bool(np.ptp(steps) > _SAME_RATE * np.median(steps))
        if rate is not None:
            return rate, f"no column is a clock; {column.name!r} says that a row takes {1 / rate:.4g} s", varies
    return None


def _rate_by_coarse_stamps(columns: list[Column], ways: list[_Way]) -> tuple[float, str, bool] | None:
    """Return the rate by stamps that are no clock: several rows share each of them, or no schema describes them."""
    for way in ways:
        change = np.flatnonzero(way.steps_s > 0)
        if way.score > -_STILL and way.is_coarse and len(change) > 1:
            span = float(way.steps_s[change[0] + 1 : change[-1] + 1].sum())
            shared = f"no column is a clock of the rows: several rows share each stamp of {way.columns[0].name!r}"
            return float(change[-1] - change[0]) / span, f"{shared}; rows a second are counted by it", True
    for column in columns:
        found = _other_beginning(column)
        rate = rate_of(column.steps * found[0]) if found is not None else None
        if found is not None and rate is not None:
            return (
                rate,
                f"{column.name!r} {found[1]}: write it in s or ns since 1970; its steps say the rate",
                True,
            )
    return None


def _other_beginning(column: Column) -> tuple[float, str] | None:
    """Return the seconds in one of a column's numbers, and what it counts, if no schema describes its beginning."""
    if column.kind != "number" or not column.rises or looks_like_time(column) is None:
        return None
    first = float(column.finite[0])
    found = ((each[2], each[3]) for each in _OTHER_BEGINNINGS if each[0] <= first <= each[1])
    return next((each for each in found if column.whole == (each[0] < 1)), None)

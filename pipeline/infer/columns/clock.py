"""Guesses a table's clock: which column it is, the unit and form of its stamps, or the rate of the rows if none is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.infer.choices import Choices, Option
from vlapipe.pipeline.infer.columns.clock_evidence import looks_like_time, of_name, rate_of, stem_of
from vlapipe.pipeline.infer.columns.clock_ways import Way, listed, other_beginning, way_of_parts, ways_of, weigh_units
from vlapipe.pipeline.infer.columns.columns import Column
from vlapipe.pipeline.infer.columns.time_parts import time_in_parts
from vlapipe.pipeline.infer.evidence import said
from vlapipe.pipeline.infer.lexicon import lexicon
from vlapipe.pipeline.infer.text.cells import DATES_S, is_missing
from vlapipe.schemas.schema import TimeSpec, TimeUnit

__all__ = ["ASSUMED_HZ", "ClockGuess", "clock_options", "guess_clock", "looks_like_time", "pick_clock", "unit_of"]

ASSUMED_HZ = 10.0
_SURE = 3.5  # log-odds; a clock that is less likely is asked about
_STATED = 2.0  # log-odds of no clock if a rate stands above the rows
_STILL = 10.0  # log-odds that standing still costs a column at most
_SAME_RATE = 0.2
_FAILS = "stands still, runs back or has holes"


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
    alike = Counter(filter(None, map(stem_of, {column.cells: column for column in free}.values())))
    ways = [way for column in free for way in ways_of(column, free, groups, stated_hz, alike[stem_of(column)])]
    of_parts = way_of_parts(parts, groups) if parts else None
    ways += [of_parts] if of_parts is not None else []
    ways.sort(key=lambda way: (-way.score, -way.unit_score))
    likely = [way for way in ways if way.score > 0 and not way.is_coarse]
    best = likely[0] if likely else None
    also = []
    if parts and (best is None or best is not of_parts):
        also.append(f"the time in parts ({listed(parts.values())}) {_FAILS if best is None else 'would do as well'}")
    none = _no_clock(free, ways, stated_hz, also if best is None else [])
    if best is None:
        return [none]
    others = dict.fromkeys(way.columns[:1] for way in likely if not set(way.columns) & {*best.columns, *parts.values()})
    also[:0] = [f"{', '.join(listed(each) for each in others)} would do as well"] if others else []
    ours = [way for way in likely if way.columns == best.columns]
    return [*(_option(way, way.unit_score - best.unit_score, also) for way in ours), none]


def _option(way: Way, behind: float, also: list[str]) -> Option[ClockGuess]:
    names = tuple(column.name for column in way.columns)
    reasons = tuple(dict.fromkeys((*way.reasons, *also)))
    rate, unsure = rate_of(way.steps_s), way.score < _SURE
    guess = ClockGuess(
        time=way.time, columns=names, rate_hz=rate, stamps_s=way.stamps_s, reasons=reasons, unsure=unsure
    )
    form = f'format = "{way.time.format}"' if way.time.format else f'unit = "{way.time.unit}"'
    line = f'time = {{ column = "{names[0]}", {form} }}'
    return Option(value=guess, score=way.score + behind, says=way.says, line=line, reasons=reasons)


def unit_of(texts: Sequence[str]) -> tuple[TimeUnit, list[str]]:
    """Guess the unit of rising numbers without a name, and say why."""
    column = Column("", -1, "number", tuple(texts), "", "", ".")
    units = weigh_units(column, column.steps)
    best = max(units, key=lambda unit: units[unit][0])
    return best, list(said("clock_unit", units[best][1])[:1])


def _no_clock(columns: list[Column], ways: list[Way], stated_hz: float | None, also: list[str]) -> Option[ClockGuess]:
    """Return the answer that no column is the clock, with the rate that the columns tell, or else an assumed one."""
    rate, why, assumed = (
        _rate_by_periods(columns) or _rate_by_coarse_stamps(ways) or _rate_by_ticks(columns) or (None, "", True)
    )
    counter = next((column for column in columns if rate is None and _counts_rows(column)), None)
    if rate is None:
        counts = f"{counter.name!r} counts, and {ASSUMED_HZ:g} counts" if counter else f"{ASSUMED_HZ:g} rows"
        why = f"{counts} a second are only assumed: correct rate_hz"
    unread = (column for column in columns if column.kind == "text" and looks_like_time(column))
    texts = ((column, next((c for c in column.cells if not is_missing(c)), "")) for column in unread)
    reasons = (
        f"no column is a clock; {why}",
        *also,
        *(
            f"{column.name!r} is called a clock, but holds text such as {cell!r}: print it as a number or a date"
            for column, cell in texts
            if any(map(str.isdigit, cell))
        ),
    )
    hz = float(f"{rate or ASSUMED_HZ:.4g}")
    names = (counter.name,) if counter else ()
    rate = rate_of(counter.steps / hz) if counter else hz
    time = TimeSpec(sources=names, index_rate_hz=hz)
    guess = ClockGuess(time=time, columns=names, rate_hz=rate, reasons=reasons, assumed=assumed)
    says, score = (
        f"no column: {names[0] if names else 'rows'} at {hz:g} a second",
        0.0 if stated_hz is None else _STATED,
    )
    return Option(value=guess, score=score, says=says, line=f"rate_hz = {hz:g}", reasons=reasons)


def _counts_rows(column: Column) -> bool:
    """Return whether a column numbers rows or messages: by its name, and because it rises."""
    is_named = column.whole and any(each.feature == "counts_rows" for each in of_name(column))
    return is_named and len(column.steps) > 0 and bool(np.all(column.steps > 0))


def _rate_by_periods(columns: list[Column]) -> tuple[float, str, bool] | None:
    """Return the rate if a column says how long each row takes. If it varies, the rate is the mean, and is assumed."""
    for column in columns:
        periods = column.finite[column.finite > 0] if column.kind == "number" else column.finite[:0]
        is_named = lexicon().likeness(column.base, "clock", "step") >= 0.8
        if not is_named or not len(periods) or len(periods) < len(column.finite) - 1:
            continue
        units = weigh_units(column, periods)
        rate = rate_of(periods, max(units, key=lambda unit: units[unit][0]))
        if rate is not None:
            varies = bool(np.ptp(periods) > _SAME_RATE * np.median(periods))
            return rate, f"{column.name!r} says that a row takes {1 / rate:.4g} s", varies
    return None


def _rate_by_coarse_stamps(ways: list[Way]) -> tuple[float, str, bool] | None:
    """Return the rate by stamps of which several rows share each."""
    for way in ways:
        change = np.flatnonzero(way.steps_s > 0)
        if way.score > -_STILL and way.is_coarse and len(change) > 1:
            span = float(way.steps_s[change[0] + 1 : change[-1] + 1].sum())
            why = f"several rows share each stamp of {way.columns[0].name!r}: rows a second are counted by it"
            return float(change[-1] - change[0]) / span, why, True
    return None


def _rate_by_ticks(columns: list[Column]) -> tuple[float, str, bool] | None:
    """Return the rate by stamps whose beginning no schema describes."""
    for column in columns:
        found = other_beginning(column)
        rate = rate_of(column.steps * found[0]) if found is not None else None
        if found is not None and rate is not None:
            return rate, f"{column.name!r} {found[1]}: write it in s or ns since 1970; its steps say the rate", True
    return None

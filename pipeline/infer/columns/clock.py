"""Guesses which column is a table's clock, its unit, and the form of its stamps."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.infer.columns.columns import Column
from vlapipe.pipeline.infer.columns.stamp_text import is_date, text_clock
from vlapipe.pipeline.infer.columns.time_parts import time_in_parts
from vlapipe.pipeline.infer.text.cells import is_missing
from vlapipe.pipeline.read.clocks.time_parts import NANOSECONDS_A_DAY, days_since_1970, time_of_day
from vlapipe.schemas.schema import NANOSECONDS, TimePart, TimeSpec, TimeUnit

__all__ = ["ASSUMED_HZ", "ClockGuess", "guess_clock", "looks_like_time", "rate_of", "unit_of"]

_EPOCH = (9.4e8, 4.2e9)  # in seconds since 1970: about the years 2000 to 2100
_UNITS: tuple[TimeUnit, ...] = ("s", "ms", "us", "ns")
_SANE_HZ = (0.5, 5000.0)
_USUAL_HZ = 60.0  # of several plausible rates, the rate nearest to this is taken
_LONG_UNITS: tuple[TimeUnit, ...] = ("h", "min")  # taken only if they are said
_DIGITS_TO_NS = {"h": 11, "min": 10, "s": 9, "ms": 6, "us": 3, "ns": 0}
ASSUMED_HZ = 10.0

# Best first: when the sample was taken, then when the message was stamped, then when it was received.
_NAMES = (
    r"(origin|measure(d|ment)?|capture|sample|sensor|device|hardware)_?(time|timestamp|stamp)",
    r"(.*[._])?header[._]stamp([._](sec|secs))?",
    r"time_?stamps?|stamp|ts|t|time|times|zeit|clock|date_?time|time_?of_?day",
    r"(sec|secs|seconds|tv_sec|stamp_sec|stamp_secs|timestamp_sec|timestamp_s|time_s|elapsed(_time)?|utc(_time)?|date)",
    r"epoch(_.*)?|unix(_?time)?(_.*)?|(time|timestamp|t|ts)_?(ms|us|ns|sec|msec|usec|nsec|nanos|millis|micros|utc|epoch)",
    r"_*(ros)?bag_?time|_+time|sys(tem)?_?time(stamp)?|log_?time|.*[._ ](time|timestamp|stamp|ts)",
    r"(ms|us|ns|millis|micros|nanos|milliseconds|microseconds|nanoseconds)",
    r".*(timestamp|time_?stamp).*",
    r"(time|zeit|stamp|elapsed(_time)?)_?(in)?_?(s|secs?|seconds?|sekunden|min|mins|minutes?|h|hrs?|hours?)",
    r"minutes?|hours?",
    r"(recv|receive[d]?|send|sent|arrival|host|publish)_?(time|timestamp|stamp)",
)
_NAMED_UNIT = (
    (
        "ns",
        re.compile(r"(^|[_ .\[(])(ns|nsecs?|nanos?|nanosec(onds)?s?)([\])]|$)|nanosec|(time|stamp|^ts?)n(ano)?s(ec)?$"),
    ),
    (
        "us",
        re.compile(r"(^|[_ .\[(])(us|usecs?|µs|micros?|microseconds?)([\])]|$)|(time|stamp|^ts?)(u|µ|micro)s(ec)?$"),
    ),
    ("ms", re.compile(r"(^|[_ .\[(])(ms|msecs?|millis?|milliseconds?)([\])]|$)|(time|stamp|^ts?)m(illi)?s(ec)?$")),
    ("s", re.compile(r"(^|[_ .\[(])(s|secs?|seconds?)([\])]|$)")),
    ("min", re.compile(r"(^|[_ .\[(])(mins?|minutes?)([\])]|$)")),
    ("h", re.compile(r"(^|[_ .\[(])(h|hrs?|hours?)([\])]|$)")),
)
# Words in names of columns that number rows or messages; such a column is not a clock even if it rises evenly.
_COUNTERS = {"packet", "packets", "counter", "frame", "sample", "seq", "sequence", "index", "idx", "row"}
_TIMES = {"time", "timestamp", "stamp", "clock"}
_FRACTIONS = (("ns", r"nsecs?|nanosecs?|nanoseconds?|nanosec"), ("us", r"usecs?|microsecs?|microseconds?"))


@dataclass(frozen=True, kw_only=True)
class ClockGuess:
    """A clock, the columns that it uses, and the reasons. ``stamps_s`` holds the times of the first rows, if known."""

    time: TimeSpec
    columns: tuple[str, ...] = ()
    rate_hz: float | None = None
    stamps_s: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    reasons: tuple[str, ...] = ()
    assumed: bool = False  # True if no clock was found, so that the rate is only assumed

    @property
    def epoch(self) -> bool:
        """True if the clock counts from 1970."""
        return len(self.stamps_s) > 0 and bool(self.stamps_s[0] > _EPOCH[0])


def looks_like_time(column: Column) -> int | None:
    """Return the rank of a column's name among usual names of clocks (0 is best), or ``None`` for any other name."""
    for text in (column.name, column.base):
        name = re.sub(r"[\[(].*", "", text.strip().lower().lstrip("%#")).strip().replace(" ", "_").replace("-", "_")
        for rank, pattern in enumerate(_NAMES):
            if re.fullmatch(pattern, name):
                return rank
    return None


def guess_clock(columns: list[Column], groups: Column | None = None) -> ClockGuess:
    """Guess the clock of a table. ``groups`` is the column whose changes cut the table into episodes."""
    parts = time_in_parts(columns)
    if parts:
        return _beside_parts([column for column in columns if column not in parts.values()], parts, groups)
    named = sorted(
        (rank, column.position, column)
        for column in columns
        if (rank := looks_like_time(column)) is not None and column.kind in ("number", "time", "text")
    )
    candidates = [column for _, _, column in named]
    guesses = [guess for column in candidates if (guess := _by_column(column, columns, groups)) is not None]
    if guesses:
        others = [name for guess in guesses[1:] for name in guess.columns[:1]]
        also = (f"{', '.join(map(repr, others))} would do as well",) if others else ()
        return replace(guesses[0], reasons=(*guesses[0].reasons, *also))
    for column in columns:  # no name tells: text that holds a time comes next
        if column.kind in ("text", "time") and (guess := _by_column(column, columns, groups)) is not None:
            return guess
    for column in columns:  # a rising column with the magnitude of dates is a clock, even if its steps are uneven
        guess = _by_column(column, columns, groups) if column.rises and not _says_it_counts(column) else None
        if guess is not None and guess.epoch and bool(np.all(guess.stamps_s < _EPOCH[1])):
            fraction = _next_fraction(column, columns) if guess.time.unit == "s" else None
            guess = (fraction and _by_two(column, *fraction, groups)) or guess
            reason = f"{column.name!r} rises and has the magnitude of dates; no name says that it is a clock"
            return replace(guess, reasons=(reason, *guess.reasons))
    for column in columns:
        if not column.counts and not _says_it_counts(column) and _ticks_evenly(column):
            guess = _by_column(column, columns, groups)
            if guess is not None:
                reason = f"{column.name!r} rises in even steps, as only a clock does; no name says so"
                return replace(guess, reasons=(reason, *guess.reasons))
    assumed = _assumed(columns)
    unread = next((c for c in candidates if c.kind == "text" and any(ch.isdigit() for ch in c.cells[0])), None)
    if unread is None:
        return assumed
    said = (
        f"{unread.name!r} is called a clock, but holds text such as {unread.cells[0]!r}: print it as a number or a date"
    )
    return replace(assumed, reasons=(*assumed.reasons, said))


def _beside_parts(others: list[Column], parts: dict[TimePart, Column], groups: Column | None) -> ClockGuess:
    """Guess the clock of a table that has a time in parts: another column if possible, else the sum of the parts."""
    guess = guess_clock(others, groups)
    listed = ", ".join(repr(column.name) for column in parts.values())
    if not guess.assumed:
        return replace(guess, reasons=(*guess.reasons, f"the time in parts ({listed}) would do as well"))
    dated = set(parts) >= {"year", "month", "day"} or set(parts) >= {"year", "day_of_year"}
    used = {p: c for p, c in parts.items() if dated or p not in ("year", "month", "day", "day_of_year")}
    if dated and "day" in used and "month" in used:
        used.pop("day_of_year", None)
    stamps = _sum_of_parts({part: column.values for part, column in used.items()})
    steps = _within(np.diff(stamps) / 1e9, groups)
    if not np.any(steps > 0) or np.any(steps < 0):
        said = f"the time in parts ({listed}) stands still, runs back or has holes: which column is the clock?"
        return replace(guess, reasons=(*guess.reasons, said))
    return ClockGuess(
        time=TimeSpec(parts=tuple((part, column.name) for part, column in used.items())),
        columns=tuple(column.name for column in used.values()),
        rate_hz=rate_of(steps),
        stamps_s=stamps / 1e9,
        reasons=(
            f"the time stands in parts ({', '.join(used)}), which are added",
            *([] if dated else ["there is no date: they count from midnight"]),
        ),
    )


def _sum_of_parts(values: dict[TimePart, NDArray[np.float64]]) -> NDArray[np.int64]:
    """Return the sum of the parts in nanoseconds, or an empty array if a part has a missing value."""
    if not all(np.isfinite(each).all() for each in values.values()):
        return np.empty(0, dtype=np.int64)
    days = days_since_1970(values)
    return time_of_day(values) + (0 if days is None else days * NANOSECONDS_A_DAY)


def _ticks_evenly(column: Column) -> bool:
    steps = column.steps
    return column.rises and len(steps) > 3 and bool(np.all(steps > 0)) and bool(np.std(steps) < 0.3 * np.median(steps))


def _says_it_counts(column: Column) -> bool:
    """Return True if a column of whole numbers is named like a counter: its steps count messages, not time."""
    words = {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", column.name)}
    return column.whole and bool(words & _COUNTERS) and not words & _TIMES


def _assumed(columns: list[Column]) -> ClockGuess:
    """Return an assumed clock for a table that has none: rows at a rate that the user must correct."""
    counter = next(
        (
            c
            for c in columns
            if (c.counts and re.search(r"step|tick", c.name))
            or (_says_it_counts(c) and len(c.steps) and bool(np.all(c.steps > 0)))
        ),
        None,
    )
    rate = f"no column is a clock; {ASSUMED_HZ:g} rows a second is only assumed: correct rate_hz"
    if counter is None:
        return ClockGuess(time=TimeSpec(index_rate_hz=ASSUMED_HZ), rate_hz=ASSUMED_HZ, reasons=(rate,), assumed=True)
    counts = f"{counter.name!r} counts, and {ASSUMED_HZ:g} counts a second are only assumed"
    rate = f"no column is a clock; {counts}: correct rate_hz"
    return ClockGuess(
        time=TimeSpec(sources=(counter.name,), index_rate_hz=ASSUMED_HZ),
        columns=(counter.name,),
        rate_hz=rate_of(counter.steps / ASSUMED_HZ),
        reasons=(rate,),
        assumed=True,
    )


def _by_column(column: Column, columns: list[Column], groups: Column | None) -> ClockGuess | None:
    if column.kind in ("time", "text"):
        return _by_text(column, columns, groups)
    if column.kind != "number" or not len(column.finite):
        return None
    fraction = _fraction_of(column, columns)
    if fraction is not None:
        return _by_two(column, *fraction, groups)
    steps = _within(column.steps, groups)
    if len(steps) and (np.any(steps < 0) or not np.any(steps > 0)):
        return None
    unit, reasons = unit_of(column.name, column.unit, column.finite, steps)
    if unit is None:
        return None
    exact, exact_reason = _is_exact(column, unit)
    time = TimeSpec(sources=(column.name,), unit=unit, integer=column.whole, exact=exact)
    stamps = column.finite * (NANOSECONDS[unit] / 1e9)
    return ClockGuess(
        time=time,
        columns=(column.name,),
        rate_hz=rate_of(steps * (NANOSECONDS[unit] / 1e9)),
        stamps_s=stamps,
        reasons=(*reasons, *exact_reason),
    )


def _within(steps: NDArray[np.float64], groups: Column | None) -> NDArray[np.float64]:
    """Return the steps within episodes, without the steps from one episode to the next."""
    if groups is None or len(groups.cells) != len(steps) + 1:
        return steps
    same = np.array([a == b for a, b in pairwise(groups.cells)], dtype=bool)
    kept: NDArray[np.float64] = steps[same]
    return kept


def rate_of(steps: NDArray[np.float64]) -> float | None:
    """Return the rows per second by the mean step, with gaps left out."""
    steps = steps[steps > 0]
    if not len(steps):
        return None
    usual = steps[steps < 10 * np.median(steps)]
    return float(1 / usual.mean())


def unit_of(
    name: str, declared: str, values: NDArray[np.float64], steps: NDArray[np.float64]
) -> tuple[TimeUnit | None, list[str]]:
    """Guess the unit of a numeric clock.

    A magnitude that counts from 1970 decides first, then the name, then the size of the steps.
    """
    text = name.lower()
    named: TimeUnit | None = next((u for u in (*_UNITS, *_LONG_UNITS) if u == declared), None)
    named = named or next((u for u, pattern in _NAMED_UNIT if pattern.search(text)), None)  # type: ignore[misc]
    median = float(np.median(steps[steps > 0])) if np.any(steps > 0) else 0.0
    for unit in _UNITS:
        scale = 1e9 / NANOSECONDS[unit]
        rate = scale / median if median else None
        plausible = rate is None or 0.01 < rate < 1e5
        if _EPOCH[0] * scale <= values[0] <= _EPOCH[1] * scale and plausible and named in (None, unit, "s"):
            year = datetime.fromtimestamp(values[0] / scale, UTC).year
            reasons = [f"unit {unit}: the numbers count from 1970 (the year is {year})"]
            if named == "s" and unit != "s":
                reasons.append("the name says s, the magnitude does not")
            return unit, reasons
    if named is not None:
        return named, [f"unit {named}: the name says so"]
    if not median:
        return "s", ["unit s: nothing tells; there are too few rows"]
    sane = [u for u in _UNITS if _SANE_HZ[0] <= 1e9 / NANOSECONDS[u] / median <= _SANE_HZ[1]]
    if not sane:
        return None, []
    best = min(sane, key=lambda u: abs(math.log(1e9 / NANOSECONDS[u] / median / _USUAL_HZ)))
    rates = {u: 1e9 / NANOSECONDS[u] / median for u in sane}
    reasons = [f"unit {best}: a clock of its own; steps of {median:g} are then {rates[best]:.4g} rows a second"]
    reasons += [f"unit {u} is possible too: {rates[u]:.4g} rows a second" for u in sane if u != best]
    return best, reasons


def _is_exact(column: Column, unit: TimeUnit) -> tuple[bool, tuple[str, ...]]:
    """Return True if stamps have more digits than float64 keeps, and not more than nanoseconds hold; and the reason."""
    if column.whole:
        return False, ()
    cells = [cell.strip().replace(",", ".") for cell in column.cells if not is_missing(cell)]
    if any("e" in cell.lower() for cell in cells):
        return False, ()
    digits = max(len(cell.partition(".")[2].rstrip("0")) for cell in cells)
    kept = all(_same_digits(cell) for cell in cells)
    if kept or digits > _DIGITS_TO_NS[unit]:
        return False, () if kept else (f"{digits} decimals are more than nanoseconds hold: kept as float64",)
    return True, ("exact: the stamps have more digits than a float64 keeps",)


def _same_digits(cell: str) -> bool:
    whole, _, decimals = repr(float(cell)).partition(".")
    return f"{whole}.{decimals.rstrip('0')}" == cell.partition(".")[0].lstrip("+") + "." + cell.partition(".")[
        2
    ].rstrip("0")


def _fraction_of(column: Column, columns: list[Column]) -> tuple[Column, TimeUnit] | None:
    """Find the column of nanoseconds (or microseconds) that belongs to a column of whole seconds."""
    if not column.whole:
        return None
    stem = re.sub(r"(secs?|seconds?|s)$", "", column.name.lower())
    for unit, pattern in _FRACTIONS:
        for other in columns:
            if other.whole and re.fullmatch(re.escape(stem) + f"({pattern})", other.name.lower()):
                return other, "ns" if unit == "ns" else "us"
    return None


def _next_fraction(column: Column, columns: list[Column]) -> tuple[Column, TimeUnit] | None:
    """Find the fraction of whole seconds in the next column.

    While the seconds stand still, the fraction must rise, and it must stay below one second.
    """
    other = next((c for c in columns if c.position == column.position + 1), None)
    if other is None or not (column.whole and other.whole) or len(other.finite) != len(column.finite):
        return None
    still = column.steps == 0
    if not np.any(still) or not np.all(other.steps[still] > 0) or other.finite.min() < 0:
        return None
    largest = other.finite.max()
    for unit, limit in (("us", 1e6), ("ns", 1e9)):
        if limit / 10 <= largest < limit:
            return other, "us" if unit == "us" else "ns"
    return None


def _by_two(column: Column, fraction: Column, unit: TimeUnit, groups: Column | None) -> ClockGuess | None:
    if len(fraction.finite) != len(column.finite):
        return None
    stamps = column.finite + fraction.finite * (NANOSECONDS[unit] / 1e9)
    # Steps are computed for each column before they are added: float64 cannot hold epoch seconds with nanoseconds.
    steps = _within(column.steps, groups) + _within(fraction.steps, groups) * NANOSECONDS[unit] / 1e9
    if np.any(steps < 0):
        return None
    return ClockGuess(
        time=TimeSpec(sources=(column.name,), unit="s", integer=True, plus=fraction.name, plus_unit=unit),
        columns=(column.name, fraction.name),
        rate_hz=rate_of(steps),
        stamps_s=stamps,
        reasons=(f"whole seconds in {column.name!r} and {unit} in {fraction.name!r} are added",),
    )


def _by_text(column: Column, columns: list[Column], groups: Column | None) -> ClockGuess | None:
    cells = [cell.strip() for cell in column.cells if not is_missing(cell)]
    found = text_clock(cells)
    if found is None or (is_date(cells) and len(set(cells)) < len(cells)):  # a date that repeats over many rows
        return None
    if found.form.startswith(("%H", "%I")) and (with_date := _by_date_and_time(column, columns, groups)) is not None:
        return with_date
    steps = _within(np.diff(found.stamps_s), groups)
    if np.any(steps < 0):
        return None
    return ClockGuess(
        time=TimeSpec(sources=(column.name,), format=found.form),
        columns=(column.name,),
        rate_hz=rate_of(steps),
        stamps_s=found.stamps_s,
        reasons=found.reasons,
    )


def _by_date_and_time(column: Column, columns: list[Column], groups: Column | None) -> ClockGuess | None:
    """Join a time of day with the date in the column beside it, whatever both columns are called."""
    date = next((c for c in columns if abs(c.position - column.position) == 1 and is_date(_stripped(c))), None)
    if date is None or len(date.cells) != len(column.cells):
        return None
    found = text_clock([f"{day} {time}" for day, time in zip(_stripped(date), _stripped(column), strict=True)])
    if found is None:
        return None
    steps = _within(np.diff(found.stamps_s), groups)
    if np.any(steps < 0):
        return None
    return ClockGuess(
        time=TimeSpec(sources=(date.name,), plus=column.name, format=found.form),
        columns=(date.name, column.name),
        rate_hz=rate_of(steps),
        stamps_s=found.stamps_s,
        reasons=(f"the date in {date.name!r} and the time of day in {column.name!r} are joined", *found.reasons),
    )


def _stripped(column: Column) -> list[str]:
    return [cell.strip() for cell in column.cells]

"""Guesses the clock of a table of which several files were read: by its columns, or by the rate that stands above them.

A file may hold several recordings: then its clock begins again with each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.infer.choices import Choices, Option
from vlapipe.pipeline.infer.columns.clock import ClockGuess, clock_options, looks_like_time, pick_clock
from vlapipe.pipeline.infer.columns.columns import Column
from vlapipe.pipeline.infer.columns.time_parts import time_in_parts
from vlapipe.pipeline.infer.text.dialect import Table
from vlapipe.pipeline.infer.text.stated_rate import StatedRate
from vlapipe.schemas.schema import TimeSpec

__all__ = ["clock_of_table"]

_PAUSE_S, _PAUSE_STEPS = 5.0, 100
_COUNTER_BITS = (8, 16, 24, 32)
_COUNTER_SCORE = 1.0  # log-odds; better than no clock, but a rate that stands above the rows is better still
_FEWEST_ROWS = 5  # of an episode, if the restarts of the clock tell episodes apart
_DAY_S, _NEAR_DAY_S = 86_400.0, 600.0


def clock_of_table(
    name: str,
    columns: list[Column],
    split: Column | None,
    looks: tuple[Table, ...],
    choices: Choices,
    *,
    may_split: bool,
) -> ClockGuess:
    """Choose the clock of a stream. ``split`` is the column whose changes cut the table into episodes."""
    stated = _stated(looks)
    options = clock_options(columns, split, stated_hz=None if stated is None else stated.rate_hz)
    if may_split and split is None:
        options = [*_restarts(columns), *options]
    clock = pick_clock(name, options, choices)
    if clock.assumed:
        return clock if stated is None else _at_stated_rate(clock, stated)
    steps = np.diff(clock.stamps_s)
    pauses = steps[steps > max(_PAUSE_S, _PAUSE_STEPS * float(np.median(steps)))] if len(steps) else steps
    if not may_split or clock.split_gap_s is not None or split is not None or not len(pauses):
        return clock
    said = f"the clock jumps by {pauses.max():.4g} s: several recordings? then say split_gap_s"
    return replace(clock, reasons=(*clock.reasons, said))


def _restarts(columns: list[Column]) -> Iterator[Option[ClockGuess]]:
    """Yield the clocks that begin again within the file, and the counters that overflow."""
    parts = time_in_parts(columns)
    for column in columns:
        if column in parts.values() or column.kind != "number" or looks_like_time(column) is None:
            continue
        back = _falls(column)
        if not len(back) or len(back) > len(column.steps) / _FEWEST_ROWS:
            continue
        part = np.searchsorted(back, np.arange(len(column.cells)), side="right")
        best = max(
            clock_options([column], replace(column, cells=tuple(map(str, part)))), key=lambda option: option.score
        )
        again = best.value
        if again.assumed or again.rate_hz is None:
            continue
        if bits := _bits_of_counter(column, back):
            reason = (
                f"{column.name!r} counts in {bits} bits and begins again: no clock; its steps say {again.rate_hz:.4g}"
                " rows a second, which is assumed of all: correct rate_hz, or write a clock that goes on"
            )
            time = TimeSpec(index_rate_hz=float(f"{again.rate_hz:.4g}"))
            guess = ClockGuess(time=time, rate_hz=again.rate_hz, reasons=(reason,), assumed=True)
            says, line = f"rows at {again.rate_hz:.4g} a second", f"rate_hz = {again.rate_hz:.4g}"
            yield Option(value=guess, score=_COUNTER_SCORE, says=says, line=line, reasons=guess.reasons)
            continue
        jumps_s = -np.diff(again.stamps_s)[back - 1]
        gap_s = min(float(jumps_s.max()) / 2, max(1.0, 20 / again.rate_hz))
        if gap_s > 2 / again.rate_hz and not bool(np.all(np.abs(jumps_s - _DAY_S) < _NEAR_DAY_S)):
            says = f"{best.says}, which begins again with each episode"
            yield replace(best, value=replace(again, split_gap_s=gap_s), says=says, line=f"split_gap_s = {gap_s:g}")


def _falls(column: Column) -> NDArray[np.intp]:
    """Return the rows at which a column begins again: it falls, and rises on from there.

    A column that begins again at each damaged stamp would be no clock; the median of three neighbours leaves them out.
    """
    values = column.values
    if not np.isfinite(values).all():
        return np.empty(0, dtype=np.intp)
    if len(values) > 2:
        values = np.concatenate([values[:1], np.median([values[:-2], values[1:-1], values[2:]], axis=0), values[-1:]])
    return np.flatnonzero(np.diff(values) < 0) + 1


def _bits_of_counter(column: Column, back: NDArray[np.intp]) -> int:
    """Return the bits of a counter that overflows: after each restart it continues by a usual step. Otherwise 0."""
    usual = float(np.median(column.steps[column.steps > 0]))
    for bits in _COUNTER_BITS:
        over = column.steps[back - 1] + 2.0**bits
        if column.whole and column.finite.max() < 2.0**bits and bool(np.all((over > 0) & (over <= 3 * usual))):
            return bits
    return 0


def _stated(looks: tuple[Table, ...]) -> StatedRate | None:
    """Return the rate above the rows if all files state one: the same, or each its own in the same lines."""
    stated = [look.stated for look in looks if look.stated is not None]
    if len(stated) < len(looks) or not stated:
        return None
    lines, rates = {(each.start_line, each.rate_line) for each in stated}, {each.rate_hz for each in stated}
    return stated[0] if len(rates) == 1 or (len(lines) == 1 and stated[0].rate_line is not None) else None


def _at_stated_rate(clock: ClockGuess, stated: StatedRate) -> ClockGuess:
    """Give an assumed clock the rate that the lines above the rows state."""
    if stated.rate_line is not None:
        reason = f"line {stated.start_line} has the start, line {stated.rate_line} the rate"
        time = TimeSpec(start_line=stated.start_line, rate_line=stated.rate_line)
        return replace(clock, time=time, columns=(), rate_hz=stated.rate_hz, reasons=(reason,), assumed=False)
    counts = f"{clock.columns[0]!r} counts" if clock.columns else "rows come"
    reason = f"no column is a clock; {counts} at the rate that the lines above state: {stated.text!r}"
    per_row = (clock.rate_hz or 1.0) / (clock.time.index_rate_hz or 1.0) if clock.columns else 1.0
    time = replace(clock.time, index_rate_hz=stated.rate_hz)
    return replace(clock, time=time, rate_hz=stated.rate_hz * per_row, reasons=(reason,), assumed=False)

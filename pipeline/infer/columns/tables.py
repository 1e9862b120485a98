"""Guesses a CSV stream from the first rows of several of its files: their common columns, and the optional ones."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.infer.choices import Choices
from vlapipe.pipeline.infer.columns.clock import ASSUMED_HZ, ClockGuess, guess_clock, looks_like_time
from vlapipe.pipeline.infer.columns.columns import Column, columns_of
from vlapipe.pipeline.infer.columns.fields import guess_fields
from vlapipe.pipeline.infer.columns.time_parts import time_in_parts
from vlapipe.pipeline.infer.guess import FieldGuess, StreamGuess
from vlapipe.pipeline.infer.text.cells import is_missing, words_of
from vlapipe.pipeline.infer.text.dialect import Table
from vlapipe.schemas.schema import TimeSpec

__all__ = ["TableGuess", "guess_table"]

_PAUSE_S, _PAUSE_STEPS = 5.0, 100
_COUNTER_BITS = (8, 16, 24, 32)
_FEWEST_ROWS = 5  # of an episode, if the restarts of the clock tell episodes apart
_EPISODE = re.compile(
    r"(episode|traj(ectory)?|demo(nstration)?|run|rollout|trial|ep|sequence|recording)"
    r"([_ ]?(index|idx|id|no|nr|number|num))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class TableGuess:
    """A CSV stream and its clock. The ``split_*`` fields say what begins a new episode within a file, if any."""

    stream: StreamGuess
    clock: ClockGuess
    split_column: str | None
    split_gap_s: float | None
    split_reasons: tuple[str, ...]
    num_rows: int


def guess_table(
    name: str, files: tuple[str, ...], looks: tuple[Table, ...], choices: Choices, *, may_split: bool
) -> TableGuess:
    """Guess a stream from its files' first rows. ``may_split`` says whether a file may hold several episodes."""
    looks = _cut(name, looks, choices)
    widest = max(looks, key=_extent)
    columns = columns_of(widest)
    split = next((column for column in columns if _splits(column)), None) if may_split else None
    clock = guess_clock(columns, split)
    gap_s, split_reasons = None, [f"{split.name!r} tells episodes of one file apart"] if split else []
    if may_split and split is None:
        clock, gap_s, split_reasons = _with_restarts(columns, clock)
    clock = _at_stated_rate(clock, looks)
    taken = [*clock.columns, *([split.name] if split else [])]
    guess = guess_fields(columns, taken, _pooled(columns, [look for look in looks if look is not widest]))
    drop = [*guess.drop, *([(split.name, "tells the episodes apart")] if split else [])]
    present = [set(look.names) for look in looks]
    fields = [part for field in guess.fields for part in _optional(field, present)]
    dialect = widest.dialect
    if dialect.names:
        variants = {len(look.names): look.names for look in looks if look.dialect.names}
        dialect = replace(dialect, names=tuple(names for _, names in sorted(variants.items())))
    is_stated = clock.time.index_rate_hz is not None and not clock.assumed
    known = [rate for look in looks if not is_stated and (rate := _rate(look, split)) is not None]
    rate, reasons = clock.rate_hz, list(clock.reasons)
    if known and max(known) > 1.2 * min(known):
        reasons.append(f"rates differ from file to file, {min(known):.4g} to {max(known):.4g} Hz: none is declared")
        rate = None
    stream = StreamGuess(
        name=name,
        kind="csv",
        files=files,
        time=clock.time,
        time_reasons=tuple(reasons),
        rate_hz=rate,
        reasons=widest.reasons,
        dialect=dialect,
        fields=tuple(fields),
        drop=tuple(drop),
        missing=guess.missing,
        assumed=clock.assumed,
    )
    return TableGuess(
        stream=stream,
        clock=clock,
        split_column=split.name if split else None,
        split_gap_s=gap_s,
        split_reasons=tuple(split_reasons),
        num_rows=widest.num_rows,
    )


def _extent(look: Table) -> tuple[int, int]:
    return len(look.names), look.num_rows


def _cut(name: str, looks: tuple[Table, ...], choices: Choices) -> tuple[Table, ...]:
    """Pick how the files are cut by the widest of them, and ask about lines of it that are left out."""
    widest = max(looks, key=_extent)
    taken = choices.pick(f"{name}: cut", widest.options)
    for each in taken.value.questions:
        choices.ask(f"{name}: {each.about}", each.taken, each.line, each.other, each.other_line)
    if taken is widest.options[0]:
        return looks
    number = widest.options.index(taken)
    return tuple(look.options[min(number, len(look.options) - 1)].value for look in looks)


def _with_restarts(columns: list[Column], clock: ClockGuess) -> tuple[ClockGuess, float | None, list[str]]:
    """Guess whether a file holds several recordings: the clock restarts, or pauses for long.

    Returns the clock, the jump in seconds that begins an episode (if any), and the reasons.
    """
    if not clock.assumed:
        steps = np.diff(clock.stamps_s)
        pauses = steps[steps > max(_PAUSE_S, _PAUSE_STEPS * float(np.median(steps)))] if len(steps) else steps
        said = (
            f"the clock jumps by {pauses.max():.4g} s: several recordings? then say split_gap_s" if len(pauses) else ""
        )
        return clock, None, [said] if said else []
    parts = time_in_parts(columns)
    for column in [column for column in columns if column not in parts.values()]:
        steps = column.steps
        back = np.flatnonzero(steps < 0) + 1
        if looks_like_time(column) is None or not len(back) or len(back) > len(steps) / _FEWEST_ROWS:
            continue
        part = np.searchsorted(back, np.arange(len(column.cells)), side="right")
        again = guess_clock([column], replace(column, cells=tuple(map(str, part))))
        if again.assumed or again.rate_hz is None:
            continue
        if bits := _bits_of_counter(column, back):
            reason = (
                f"{column.name!r} counts in {bits} bits and begins again: no clock; its steps say {again.rate_hz:.4g}"
                " rows a second, which is assumed of all: correct rate_hz, or write a clock that goes on"
            )
            time = TimeSpec(index_rate_hz=float(f"{again.rate_hz:.4g}"))
            return ClockGuess(time=time, rate_hz=again.rate_hz, reasons=(reason,), assumed=True), None, []
        jump_s = float(-np.diff(again.stamps_s)[back - 1].max())
        gap_s = min(jump_s / 2, max(1.0, 20 / again.rate_hz))
        if gap_s > 2 / again.rate_hz:
            return again, gap_s, [f"{column.name!r} begins again {len(back)} times in the first rows: so many episodes"]
    return clock, None, []


def _bits_of_counter(column: Column, back: NDArray[np.intp]) -> int:
    """Return the bits of a counter that overflows: after each restart it continues by a usual step. Otherwise 0."""
    usual = float(np.median(column.steps[column.steps > 0]))
    for bits in _COUNTER_BITS:
        over = column.steps[back - 1] + 2.0**bits
        if column.whole and column.finite.max() < 2.0**bits and bool(np.all((over > 0) & (over <= 3 * usual))):
            return bits
    return 0


def _at_stated_rate(clock: ClockGuess, looks: tuple[Table, ...]) -> ClockGuess:
    """Give an assumed clock the rate that the lines above the rows state, if all files state the same rate."""
    lines = {(look.stated.start_line, look.stated.rate_line) for look in looks if look.stated is not None}
    ((start_line, rate_line),) = lines if len(lines) == 1 else ((None, None),)
    if clock.assumed and rate_line is not None and all(look.stated is not None for look in looks):
        rate_hz = looks[0].stated.rate_hz if looks[0].stated is not None else None
        reason = f"line {start_line} has the start, line {rate_line} the rate"
        time = TimeSpec(start_line=start_line, rate_line=rate_line)
        return replace(clock, time=time, columns=(), rate_hz=rate_hz, reasons=(reason,), assumed=False)
    stated = {look.stated.rate_hz: look.stated.text for look in looks if look.stated is not None}
    if not clock.assumed or len(stated) != 1 or any(look.stated is None for look in looks):
        return clock
    ((rate_hz, text),) = stated.items()
    counts = f"{clock.columns[0]!r} counts" if clock.columns else "rows come"
    reason = f"no column is a clock; {counts} at the rate that the lines above state: {text!r}"
    return replace(
        clock,
        time=replace(clock.time, index_rate_hz=rate_hz),
        rate_hz=rate_hz if not clock.columns else (clock.rate_hz or ASSUMED_HZ) * rate_hz / ASSUMED_HZ,
        reasons=(reason,),
        assumed=False,
    )


def _rate(look: Table, split: Column | None) -> float | None:
    columns = columns_of(look)
    groups = next((column for column in columns if split is not None and column.name == split.name), None)
    return guess_clock(columns, groups).rate_hz


def _splits(column: Column) -> bool:
    """Return True if a column names the episode of each row: its name says so, and equal values are contiguous."""
    if not _EPISODE.fullmatch(column.base.strip()) or column.kind not in ("number", "text") or column.num_missing:
        return False
    blocks = [cell for i, cell in enumerate(column.cells) if i == 0 or cell != column.cells[i - 1]]
    return len(set(blocks)) == len(blocks) < max(2, len(column.cells) / 2)


def _pooled(columns: list[Column], others: list[Table]) -> list[Column]:
    """Return the columns with the cells of all files joined, so that values that occur only in later files count."""
    more = [{column.name: column.cells for column in columns_of(look)} for look in others]
    pooled = []
    for column in columns:
        cells = (*column.cells, *(cell for look in more for cell in look.get(column.name, ())))
        pooled.append(column if column.kind not in ("number", "words", "empty") else _again(column, cells))
    return pooled


def _again(column: Column, cells: tuple[str, ...]) -> Column:
    if all(map(is_missing, cells)):
        return replace(column, cells=cells)
    if words_of(cell for cell in cells if not is_missing(cell)):
        return replace(column, cells=cells, kind="words")
    if column.kind == "words":
        return column  # the reader reports the other values of later files
    kind = "number" if np.isfinite(replace(column, cells=cells).values).any() else column.kind
    return replace(column, cells=cells, kind=kind)


def _optional(field: FieldGuess, present: list[set[str]]) -> list[FieldGuess]:
    """Return the field as it is, or split into the columns that every file has and those that some files lack."""
    always = [all(name in names for names in present) for name in field.columns]
    if all(always):
        return [field]
    parts = []
    for kept in (True, False):
        where = [i for i, yes in enumerate(always) if yes == kept]
        if not where:
            continue
        part = replace(
            field,
            columns=tuple(field.columns[i] for i in where),
            unit=tuple(field.unit[i] for i in where) if field.unit else (),
            period=tuple(field.period[i] for i in where) if field.period else (),
            labels=tuple(field.labels[i] for i in where) if field.labels else (),
            head=None if field.head is None else field.head[:, where],
            quaternion=field.quaternion if len(where) == len(always) else "",
        )
        if not kept:
            reasons = (*field.reasons, "some files lack it")
            name = field.name if len(where) == len(always) else f"{field.name}_more"
            part = replace(part, name=name, optional=True, reasons=reasons)
        parts.append(part)
    return parts

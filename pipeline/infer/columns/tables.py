"""Guesses a CSV stream from the first rows of several of its files: their common columns, and the optional ones."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from vlapipe.pipeline.infer.choices import Choices
from vlapipe.pipeline.infer.columns.clock import guess_clock
from vlapipe.pipeline.infer.columns.columns import Column, columns_of
from vlapipe.pipeline.infer.columns.fields import guess_fields
from vlapipe.pipeline.infer.columns.groups import identifier
from vlapipe.pipeline.infer.columns.row_kinds import apart_by_cells, apart_by_kind
from vlapipe.pipeline.infer.columns.table_clock import clock_of_table
from vlapipe.pipeline.infer.guess import FieldGuess, SourceGuess, StreamGuess
from vlapipe.pipeline.infer.text.cells import is_missing, words_of
from vlapipe.pipeline.infer.text.dialect import Table
from vlapipe.schemas.schema import EpisodeLayout

__all__ = ["guess_table"]

_EPISODE = re.compile(
    r"(episode|traj(ectory)?|demo(nstration)?|run|rollout|trial|ep|sequence|recording)"
    r"([_ ]?(index|idx|id|no|nr|number|num))?",
    re.IGNORECASE,
)


def guess_table(
    name: str, files: tuple[str, ...], looks: tuple[Table, ...], choices: Choices, *, may_split: bool
) -> SourceGuess:
    """Guess a stream from its files' first rows. ``may_split`` says whether a file may hold several episodes."""
    looks = _cut(name, looks, choices)
    by_kind = apart_by_kind(name, looks, choices)
    by_cells = {} if by_kind else apart_by_cells(name, looks, choices)
    first, *others = (by_kind or by_cells or {"": looks}).items()
    guess = _guess_rows(name, files, first[1], choices, may_split=may_split)
    streams = [guess.stream]
    for kind, rows in others:
        other = _guess_rows(identifier(kind, "rows"), files, rows, choices, may_split=False).stream
        streams += [other] if other.fields else []
    if by_cells:
        texts = sorted({cell for look in looks for row in look.rows for cell in row if is_missing(cell)})
        kept = {column for stream in streams for field in stream.fields for column in field.columns}
        streams = [_dropping(stream, tuple(texts), kept) for stream in streams]
    return replace(guess, stream=streams[0], beside=tuple(streams[1:]))


def _dropping(stream: StreamGuess, missing: tuple[str, ...], kept: set[str]) -> StreamGuess:
    """Return a stream without the rows that leave its cells empty, since these are of another stream."""
    always = any(not field.on_missing for field in stream.fields)
    fields = (
        replace(field, on_missing="drop") if not (always and field.on_missing) else field for field in stream.fields
    )
    drop = tuple((name, "kept in another stream" if name in kept else why) for name, why in stream.drop)
    return replace(stream, fields=tuple(fields), missing=missing, drop=drop)


def _guess_rows(
    name: str, files: tuple[str, ...], looks: tuple[Table, ...], choices: Choices, *, may_split: bool
) -> SourceGuess:
    widest = max(looks, key=_extent)
    columns = columns_of(widest)
    split = next((column for column in columns if _splits(column)), None) if may_split else None
    clock = clock_of_table(name, columns, split, looks, choices, may_split=may_split)
    split_reasons = [f"{split.name!r} tells episodes of one file apart"] if split else []
    if clock.split_gap_s is not None:
        split_reasons = [f"{clock.columns[0]!r} begins again in the first rows: each time an episode begins"]
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
    return SourceGuess(
        stream=stream,
        clock=clock,
        num_rows=widest.num_rows,
        episodes=EpisodeLayout(split_column=split.name if split else None, split_gap_s=clock.split_gap_s),
        episode_reasons=tuple(split_reasons),
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

"""Notices rows of several kinds in one table, such as those of two sensors, of which each becomes a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.infer.choices import Choices, Option
from vlapipe.pipeline.infer.columns.columns import Column, columns_of
from vlapipe.pipeline.infer.evidence import Evidence, log_odds, said
from vlapipe.pipeline.infer.lexicon import lexicon
from vlapipe.pipeline.infer.text.cells import is_missing
from vlapipe.pipeline.infer.text.dialect import Table

__all__ = ["apart_by_cells", "apart_by_kind"]

_MOST_KINDS = 8
_OFTEN = 3  # blocks of rows of a kind, from which on the kinds take turns
_FEWEST_ROWS = 3
_MUCH = 3


def apart_by_kind(name: str, looks: Sequence[Table], choices: Choices) -> dict[str, tuple[Table, ...]]:
    """Return the tables' rows by their kind, the kind that tells most first; nothing if all rows are of one kind."""
    widest = max(looks, key=lambda look: (len(look.names), look.num_rows))
    if widest.path.lower().endswith("l") or widest.dialect.index_column:  # objects have no cells by number
        return {}
    columns = columns_of(widest)
    judged = [(evidence, column) for column in columns if (evidence := list(_evidence(column, columns)))]
    if not judged:
        return {}
    evidence, column = max(judged, key=lambda each: log_odds("row_kind", each[0]))
    if (score := log_odds("row_kind", evidence)) < 0:
        return {}
    kinds = list(dict.fromkeys(column.stripped))
    if widest.dialect.row_line:  # with which a schema cannot say row_kind
        line = "a row_line for each"
        choices.ask(f"{name}: rows of {', '.join(kinds)}", "one stream", "row_line", "a stream for each", line)
        return {}
    apart = Option(
        value=True,
        score=score,
        says=f"rows of {', '.join(kinds)} are streams",
        line=f'row_kind = "{kinds[0]}", kind_column = {column.position + 1}',
        reasons=said("row_kind", evidence),
    )
    together = Option(value=False, score=0.0, says="all rows are of one stream", line=f'drop = ["{column.name}"]')
    if not choices.pick(f"{name}: rows", [apart, together]).value:
        return {}
    found = {kind: [_of_kind(look, column, kind, apart.reasons) for look in looks] for kind in kinds}
    filled = {kind: tuple(look for look in each if look.rows) for kind, each in found.items()}
    return dict(sorted(filled.items(), key=lambda item: -_num_numbers(item[1][0])))


def apart_by_cells(name: str, looks: Sequence[Table], choices: Choices) -> dict[str, tuple[Table, ...]]:
    """Return the tables' rows by the columns that they fill, if rows that fill other columns take turns; else nothing.

    So several topics stand on one clock. Unless the names say the topics, the rows stay together and a user is asked.
    """
    widest = max(looks, key=lambda look: (len(look.names), look.num_rows))
    numbers = [column for column in columns_of(widest) if column.kind in ("number", "words")]
    groups = _filled_together([column for column in numbers if column.num_missing])
    alone = [column for column in numbers if not column.num_missing and not column.rises]
    if len(groups) < 2 or alone or widest.path.lower().endswith("l"):
        return {}
    topics = {column.name: column.name.strip("/").partition("/")[0] for group in groups for column in group}
    named = [topics[group[0].name] for group in groups]
    if not len(set(named)) == len(set(topics.values())) == len(groups) or not all("/" in name for name in topics):
        each, mask = 'a stream for each with on_missing = "drop"', 'on_missing = "mask"'
        choices.ask(f"{name}: rows that fill {' or '.join(named)}", "one stream", mask, "streams of their own", each)
        return {}
    found = {topic: _that_fill(looks, group, groups) for topic, group in zip(named, groups, strict=True)}
    return dict(sorted(found.items(), key=lambda item: -_num_numbers(item[1][0])))


def _filled_together(columns: Sequence[Column]) -> list[list[Column]]:
    """Return the columns in groups whose cells are filled in the same rows; nothing unless the groups take turns."""
    filled = {column.name: np.array([not is_missing(cell) for cell in column.cells], dtype=bool) for column in columns}
    groups: list[list[Column]] = []
    for column in columns:
        ours = filled[column.name]
        for group in groups:
            theirs = filled[group[0].name]
            if 2 * np.sum(ours & theirs) > min(ours.sum(), theirs.sum()):
                group.append(column)
                break
        else:
            groups.append([column])
    blocks = [np.sum(np.diff(filled[group[0].name].astype(int)) != 0) // 2 for group in groups]
    return groups if min(blocks, default=0) >= _OFTEN else []


def _that_fill(looks: Sequence[Table], group: list[Column], groups: list[list[Column]]) -> tuple[Table, ...]:
    """Return the rows that fill a column of a group, without the cells of the other groups."""
    ours = {column.name for column in group}
    theirs = {column.name for other in groups if other is not group for column in other}
    reason, found = f"rows that fill {group[0].name!r}; others fill other columns", []
    for look in looks:
        at = [i for i, name in enumerate(look.names) if name in ours]
        rows = tuple(
            tuple("" if name in theirs else cell for name, cell in zip(look.names, row, strict=True))
            for row in look.rows
            if not all(is_missing(row[i]) for i in at)
        )
        num_rows = round(look.num_rows * len(rows) / max(1, len(look.rows)))
        found += [replace(look, rows=rows, num_rows=num_rows, reasons=(*look.reasons, reason))] if rows else []
    return tuple(found)


def _num_numbers(look: Table) -> int:
    return len(look.rows) * sum(column.kind == "number" for column in columns_of(look))


def _evidence(column: Column, columns: Sequence[Column]) -> Iterator[Evidence]:
    """Yield what tells that a column says the kind of each row; nothing if its cells cannot."""
    counts = {kind: column.stripped.count(kind) for kind in dict.fromkeys(column.stripped[: _MOST_KINDS * 8])}
    is_plain = column.kind in ("text", "words") or column.whole
    if not is_plain or column.num_missing or not 1 < len(counts) <= _MOST_KINDS or min(counts.values()) < _FEWEST_ROWS:
        return
    if sum(counts.values()) < len(column.cells):
        return
    kinds, listed = list(counts), ", ".join(counts)
    filled = [_kinds_with_values(other, column.stripped) for other in columns if other is not column]
    own = [any(each == {kind} for each in filled) for kind in kinds]
    if all(own):
        yield Evidence("own_columns", 1.0, f"rows of {listed} fill other columns, as {column.name!r} says")
    if lexicon().likeness(column.base, "texts", "kind") == 1:
        yield Evidence("named_kind", 1.0, f"{column.name!r} says the kind of each row: {listed}")
    if column.kind == "text" and column.position == 0:
        yield Evidence("word_first", 1.0)
    blocks = [kind for kind, _ in groupby(column.stripped)]
    if min(blocks.count(kind) for kind in kinds) >= _OFTEN:
        yield Evidence("takes_turns", 1.0, f"rows of {listed} take turns")
        values = [other for other in columns if other.kind == "number" and other is not column and not other.rises]
        jump = [_jumps(other.values, np.array(column.stripped)) for other in values]
        yield Evidence("values_jump", sum(jump) / max(1, len(jump)), f"values jump from one of {listed} to another")


def _jumps(values: NDArray[np.float64], kinds: NDArray[np.str_]) -> bool:
    """Return True if values change much more from row to row than among the rows of one kind."""
    finite = np.isfinite(values)
    values, kinds = values[finite], kinds[finite]
    across = np.abs(np.diff(values))[kinds[1:] != kinds[:-1]]
    among = np.concatenate([np.abs(np.diff(values[kinds == kind])) for kind in {"", *kinds.tolist()}])
    return len(across) > 0 and len(among) > 0 and bool(np.median(across) > _MUCH * np.median(among))


def _kinds_with_values(column: Column, kinds: Sequence[str]) -> set[str]:
    return {kind for cell, kind in zip(column.cells, kinds, strict=True) if not is_missing(cell)}


def _of_kind(look: Table, column: Column, kind: str, reasons: tuple[str, ...]) -> Table:
    """Return the rows of one kind, without the column that says the kind."""
    at = column.position
    rows = tuple(row for row in look.rows if row[at].strip() == kind)
    kept = [i for i in range(len(look.names)) if i != at]
    return replace(
        look,
        dialect=replace(look.dialect, row_kind=kind, kind_column=at + 1),
        names=tuple(look.names[i] for i in kept),
        units=tuple(look.units[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in rows),
        num_rows=round(look.num_rows * len(rows) / max(1, len(look.rows))),
        reasons=(*look.reasons, *reasons),
    )

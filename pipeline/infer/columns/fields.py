"""Guesses the fields of a table: which columns form one array, their units, and which columns are not kept."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.infer.columns.clock import looks_like_time
from vlapipe.pipeline.infer.columns.clock_ways import other_beginning
from vlapipe.pipeline.infer.columns.columns import Column
from vlapipe.pipeline.infer.columns.groups import Group, group_columns, identifier
from vlapipe.pipeline.infer.guess import FieldGuess
from vlapipe.pipeline.infer.lexicon import lexicon, words_in
from vlapipe.pipeline.infer.text.cells import is_fortran_number, is_missing
from vlapipe.schemas.schema import MISSING_SUFFIX

__all__ = ["FieldsGuess", "guess_fields"]

_EXACT_FLOAT32 = 1 << 24
_MOST_FLOAT32 = float(np.finfo(np.float32).max)
_EXACT_FLOAT64 = 1 << 53
_MANY_SINGLES = 24
_OFTEN_MISSING = 0.05
_MOSTLY = 0.8
_FEW_WORDS = 8
_SELDOM = 0.1  # share of the rows in which a label changes
_ASKED_IN_WORDS = (("roles", "gripper"), ("texts", "outcome"))


@dataclass(frozen=True, kw_only=True)
class FieldsGuess:
    """The fields of a table, the columns that are not kept (each with the reason), and the texts of missing cells."""

    fields: tuple[FieldGuess, ...]
    drop: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]


def guess_fields(columns: list[Column], taken: Iterable[str], pooled: list[Column]) -> FieldsGuess:
    """Guess the fields of a table, without the columns ``taken`` by its clock and by the cut into episodes.

    ``pooled`` holds the same columns, each with the cells of several files joined.
    """
    free = [column for column in columns if column.name not in set(taken)]
    clocks = {column.cells: column.name for column in columns if column not in free and len(column.cells) > 1}
    again = (f"the same as {clocks[c.cells]!r}" if c.cells in clocks else "" for c in free)
    drop = [(c.name, reason) for c, twin in zip(free, again, strict=True) if (reason := twin or _why_not(c))]
    left_out = {name for name, _ in drop} | set(taken)
    kept = [column for column in pooled if column.name not in left_out]
    drop += [(column.name, "empty") for column in kept if column.kind == "empty"]
    numbers = [column for column in kept if column.kind == "number"]
    fields = [_text_field(column) for column in kept if column.kind in ("text", "time")]
    fields += [_list_field(column) for column in kept if column.kind == "list"]
    groups = _fewer_singles(group_columns(numbers))
    fields += [_words_field(group) for group in group_columns([c for c in kept if c.kind == "words"])]
    fields += [_number_field(part) for group in groups for size in _by_size(group) for part in _by_missing(size)]
    first = {column.name: column.position for column in columns}
    fields.sort(key=lambda field: first[field.columns[0]])
    missing = sorted({text for column in kept if column.kind in ("number", "words") for text in column.missing})
    return FieldsGuess(fields=tuple(_unique_names(fields)), drop=tuple(drop), missing=tuple(missing))


def _why_not(column: Column) -> str:
    """Return why a column is not kept, or an empty string if the column is kept."""
    if column.kind == "text" and all(is_fortran_number(cell) for cell in column.cells if not is_missing(cell)):
        return "numbers with a D for the exponent, as Fortran writes them: write E and infer again"
    if column.kind in ("text", "time"):
        is_instruction = lexicon().likeness(column.base, "texts", "instruction") == 1
        return "" if column.kind == "text" and (is_instruction or _is_label(column)) else _why_no_text(column)
    if column.kind == "list":
        if column.decimal == ",":
            return "lists, whose commas may be decimal"
        lengths = {_list_length(cell) for cell in column.cells if cell}
        return "" if len(lengths) == 1 and lengths != {0} else "lists of different lengths"
    if column.kind == "words":
        return ""
    is_clock = looks_like_time(column) is not None and (column.rises or column.constant)
    if is_clock or other_beginning(column) is not None:
        return "another clock"
    # A counter that begins again in each episode counts too.
    counts = column.constant or (len(column.steps) > 0 and np.mean(column.steps == 1) > _MOSTLY)
    counts = counts or (column.rises and np.mean(column.steps > 0) > _SELDOM)  # the steps of a task come in blocks
    is_letter = lexicon().likeness(column.base, "clock", "letters") == 1
    if column.whole and counts and (is_letter or lexicon().likeness(column.base, "roles", "counter") >= 0.8):
        return "counts or numbers rows"
    if column.counts and column.name == f"c{column.position + 1}":  # without a name
        return "numbers the rows"
    return ""


def _is_label(column: Column) -> bool:
    """Return True if a text is one of few words in blocks of rows, such as a phase; those of a gripper are asked about.

    A label that says more or changes often has a name that says so.
    """
    if column.num_missing or any(lexicon().likeness(column.base, *each) for each in _ASKED_IN_WORDS):
        return False
    words, changes = set(column.cells), sum(a != b for a, b in pairwise(column.cells))
    named = lexicon().likeness(column.base, "roles", "label") >= 0.8
    return len(words) > 1 and (named or (len(words) <= _FEW_WORDS and changes < len(column.cells) / 4))


def _why_no_text(column: Column) -> str:
    """Say that a column holds text, and how its words can be kept if they are few."""
    words = list(dict.fromkeys(cell for cell in column.cells if not is_missing(cell)))
    if column.kind == "time" or not 1 < len(words) <= min(_FEW_WORDS, len(column.cells) // 4):
        return "text"
    numbers = ", ".join(f"{json.dumps(word, ensure_ascii=False)} = {i}" for i, word in enumerate(words))
    return f"text of {len(words)} words; a field keeps them by words = {{ {numbers} }}, with the numbers you mean"


def _fewer_singles(groups: list[Group]) -> list[Group]:
    """Keep lone columns as fields of their own. If they are too many, those that begin with one word are a field."""
    singles = [group for group in groups if len(group.columns) == 1]
    if len(singles) <= _MANY_SINGLES:
        return groups
    by_word: dict[str, list[Column]] = defaultdict(list)
    for group in singles:
        by_word[identifier(group.columns[0].base).partition("_")[0]].append(group.columns[0])
    others = [group for group in groups if len(group.columns) > 1]
    together = (Group(word, tuple(columns), tuple(c.base for c in columns)) for word, columns in by_word.items())
    return [*others, *together]


def _by_missing(group: Group) -> list[Group]:
    """Cut off the columns that seldom have a value, so that their mask does not hide values of the other columns."""
    return _cut(group, [_share_missing(column) > _OFTEN_MISSING for column in group.columns], "seldom")


def _by_size(group: Group) -> list[Group]:
    """Cut off the whole numbers that float64 cannot hold exactly, so that they do not become floats."""
    if all(column.whole for column in group.columns):
        return [group]
    is_large = [c.whole and len(c.finite) > 0 and float(np.abs(c.finite).max()) > _EXACT_FLOAT64 for c in group.columns]
    return _cut(group, is_large, "whole")


def _cut(group: Group, chosen: list[bool], suffix: str) -> list[Group]:
    """Split the chosen columns off into a group named with ``suffix``. If all or none are chosen, keep the group."""
    if all(chosen) or not any(chosen):
        return [group]
    parts = []
    for name, wanted in ((group.name, False), (f"{group.name}_{suffix}", True)):
        where = [i for i, is_chosen in enumerate(chosen) if is_chosen == wanted]
        columns, labels = tuple(group.columns[i] for i in where), tuple(group.labels[i] for i in where)
        parts.append(Group(name=name, columns=columns, labels=labels))
    return parts


def _share_missing(column: Column) -> float:
    return column.num_missing / max(1, len(column.cells))


def _text_field(column: Column) -> FieldGuess:
    longest = max(len(cell.encode()) for cell in column.cells)
    width = max(64, 1 << (2 * longest - 1).bit_length())
    reason = f"the longest text seen has {longest} bytes"
    return FieldGuess(
        name=identifier(column.base), columns=(column.name,), dtype="text", width=width, reasons=(reason,)
    )


def _list_length(cell: str) -> int:
    return len(re.findall(r"[^\s,;\[\]()]+", cell))


def _list_field(column: Column) -> FieldGuess:
    name, length = identifier(column.base), _list_length(next(cell for cell in column.cells if cell))
    return FieldGuess(name=name, columns=(column.name,), length=length)


def _number_field(group: Group) -> FieldGuess:
    reasons: list[str] = []
    unit = tuple(column.unit for column in group.columns)
    field = FieldGuess(
        name=group.name,
        columns=tuple(column.name for column in group.columns),
        unit=unit if any(unit) else (),
        dtype=_dtype(group, reasons),
        labels=group.labels,
        head=_head(group),
    )
    field = _with_angles(_with_quaternion(field, group, reasons), group, reasons)
    return _with_gaps(field, group, reasons)


def _head(group: Group) -> NDArray[np.float64]:
    """Return the first rows. A column that some files lack has fewer of them."""
    rows = min(len(column.cells) for column in group.columns)
    return np.column_stack([column.values[:rows] for column in group.columns])


def _words_field(group: Group) -> FieldGuess:
    words = {word: value for column in group.columns for word, value in column.words.items()}
    columns = tuple(column.name for column in group.columns)
    field = FieldGuess(
        name=group.name, columns=columns, words=tuple(words.items()), labels=group.labels, head=_head(group)
    )
    return _with_gaps(field, group, ["each cell is one of two words, kept as the number it stands for"])


def _with_gaps(field: FieldGuess, group: Group, reasons: list[str]) -> FieldGuess:
    """Complete the field: how cells without a value are handled, and whether the field ever changes."""
    share = max(map(_share_missing, group.columns))
    if share:
        seen = ", ".join(sorted({repr(text) for column in group.columns for text in column.missing}))
        field = replace(field, on_missing="mask")
        part = f"{share:.0%}" if share >= 0.01 else "a few"
        reasons.append(f"{part} of the first rows have no value ({seen}): mask keeps the row and marks the cell")
    constant = [column.name for column in group.columns if column.constant]
    if constant:
        which = "it never changes" if len(constant) == len(group.columns) else f"never change: {', '.join(constant)}"
        reasons.append(f"{which} in the first rows")
    return replace(field, reasons=tuple(reasons), constant=len(constant) == len(group.columns))


def _dtype(group: Group, reasons: list[str]) -> str:
    """Return ``float32``, unless float32 would make neighbouring values equal."""
    if all(column.whole for column in group.columns):
        if any(len(c.finite) and np.abs(c.finite).max() > _EXACT_FLOAT32 for c in group.columns):
            reasons.append("int64: whole numbers too large for float32")
            return "int64"
        return "float32"
    for column in group.columns:
        values = np.unique(column.finite[np.abs(column.finite) <= _MOST_FLOAT32])  # the reader refuses larger ones
        if len(np.unique(values.astype(np.float32))) < 0.9 * len(values):
            reasons.append(f"float64: float32 would make neighbouring values of {column.name!r} equal")
            return "float64"
    return "float32"


@np.errstate(over="ignore")
def _with_quaternion(field: FieldGuess, group: Group, reasons: list[str]) -> FieldGuess:
    if len(group.columns) != 4 or not all(len(c.finite) == len(group.columns[0].finite) for c in group.columns):
        return field
    off = np.abs(np.sqrt(sum(column.finite**2 for column in group.columns)) - 1)
    order, named = "".join(group.labels), lexicon().phrases("before_axis", "orientation")
    is_counted = order in ("0123", "1234") and words_in(group.columns[0].base)[-2] in named
    if not off.size or off.max() > 0.05 or (is_counted and off.max() > 1e-3):
        if order in ("xyzw", "wxyz"):
            reasons.append("named like a quaternion, but its length is not 1: kept as four numbers")
        return field
    if is_counted:
        order = "wxyz"
        reasons.append("a quaternion by its length of 1; counted from its scalar on, as is usual: or say 'xyzw'")
    elif order in ("xyzw", "wxyz"):
        reasons.append("a quaternion by its names and its length of 1")
    else:
        reasons.append("of length 1, a quaternion it seems; say quaternion = 'xyzw' or 'wxyz' if you know the order")
        return field
    normalize = bool(off.max() > 1e-3)
    if normalize:
        reasons.append(f"its length is up to {off.max():.2g} off: made 1")
    unnamed = re.fullmatch(r"values(_\d+)?|joint_position", field.name)
    return replace(field, name="orientation" if unnamed else field.name, quaternion=order, normalize=normalize)


def _with_angles(field: FieldGuess, group: Group, reasons: list[str]) -> FieldGuess:
    """Set the period of angles that are seen to wrap around, and of Euler angles whose unit is known."""
    around = [_period(column) for column in group.columns]
    periods = list(around)
    full = max(around)
    turns, all_three = (set(lexicon().phrases("axes", key)) for key in ("turn", "with_place"))
    turns |= all_three if all_three <= set(group.labels) else set()
    for i, (column, label) in enumerate(zip(group.columns, group.labels, strict=True)):
        if not periods[i] and label in turns:
            periods[i] = full or {"deg": 360.0, "rad": math.tau}.get(column.unit, 0.0)
    if not any(periods):
        return field
    unit = [column.unit for column in group.columns]
    if full:
        seen = [column.name for column, period in zip(group.columns, around, strict=True) if period]
        reasons.append(f"{', '.join(seen)}: jumps by {full:.4g}, as an angle that comes round")
        unit = [u or (("deg" if full == 360 else "rad") if p else "") for u, p in zip(unit, periods, strict=True)]
    return replace(field, period=tuple(periods), unit=tuple(unit) if any(unit) else ())


def _period(column: Column) -> float:
    """Return 360 or 2 pi if the values stay within one turn and jump by nearly one turn, otherwise 0."""
    if len(column.finite) < 2:
        return 0.0
    low, high, jump = column.finite.min(), column.finite.max(), np.abs(np.diff(column.finite)).max()
    for turn, unit in ((360.0, "deg"), (math.tau, "rad")):
        within = (low >= -turn / 2 * 1.001 and high <= turn / 2 * 1.001) or (low >= 0 and high <= turn * 1.001)
        if within and jump > 0.9 * turn and column.unit in ("", unit):
            return turn
    return 0.0


def _unique_names(fields: list[FieldGuess]) -> list[FieldGuess]:
    """Give each field a unique name that a schema accepts."""
    taken: set[str] = set()
    named = []
    for field in fields:
        name = field.name
        if name == "timestamp" or name.endswith(MISSING_SUFFIX):
            name += "_value"
        number = 2
        base = name
        while name in taken or (name.endswith(MISSING_SUFFIX)):
            name, number = f"{base}_{number}", number + 1
        taken.add(name)
        named.append(replace(field, name=name))
    return named

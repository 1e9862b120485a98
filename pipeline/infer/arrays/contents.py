"""Sorts the arrays of a container into fields, cameras, texts, and what is not read, each with the reason."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.infer.arrays.look import LOOKED_AT, NUMBERS, Array
from vlapipe.pipeline.infer.columns.columns import Column, column_of_values
from vlapipe.pipeline.infer.columns.groups import group_columns, identifier
from vlapipe.pipeline.infer.guess import FieldGuess, StreamGuess
from vlapipe.pipeline.infer.lexicon import lexicon
from vlapipe.pipeline.infer.text.cells import words_of
from vlapipe.schemas.schema import TimeSpec

__all__ = ["Contents", "column_of", "plain_name", "sort_arrays"]

_WIDEST_FIELD = 4096
_NARROW, _WIDE = 64, 256  # bytes that a text is given
_MAX_CELLS = 2000  # rows by which an array is judged as a column


@dataclass(kw_only=True)
class Contents:
    """What the arrays of an episode are. Arrays with one row fewer than the anchor's lie between its rows."""

    fields: list[FieldGuess] = field(default_factory=list)
    between: list[FieldGuess] = field(default_factory=list)
    cameras: list[StreamGuess] = field(default_factory=list)
    not_read: list[str] = field(default_factory=list)


def column_of(each: Array, rows: int = _MAX_CELLS, position: int = 0) -> Column:
    """Describe an array with one number a row as a column of a table. ``rows`` are those of the first episode."""
    return column_of_values(each.name, position, () if each.line is None else each.line[: min(rows, _MAX_CELLS)])


def sort_arrays(
    arrays: Sequence[Array], num_rows: int, like: StreamGuess, taken: set[str], optional: frozenset[str] = frozenset()
) -> Contents:
    """Sort the arrays of a container.

    Args:
        arrays: all but the clock.
        num_rows: number of rows of the stream.
        like: the stream without its fields. If there are none, the cameras have its clock.
        taken: names that no field may have.
        optional: the arrays that some files lack.
    """
    found = Contents()
    names = {each.name for each in arrays}
    later = [each for each in arrays if (now := _one_row_before(each.name)) != each.name and now in names]
    if later:
        more = f" and {len(later) - 1} more" if len(later) > 1 else ""
        found.not_read.append(f"{later[0].name}{more}: the observations one row later")
    arrays = [each for each in arrays if each not in later]
    shortest = _shortest_names(arrays)
    columns: list[Array] = []
    for each in arrays:
        name = shortest[each.name]
        while name in taken:
            name += "_value"
        whole = each.shape[0] == num_rows
        if whole and (each.is_picture or each.image_file):
            found.cameras.append(_camera(each, name, like))
        elif whole and each.texts and each.kind not in NUMBERS:
            found.fields.append(_of_texts(each, name))
        elif (why := _why_not(each, num_rows)) is not None:
            found.not_read.append(f"{each.name} {each.shape} {each.dtype or 'objects'}: {why}")
            continue
        elif whole and len(each.shape) == 1 and each.name not in optional:
            columns.append(each)
            continue
        else:
            kept, head = _kept(each.dtype), _head([each])
            array = FieldGuess(name=name, columns=(each.name,), shape=each.shape[1:], dtype=kept, head=head)
            (found.fields if whole else found.between).append(_maybe(array, optional))
        taken.add(name)
    found.fields += _grouped(columns, shortest, taken)
    order = {each.name: i for i, each in enumerate(arrays)}
    found.fields.sort(key=lambda array: order[array.columns[0]])
    if not found.fields:
        found.cameras = [replace(each, time=like.time, time_reasons=like.time_reasons) for each in found.cameras]
    return found


def _maybe(array: FieldGuess, optional: frozenset[str]) -> FieldGuess:
    some = array.columns[0] in optional
    return replace(array, optional=True, reasons=("some files lack it",)) if some else array


def _one_row_before(name: str) -> str:
    """Return the name without the word that says that the values are those of the row after."""
    for word in lexicon().phrases("arrays", "next"):
        name = re.sub(rf"(^|/){word}_(?=[^/]*(/|$))", r"\1", name, flags=re.I)
    return name


def _why_not(each: Array, num_rows: int) -> str | None:
    """Say why an array cannot be a field; ``None`` if it can."""
    if not each.numeric:
        return "no numbers"
    if each.shape[0] not in (num_rows, num_rows - 1):
        return f"not {num_rows} rows"
    if not each.width:
        return "it is empty"
    if each.is_flat and each.dtype != np.bool_:
        return "images of one channel that are no depth by their name; say unit = 'mm' in a camera's stream if they are"
    if each.width > _WIDEST_FIELD:
        return f"{each.width} numbers a row"
    return None


def _grouped(columns: list[Array], names: dict[str, str], taken: set[str]) -> list[FieldGuess]:
    """Make one field of arrays that differ in a number or an axis, such as joint_0 to joint_5, if they hold alike."""
    found: list[FieldGuess] = []
    alike: dict[tuple[str, str], list[Array]] = defaultdict(list)
    for each in columns:
        alike[each.name.rpartition("/")[0], _kept(each.dtype)].append(each)
    for (_, dtype), members in alike.items():
        as_columns = [
            Column(name=each.last, position=i, kind="number", cells=(), unit="", base=each.last, decimal=".")
            for i, each in enumerate(members)
        ]
        for group in group_columns(as_columns):
            ours = [members[column.position] for column in group.columns]
            alone = names[ours[0].name]
            name = alone if len(ours) == 1 else identifier(group.name, alone)
            while name in taken:
                name += "_value"
            taken.add(name)
            shape = () if len(ours) == 1 else (len(ours),)
            of = tuple(each.name for each in ours)
            found.append(FieldGuess(name=name, columns=of, shape=shape, dtype=dtype, head=_head(ours)))
    return found


def _head(arrays: Sequence[Array]) -> NDArray[np.float64] | None:
    """Return the first rows of arrays side by side, if they were looked at."""
    rows = [each.values[:LOOKED_AT] for each in arrays if each.values is not None]
    return np.hstack(rows).astype(np.float64) if len(rows) == len(arrays) else None


def _shortest_names(arrays: Sequence[Array]) -> dict[str, str]:
    """Name each array by as many of the last parts of its name as tell it from all others."""
    names = [each.name.strip("/").split("/") for each in arrays]
    counts = Counter("/".join(parts[-n:]) for parts in names for n in range(1, len(parts) + 1))
    found = {}
    for each, parts in zip(arrays, names, strict=True):
        enough = next((n for n in range(1, len(parts)) if counts["/".join(parts[-n:])] == 1), len(parts))
        found[each.name] = plain_name("_".join(parts[-enough:]))
    return found


def plain_name(text: str, default: str = "field") -> str:
    """Keep a name that a schema allows once its signs are replaced; respell any other."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")
    return name if re.fullmatch(r"[a-z][a-z0-9_]*", name) and text.isascii() else identifier(text, default)


def _camera(each: Array, name: str, like: StreamGuess) -> StreamGuess:
    what = "encoded images" if each.image_file else f"images of {each.shape[2]}x{each.shape[1]}"
    is_depth = each.is_depth or each.image_file == "depth"
    return StreamGuess(
        name=name,
        kind="images",
        files=like.files,
        time=TimeSpec(rows_of=like.name),
        reasons=(f"{each.name}: {what}, one a row",),
        array=each.name,
        unit="mm" if is_depth else None,
        file_unit="m" if is_depth and each.kind == "f" else None,
    )


def _of_texts(each: Array, name: str) -> FieldGuess:
    """Describe an array of texts: as numbers if its words say yes and no, else as texts."""
    said = {value.decode("utf-8", "replace") if isinstance(value, bytes) else value for value in each.texts}
    words = words_of(said) if len(each.shape) == 1 else {}
    if words:
        spelt = tuple((word, float(number)) for word, number in words.items())
        return FieldGuess(name=name, columns=(each.name,), shape=(), words=spelt)
    widest = max((len(text.encode()) for text in said), default=0)
    width = _NARROW if widest < _NARROW // 2 else max(_WIDE, 2 * widest)
    return FieldGuess(name=name, columns=(each.name,), shape=(), dtype="text", width=width)


def _kept(dtype: np.dtype[Any] | None) -> str:
    """Return the schema's dtype that can hold an array's values."""
    assert dtype is not None
    if dtype.kind == "b":
        return "uint8"
    if dtype.kind == "f":
        return "float32" if dtype.itemsize <= 4 else "float64"
    kept = {"u1": "uint8", "u2": "uint16", "i1": "int32", "i2": "int32", "i4": "int32"}
    return kept.get(f"{dtype.kind}{dtype.itemsize}", "int64")

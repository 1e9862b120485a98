"""Sorts the arrays of a container into fields, cameras, texts, and what is not read, each with the reason."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlapipe.pipeline.infer.arrays.arrays import dtype_to_keep
from vlapipe.pipeline.infer.columns.columns import Column
from vlapipe.pipeline.infer.columns.groups import group_columns, identifier
from vlapipe.pipeline.infer.guess import FieldGuess, StreamGuess
from vlapipe.pipeline.infer.text.cells import words_of
from vlapipe.pipeline.read.containers.arrays import ArrayFiles
from vlapipe.schemas.schema import TimeSpec

__all__ = ["Array", "Contents", "arrays_of", "plain_name", "sort_arrays"]

_WIDEST_FIELD = 4096
_LEAST_SIDE = 16  # of an image, in pixels
_LOOKED_AT = 256  # rows of an array of texts
_NARROW, _WIDE = 64, 256  # bytes that a text is given
_NEXT = re.compile(r"(^|/)next_(?=[^/]*(/|$))", re.I)
_NO_PICTURE = re.compile(r"mask|segment|label|heatmap", re.I)
_NUMBERS = "iufb"


@dataclass(frozen=True)
class Array:
    """An array of one episode: its name in the container, the shape of all its rows, and its dtype.

    ``dtype`` is ``None`` if only loading tells what the array holds: texts or files.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None

    @property
    def last(self) -> str:
        """Returns the last part of the name."""
        return self.name.rstrip("/").rpartition("/")[2]

    @property
    def width(self) -> int:
        """Returns the count of numbers in a row."""
        return int(np.prod(self.shape[1:], dtype=np.int64))

    @property
    def kind(self) -> str:
        """Returns the kind of the dtype; of an unknown one that of objects."""
        return "O" if self.dtype is None else self.dtype.kind

    @property
    def is_flat(self) -> bool:
        """Returns whether each row has one channel of an image's size."""
        flat = self.shape[:3] if len(self.shape) == 4 and self.shape[3] == 1 else self.shape
        return len(flat) == 3 and min(flat[1:]) >= _LEAST_SIDE

    @property
    def is_depth(self) -> bool:
        """Returns whether each row is an image of depth: one channel, by its name, in metres or whole units."""
        is_wide = self.kind in "uif" and self.dtype != np.uint8
        return self.is_flat and "depth" in self.name.lower() and is_wide

    @property
    def is_picture(self) -> bool:
        """Returns whether each row is an image: colour, depth, or 8 bits gray that do not mark anything."""
        if len(self.shape) == 4 and self.shape[3] == 3 and (self.dtype == np.uint8 or self.kind == "f"):
            return min(self.shape[1:3]) >= _LEAST_SIDE
        return self.is_depth or (self.is_flat and self.dtype == np.uint8 and not _NO_PICTURE.search(self.name))


@dataclass(kw_only=True)
class Contents:
    """What the arrays of an episode are. Arrays with one row fewer than the anchor's lie between its rows."""

    fields: list[FieldGuess] = field(default_factory=list)
    between: list[FieldGuess] = field(default_factory=list)
    cameras: list[StreamGuess] = field(default_factory=list)
    not_read: list[str] = field(default_factory=list)


def arrays_of(opened: ArrayFiles) -> list[Array]:
    """List the arrays that have rows."""
    return [Array(name, entry.shape, entry.dtype) for name, entry in opened.arrays.items() if entry.shape]


def sort_arrays(
    opened: ArrayFiles, arrays: Sequence[Array], num_rows: int, pattern: str, anchor: str, taken: set[str]
) -> Contents:
    """Sort arrays, of which the anchor's have ``num_rows`` rows. ``taken`` are names that no field may have."""
    found = Contents()
    names = {each.name for each in arrays}
    later = [each for each in arrays if _NEXT.sub(r"\1", each.name) in names - {each.name}]
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
        texts = _texts(opened, each) if each.shape[0] == num_rows and len(each.shape) <= 2 else None
        if each.shape[0] == num_rows and (each.is_picture or _image_file(texts)):
            found.cameras.append(_camera(pattern, each, name, anchor, texts))
        elif texts is not None and each.kind not in _NUMBERS:
            found.fields.append(_of_texts(each, name, texts))
        elif (why := _why_not(each, num_rows)) is not None:
            found.not_read.append(f"{each.name} {each.shape} {each.dtype or 'objects'}: {why}")
            continue
        elif each.shape[0] == num_rows and len(each.shape) == 1:
            columns.append(each)
            continue
        else:
            assert each.dtype is not None
            array = FieldGuess(name=name, columns=(each.name,), shape=each.shape[1:], dtype=dtype_to_keep(each.dtype))
            (found.fields if each.shape[0] == num_rows else found.between).append(array)
        taken.add(name)
    found.fields += _grouped(columns, shortest, taken)
    order = {each.name: i for i, each in enumerate(arrays)}
    found.fields.sort(key=lambda array: order[array.columns[0]])
    return found


def _why_not(each: Array, num_rows: int) -> str | None:
    """Say why an array cannot be a field; ``None`` if it can."""
    if each.kind not in _NUMBERS:
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
        assert each.dtype is not None
        alike[each.name.rpartition("/")[0], dtype_to_keep(each.dtype)].append(each)
    for (_, dtype), members in alike.items():
        by_position = dict(enumerate(members))
        for group in group_columns([_column(each.last, i) for i, each in by_position.items()]):
            ours = [by_position[column.position] for column in group.columns]
            alone = names[ours[0].name]
            name = alone if len(ours) == 1 else identifier(group.name, alone)
            while name in taken:
                name += "_value"
            taken.add(name)
            shape = () if len(ours) == 1 else (len(ours),)
            found.append(FieldGuess(name=name, columns=tuple(each.name for each in ours), shape=shape, dtype=dtype))
    return found


def _column(name: str, position: int) -> Column:
    return Column(name=name, position=position, kind="number", cells=(), unit="", base=name, decimal=".")


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


def _camera(pattern: str, each: Array, name: str, anchor: str, texts: list[Any] | None) -> StreamGuess:
    coded = _image_file(texts)
    what = "encoded images" if coded else f"images of {each.shape[2]}x{each.shape[1]}"
    is_depth = each.is_depth or coded == "depth"
    return StreamGuess(
        name=name,
        kind="images",
        files=(pattern,),
        time=TimeSpec(rows_of=anchor),
        reasons=(f"{each.name}: {what}, one a row",),
        array=each.name,
        unit="mm" if is_depth else None,
        file_unit="m" if is_depth and each.kind == "f" else None,
    )


def _texts(opened: ArrayFiles, each: Array) -> list[Any] | None:
    """Return the first rows of an array of texts or of files; ``None`` of any other."""
    if each.kind not in "OSU" and not (each.dtype == np.uint8 and each.width > _NARROW):
        return None
    rows = slice(0, 1 if each.dtype == np.uint8 else min(_LOOKED_AT, each.shape[0]))
    try:
        first = opened.arrays[each.name].load(slice(0, 1))[0]
        if isinstance(first, np.ndarray) or (
            isinstance(first, bytes) and first[:4].startswith((b"\xff\xd8", b"\x89PN"))
        ):
            return [first if isinstance(first, bytes) else np.asarray(first, dtype=np.uint8).tobytes()]
        values = opened.arrays[each.name].load(rows)
    except Exception:  # noqa: BLE001 - what a damaged file makes of it: then it is told as an array that is not read
        return None
    return list(values) if all(isinstance(value, str | bytes) for value in values) else None


def _image_file(texts: list[Any] | None) -> str | None:
    """Return ``"depth"`` or ``"colour"`` if the first row is an image file."""
    first = texts[0] if texts else None
    if not isinstance(first, bytes):
        return None
    if first.startswith(b"\x89PNG"):
        return "depth" if first[24:26] == b"\x10\x00" else "colour"  # 16 bits, gray
    return "colour" if first.startswith(b"\xff\xd8\xff") else None


def _of_texts(each: Array, name: str, texts: list[Any]) -> FieldGuess:
    """Describe an array of texts: as numbers if its words say yes and no, else as texts."""
    said = {value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in texts}
    words = words_of(said) if len(each.shape) == 1 else {}
    if words:
        spelt = tuple((word, float(number)) for word, number in words.items())
        return FieldGuess(name=name, columns=(each.name,), shape=(), words=spelt)
    widest = max((len(text.encode()) for text in said), default=0)
    width = _NARROW if widest < _NARROW // 2 else max(_WIDE, 2 * widest)
    return FieldGuess(name=name, columns=(each.name,), shape=(), dtype="text", width=width)

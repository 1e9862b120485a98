"""Looks into a container, of any kind, once: the shapes, dtypes and first values of its arrays, and its attributes."""

from __future__ import annotations

import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.discover.file_tree import natural_order
from vlapipe.pipeline.discover.listing import RawFile
from vlapipe.pipeline.infer.lexicon import lexicon, words_in
from vlapipe.pipeline.read.containers.arrays import ArrayEntry
from vlapipe.pipeline.read.containers.container import attributes_of, open_container
from vlapipe.pipeline.shards.format.npy_header import read_npy_header
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ArrayKind

__all__ = ["LOOKED_AT", "NUMBERS", "Array", "Groups", "Look", "Shape", "look_into", "shapes_of"]

NUMBERS = "iufb"  # kinds of dtype
WIDEST_COLUMN = 64  # numbers a row of an array that tells of a robot
_MAX_VALUES = 50_000
LOOKED_AT = 512  # rows of an array of texts, or of several numbers a row
_NARROW = 64  # bytes a row; a wider array of bytes may hold a file in each row
_LEAST_SIDE = {1: 16, 3: 8}  # pixels of an image, by its channels
_IMAGE_FILES = (b"\xff\xd8\xff", b"\x89PNG")

Shape = tuple[tuple[int, ...], np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Array:
    """An array of one episode: its name in the container, the shape of all its rows, and its dtype.

    ``dtype`` is ``None`` if only loading tells what the array holds: texts or files. ``values`` are the first rows of a
    narrow array of numbers, and ``texts`` the first texts, or the first file, of an array that has such.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None
    values: NDArray[Any] | None = None
    texts: tuple[str | bytes, ...] = ()

    @property
    def last(self) -> str:
        """Returns the last part of the name."""
        return self.name.rstrip("/").rpartition("/")[2]

    @property
    def width(self) -> int:
        """Returns the count of numbers in a row."""
        return int(np.prod(self.shape[1:], dtype=np.int64))

    @property
    def line(self) -> NDArray[Any] | None:
        """Returns the first numbers of an array with one number a row; ``None`` of any other."""
        return self.values[:, 0] if self.values is not None and len(self.shape) == 1 else None

    @property
    def numeric(self) -> bool:
        """Returns whether the array holds numbers."""
        return self.dtype is not None and self.dtype.kind in NUMBERS

    @property
    def kind(self) -> str:
        """Returns the kind of the dtype; of an unknown one that of objects."""
        return "O" if self.dtype is None else self.dtype.kind

    @property
    def is_flat(self) -> bool:
        """Returns whether each row has one channel of an image's size."""
        flat = self.shape[:3] if len(self.shape) == 4 and self.shape[3] == 1 else self.shape
        return len(flat) == 3 and min(flat[1:]) >= _LEAST_SIDE[1]

    @property
    def is_depth(self) -> bool:
        """Returns whether each row is an image of depth: one channel of 16 bits, or by its name of metres or more."""
        named = bool(lexicon().likeness(self.name, "arrays", "depth")) and self.kind in "uif" and self.dtype != np.uint8
        return self.is_flat and not self.is_marks and (named or self.dtype == np.uint16)

    @property
    def is_marks(self) -> bool:
        """Returns whether the name says that the pixels are marks, such as those of a mask."""
        return bool(lexicon().likeness(self.name, "arrays", "marks"))

    @property
    def is_picture(self) -> bool:
        """Returns whether each row is an image: colour, depth, or 8 bits gray that do not mark anything."""
        if len(self.shape) == 4 and self.shape[3] == 3 and (self.dtype == np.uint8 or self.kind == "f"):
            return min(self.shape[1:3]) >= _LEAST_SIDE[3]
        return self.is_depth or (self.is_flat and self.dtype == np.uint8 and not self.is_marks)

    @property
    def image_file(self) -> str | None:
        """Returns ``"depth"`` or ``"colour"`` if each row is an image file."""
        first = self.texts[0] if self.texts else None
        if not isinstance(first, bytes) or not first.startswith(_IMAGE_FILES):
            return None
        return "depth" if first.startswith(b"\x89PNG") and first[24:26] == b"\x10\x00" else "colour"  # 16 bits, gray


@dataclass(frozen=True)
class Groups:
    """Groups of a container that are episodes: the pattern that fits their names, the first one, and their number."""

    pattern: str
    first: str
    count: int


@dataclass(frozen=True, eq=False)
class Look:
    """What a container holds. With ``groups``, the names of ``arrays`` count from the first of them."""

    path: str
    kind: ArrayKind
    arrays: tuple[Array, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    groups: Groups | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all arrays."""
        return tuple(each.name for each in self.arrays)

    @cached_property
    def num_rows(self) -> int:
        """Number of rows that most arrays have. Those of a robot and long ones count more, a row fewer counts too."""
        counts: dict[int, float] = defaultdict(float)
        for each in self.arrays:
            if each.numeric and each.shape[0] > 1:
                share = 1.0 + bool(lexicon().likeness(each.last, "arrays", "clock"))
                share += bool(lexicon().likeness(each.name, "files", "robot"))
                share /= 1 + bool(lexicon().likeness(each.name, "files", "sensor"))
                counts[each.shape[0]] += share
                counts[each.shape[0] + 1] += share / 2
        lengths = {each.shape[0] for each in self.arrays if each.numeric and each.shape[0] > 1}
        return max(lengths, key=lambda length: (counts[length] * np.log2(length), length), default=0)

    @cached_property
    def num_numbers(self) -> int:
        """Number of numbers in a row of the arrays that could be a robot's."""
        rows = [each for each in self.arrays if each.numeric and each.shape[0] in (self.num_rows, self.num_rows - 1)]
        narrow = [each for each in rows if len(each.shape) < 3 and each.width <= WIDEST_COLUMN]
        return sum(each.width for each in narrow if not each.is_marks)


@lru_cache(maxsize=1024)
def look_into(root: Path, files: tuple[RawFile, ...], kind: ArrayKind, label: str) -> Look | None:
    """Look into one container, or into NPY files. Returns ``None`` if they cannot be opened, or hold no arrays.

    A file that has changed since it was last looked into has another date, and is opened again.
    """
    paths = [file.path for file in files]
    findings = Findings()
    groups = None
    with open_container(root, paths, findings, kind=kind, hashed=False) as opened:
        if opened is None:
            return None
        names = list(opened.arrays)
        if not any(_says_ends(name) for name in names):
            groups = _groups(names)
        if groups is None:
            arrays = list(_arrays(root, kind, opened.arrays))
            attributes = attributes_of(opened.arrays, "")
    if groups is not None:
        with open_container(root, paths, findings, kind=kind, base=groups.first, hashed=False) as opened:
            if opened is None:
                return None
            below = {name: entry for name, entry in opened.arrays.items() if not name.startswith("/")}
            arrays = list(_arrays(root, kind, below))
            attributes = attributes_of(opened.arrays, groups.first)
    told = dict(_flat(attributes))
    kept = tuple(each for each in arrays if each.name not in told)
    return Look(label, kind, kept, told, groups) if kept else None


def shapes_of(path: Path) -> dict[str, Shape]:
    """Return the shape and dtype of each array of an NPZ or NPY file. Reads headers only."""
    found: dict[str, Shape] = {}
    with suppress(Exception):  # a damaged file fails in a dozen ways; the reader says how when the schema is tried
        if path.suffix.lower() != ".npz":
            with path.open("rb") as file:
                return {path.stem: _read_header(file)}
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith(".npy"):
                    with archive.open(member) as packed:
                        found[member.removesuffix(".npy")] = _read_header(packed)
    return found


def _read_header(file: Any) -> Shape:
    shape, _, dtype = read_npy_header(file)
    return shape, dtype


def _arrays(root: Path, kind: ArrayKind, entries: Mapping[str, ArrayEntry]) -> Iterator[Array]:
    """Yield the arrays that have rows, with their first values."""
    for name, entry in entries.items():
        shape, dtype = entry.shape, entry.dtype
        if shape is None:  # NPZ, NPY and pickles tell it in their headers, or not at all
            told = shapes_of(root / entry.file).get(name) if kind == "npz" else None
            shape, dtype = told or _loaded_shape(entry)
        if not shape:
            continue
        array = Array(name, shape, dtype)
        first = _first_values(array, entry) if shape[0] else None
        if first is None:
            yield array
        elif isinstance(first, np.ndarray):
            yield Array(name, shape, dtype, values=first)
        else:
            yield Array(name, shape, dtype, texts=first)


def _loaded_shape(entry: ArrayEntry) -> tuple[tuple[int, ...], np.dtype[Any] | None]:
    try:
        loaded = np.asarray(entry.load(None))
    except Exception:  # noqa: BLE001 - what a damaged file makes of it
        return (), None
    return loaded.shape, None if loaded.dtype.kind == "O" else loaded.dtype


def _first_values(array: Array, entry: ArrayEntry) -> NDArray[Any] | tuple[str | bytes, ...] | None:
    """Return the first numbers of an array with one number a row, or the first texts; of any other ``None``."""
    holds_bytes = array.dtype == np.uint8 and len(array.shape) <= 2 and array.width > _NARROW
    with suppress(Exception):  # what a damaged file makes of it
        if array.numeric and len(array.shape) <= 2 and 0 < array.width <= WIDEST_COLUMN and not holds_bytes:
            most = _MAX_VALUES if array.width == 1 else LOOKED_AT
            return np.asarray(entry.load(slice(0, most))).reshape(-1, array.width)
        if len(array.shape) > 2 or not (array.kind in "OSU" or holds_bytes):
            return None
        first = entry.load(slice(0, 1))[0]
        if isinstance(first, np.ndarray):
            return (np.asarray(first, dtype=np.uint8).tobytes(),)
        if isinstance(first, bytes) and first.startswith(_IMAGE_FILES):
            return (first,)
        values = tuple(entry.load(slice(0, min(LOOKED_AT, array.shape[0]))))
        return values if all(isinstance(value, str | bytes) for value in values) else None
    return None


def _says_ends(name: str) -> bool:
    return lexicon().likeness(name.rpartition("/")[2], "arrays", "ends") == 1


def _groups(names: Iterable[str]) -> Groups | None:
    """Find groups that are episodes: they are called so, and hold the same arrays."""
    below: dict[str, set[str]] = defaultdict(set)
    for name in names:
        parts = name.strip("/").split("/")
        for depth in range(1, len(parts)):
            if _is_episode(parts[depth - 1]):
                below["/".join(parts[:depth])].add("/".join(parts[depth:]))
                break
    by_pattern: dict[str, list[str]] = defaultdict(list)
    for group in below:
        head, _, last = group.rpartition("/")
        by_pattern[f"{head}/" * bool(head) + re.sub(r"\d+", "*", last)].append(group)
    for pattern, groups in by_pattern.items():
        groups.sort(key=natural_order)
        if all(below[group] & below[groups[0]] for group in groups):
            return Groups(pattern, groups[0], len(groups))
    return None


def _is_episode(name: str) -> bool:
    """Return whether a group's name is a number, or one of a word for an episode."""
    words = [word for word in words_in(name) if not word.isdigit()]
    numbered = any(sign.isdigit() for sign in name)
    return numbered and (not words or lexicon().likeness(" ".join(words), "arrays", "episodes") == 1)


def _flat(attributes: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the attributes, those in nested tables as ``a.b``."""
    for name, value in attributes.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value

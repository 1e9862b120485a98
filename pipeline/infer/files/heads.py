"""Reads the heads of files, each once: the first rows of a table, or the arrays of a container.

Files whose names differ only in digits form one bucket, if their heads are alike.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath

from vlapipe.pipeline.discover.file_kinds import suffix_of
from vlapipe.pipeline.discover.file_tree import WholeTree
from vlapipe.pipeline.discover.listing import RawFile
from vlapipe.pipeline.infer.arrays.look import Look, look_into
from vlapipe.pipeline.infer.columns.columns import columns_of
from vlapipe.pipeline.infer.text.dialect import Table, look_at_table
from vlapipe.pipeline.infer.text.text_head import is_other_text
from vlapipe.pipeline.read.containers.container import kind_of
from vlapipe.pipeline.read.containers.npz import holds_one_array
from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.schemas.schema import ArrayKind

__all__ = [
    "TABLES",
    "Bucket",
    "Head",
    "alike",
    "container_buckets",
    "is_table",
    "key_of",
    "look_at",
    "other_text_buckets",
    "table_buckets",
]

TABLES = {".csv", ".tsv", ".txt", ".log", ".dat", ".data"}
CONTAINERS: dict[str, ArrayKind] = {
    ".npz": "npz",
    ".npy": "npz",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
    ".zarr": "zarr",
    ".parquet": "parquet",
    ".pkl": "pickle",
    ".pickle": "pickle",
}
_PACKED = {".gz", ".zip"}
_MAX_BUCKETS = 60
_MAX_UNLIKE = 24  # files that are read if files of one name have different columns
_MAX_KINDS = 12  # kinds of files that may share one name in different folders
_MAX_MOMENTS = 9  # NPY files of a folder whose names differ only in digits; more of them are single moments


@dataclass(frozen=True, eq=False)
class Head:
    """What the beginning of a file tells: the first rows of a table, or what a container holds."""

    path: str
    table: Table | None = None
    look: Look | None = None

    @property
    def names(self) -> Sequence[str]:
        """The names of the columns or arrays."""
        return self.table.names if self.table is not None else self._look.names

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.table.num_rows if self.table is not None else self._look.num_rows

    @cached_property
    def num_numbers(self) -> int:
        """Number of numbers in a row."""
        if self.table is None:
            return self._look.num_numbers
        return sum(column.kind == "number" for column in columns_of(self.table))

    @property
    def is_one_row(self) -> bool:
        """Whether a table holds one row, or is a pose or a calibration: 3 or 4 rows of 3 or 4 numbers, all its file."""
        table = self.table
        if table is None:
            return False
        small = table.num_rows in (3, 4) and len(table.names) in (3, 4) and not table.dialect.header_rows
        return table.num_rows < 2 or (small and table.whole and self.num_numbers == len(table.names))

    @property
    def _look(self) -> Look:
        assert self.look is not None
        return self.look


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Files of one kind, and the heads of some of them.

    A folder of NPY files, each an array, counts as one file: the first one, and ``is_folder`` is set.
    """

    files: tuple[str, ...]
    heads: tuple[Head, ...]
    key: str = ""  # the file name with its digits and folder name left open
    is_folder: bool = False

    @property
    def tables(self) -> tuple[Table, ...]:
        """The first rows of tables."""
        return tuple(head.table for head in self.heads if head.table is not None)

    @property
    def looks(self) -> tuple[Look, ...]:
        """What containers hold."""
        return tuple(head.look for head in self.heads if head.look is not None)


def look_at(tree: WholeTree, path: str, *, is_folder: bool = False) -> Head | None:
    """Return the head of a file, or of a folder of NPY files; ``None`` if it holds no numbers."""
    files = _arrays_beside(tree, path) if is_folder else (tree.files[path],)
    return _look_at(tree.root, files, path)


def _arrays_beside(tree: WholeTree, path: str) -> tuple[RawFile, ...]:
    folder = str(PurePosixPath(path).parent)
    return tuple(found.file for found in tree.find(folder, f"*{suffix_of(path)}"))


@lru_cache(maxsize=1024)
def _look_at(root: Path, files: tuple[RawFile, ...], path: str) -> Head | None:
    kind = CONTAINERS.get(suffix_of(path)) or ("npz" if holds_one_array(root / path) else None)
    if kind is not None or path.lower().endswith(".zarr.zip"):
        look = look_into(root, files, kind or kind_of(path), path)
        return Head(path, look=look) if look is not None and look.num_rows else None
    table = look_at_table(root / path, path)
    head = Head(path, table=table) if table is not None and table.rows else None
    return head if head is not None and head.num_numbers else None


def alike(one: Head, other: Head) -> bool:
    """Return True if two files could belong to one stream: at least half of their columns are the same."""
    names, others = set(one.names), set(other.names)
    return 2 * len(names & others) >= len(names | others)


@lru_cache(maxsize=1)  # a folder is looked at once for all schemas that are tried
def table_buckets(tree: WholeTree) -> list[Bucket]:
    """Return the tables that hold numbers."""
    return _buckets(tree, [path for path in tree.files if is_table(path)])


@lru_cache(maxsize=1)
def other_text_buckets(tree: WholeTree) -> list[Bucket]:
    """Return the tables that hold numbers among files with suffixes of no table."""
    return _buckets(tree, [path for path in tree.files if is_other_text(tree.root / path)])


@lru_cache(maxsize=1)
def container_buckets(tree: WholeTree) -> list[Bucket]:
    """Return the containers, and the folders of NPY files."""
    packed = [path for path in tree.files if suffix_of(path) in CONTAINERS or path.lower().endswith(".zarr.zip")]
    folders: dict[str, list[str]] = defaultdict(list)
    for path in packed:
        if suffix_of(path) == ".npy":
            folders[path.rpartition("/")[0]].append(path)
    # Many arrays whose names differ only in digits are a moment each, such as images of depth.
    for folder, paths in _bare_folders(tree).items():
        folders.setdefault(folder, paths)
    first = [paths[0] for paths in folders.values() if len(paths) <= _MAX_MOMENTS or _num_keys(paths) > 1]
    return [
        *_buckets(tree, [path for path in packed if suffix_of(path) != ".npy"]),
        *_buckets(tree, first, is_folder=True),
    ]


def _bare_folders(tree: WholeTree) -> dict[str, list[str]]:
    """List the folders of NPY files without suffixes, by the first bytes of one file of each kind of folder."""
    bare: dict[str, list[str]] = defaultdict(list)
    for path in tree.files:
        if "." not in path[path.rfind("/") + 1 :]:
            bare[path.rpartition("/")[0]].append(path)
    of_kind: dict[str, bool] = {}
    for folder, paths in bare.items():
        if (key := key_of(folder)) not in of_kind:
            of_kind[key] = holds_one_array(tree.root / paths[0])
    return {folder: paths for folder, paths in bare.items() if of_kind[key_of(folder)]}


def _num_keys(paths: Iterable[str]) -> int:
    return len({key_of(path) for path in paths})


def _buckets(tree: WholeTree, paths: Iterable[str], *, is_folder: bool = False) -> list[Bucket]:
    named: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        named[key_of(path.rpartition("/")[0]) if is_folder else key_of(path)].append(path)
    found: list[Bucket] = []
    most = sorted(named.items(), key=lambda item: -len(item[1]))[:_MAX_BUCKETS]
    with Progress("looking", len(most), "kind of file") as progress:
        for key, files in most:
            found += _bucket(tree, key, files, is_folder=is_folder)
            progress.advance()
    return found


def _bucket(tree: WholeTree, key: str, files: list[str], *, is_folder: bool) -> list[Bucket]:
    """Return files whose names are alike as one bucket, or as several if their heads are not alike."""
    heads = _heads(tree, _some(files), is_folder)
    if heads and all(alike(heads[0], head) for head in heads):
        return [Bucket(files=tuple(files), heads=tuple(heads), key=key, is_folder=is_folder)]
    if not heads or (not is_folder and (parts := _by_folder_name(tree, files, key))):
        return parts if heads else []
    kinds: list[list[Head]] = []
    for head in _heads(tree, files[:_MAX_UNLIKE], is_folder):
        kind = next((kind for kind in kinds if alike(kind[0], head)), None)
        if kind is None:
            kinds.append([head])
        else:
            kind.append(head)
    return [
        Bucket(files=tuple(h.path for h in kind), heads=tuple(kind[:3]), key=key, is_folder=is_folder) for kind in kinds
    ]


def _by_folder_name(tree: WholeTree, files: list[str], key: str) -> list[Bucket]:
    """Split a bucket by folder name, such as imu0/data.csv and truth0/data.csv.

    Returns an empty list if the folder names do not tell the kinds of files apart.
    """
    named: dict[str, list[str]] = defaultdict(list)
    for file in files:
        named[key_of(PurePosixPath(file).parent.name)].append(file)
    if not 1 < len(named) <= _MAX_KINDS:
        return []
    parts: list[Bucket] = []
    for folder, group in named.items():
        heads = _heads(tree, _some(group), False)
        if any(not alike(heads[0], head) for head in heads[1:]):
            return []
        if any(alike(part.heads[0], heads[0]) for part in parts if heads):  # folders of episodes, not of kinds
            return []
        if heads:
            parts.append(Bucket(files=tuple(group), heads=tuple(heads), key=f"{folder}/{key}"))
    return parts


def _some(files: Sequence[str]) -> list[str]:
    """Return the first, the middle and the last file."""
    return [files[i] for i in sorted({0, len(files) // 2, len(files) - 1})]


def _heads(tree: WholeTree, files: Iterable[str], is_folder: bool) -> list[Head]:
    return [head for file in files if (head := look_at(tree, file, is_folder=is_folder)) is not None]


def is_table(path: str) -> bool:
    """Return True if a file is a table by its suffix; packed ones too."""
    suffix = suffix_of(path)
    if suffix in _PACKED:
        inner = suffix_of(path[: -len(suffix)])
        return not inner or inner in TABLES
    return suffix in TABLES


def key_of(path: str) -> str:
    """Return the file's name with each digit group replaced by ``#``, and its folder's name left open."""
    *folders, name = path.split("/")
    for folder in reversed(folders):
        if len(folder) > 2 and folder in name:
            name = name.replace(folder, "\0")
    return re.sub(r"\d+", "#", name)

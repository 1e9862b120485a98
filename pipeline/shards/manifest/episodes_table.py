"""Reads the episodes table a column or a few rows at a time. A file's digest is verified with its first read.

The table of a large dataset lies in several files, one a part. Here it is one table: numbers of episodes and shards are
those in the whole dataset, and each column has one type.
"""

from __future__ import annotations

import json
import threading
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlapipe.pipeline.shards.arrow_numpy import as_numpy
from vlapipe.pipeline.shards.format.digest import file_sha256, require_digest
from vlapipe.pipeline.shards.format.parquet import parquet_source
from vlapipe.pipeline.shards.manifest.generations import missing_file
from vlapipe.pipeline.shards.manifest.metadata_columns import PREFIX, holds_json, metadata_columns
from vlapipe.pipeline.shards.manifest.parts import Part
from vlapipe.schemas.errors import DamageError
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["INSTRUCTIONS", "EpisodesTable"]

T = TypeVar("T")

INSTRUCTIONS = "instructions"  # the column that a table has if an episode of it has several
_FEW_TEXTS = ["task", "instruction", "split"]  # columns with few distinct texts, read as a dictionary type


class EpisodesTable:
    """The episodes of a dataset, or of some of its parts. Columns are read at their first use. Thread-safe."""

    def __init__(self, folder: Path, parts: Sequence[Part], generation: int) -> None:
        """Store the arguments: the dataset's folder, its parts, and the generation that they are of."""
        self._files = [
            _File(folder / part.episodes["file"], part.episodes["sha256"], generation, stays_open=len(parts) == 1)
            for part in parts
        ]
        self._parts = list(parts)
        self._reading = threading.RLock()  # two simultaneous reads of one ParquetFile may abort the process
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._near: tuple[int, pa.Table] = (0, pa.table({}))  # the row group that was read last, and its first episode

    @cached_property
    def whole(self) -> pa.Table:
        """The table with all columns.

        Raises:
            DamageError: a file is missing or altered.
        """
        with self._reading:
            if len(self._files) == 1:
                return self._placed(self._files[0].read(None), 0)
            return self._joined([file.read(None) for file in self._files], self.fields.names)

    @cached_property
    def fields(self) -> pa.Schema:
        """The names and types of all columns.

        Raises:
            DamageError: a file is missing or altered.
        """
        with self._reading:
            schemas = [file.fields for file in self._files]
            if all(schema.equals(schemas[0], check_metadata=True) for schema in schemas[1:]):
                return schemas[0] if schemas else pa.schema([])
            own = [field for field in schemas[0] if not field.name.startswith(PREFIX)]
            if INSTRUCTIONS not in schemas[0].names:
                own += [schema.field(INSTRUCTIONS) for schema in schemas if INSTRUCTIONS in schema.names][:1]
            names = sorted({name for schema in schemas for name in schema.names if name.startswith(PREFIX)})
            return pa.schema([*own, *(self._field(name, schemas) for name in names)])

    def _field(self, name: str, schemas: list[pa.Schema]) -> pa.Field:
        found = [schema.field(name) for schema in schemas if name in schema.names]
        if all(field.equals(found[0], check_metadata=True) for field in found[1:]):
            return found[0]
        return self._joined([self._read_some(file, [name]) for file in self._files], [name]).schema.field(name)

    def part(self, number: int) -> pa.Table:
        """Reads one part's table whole; numbers of shards and episodes are those in the dataset."""
        with self._reading:
            return self._placed(self._files[number].read(None), number)

    def column(self, name: str) -> pa.ChunkedArray:
        """Returns one column. Texts that many episodes share have a dictionary type.

        Raises:
            DamageError: a file is missing or altered.
            KeyError: there is no such column.
        """
        with self._reading:
            if name not in self._columns:
                self._load([name])
            return self._columns[name]

    def read(self, names: Collection[str]) -> None:
        """Read several columns in advance. The first call computes the digest in parallel with the read.

        Raises:
            DamageError: a file is missing or altered.
            KeyError: there is no such column.
        """
        with self._reading:
            wanted = [name for name in names if name not in self._columns and name not in self._arrays]
            if wanted:
                self._load(wanted)

    def _load(self, names: list[str]) -> None:
        if not self._files:
            read = pa.table({name: pa.array([], pa.string()) for name in names})
        elif len(self._files) == 1:
            read = self._placed(self._files[0].read(names), 0)
        else:
            read = self._joined([self._read_some(file, names) for file in self._files], names)
        self._columns |= {name: read.column(name) for name in names}

    def _read_some(self, file: _File, names: list[str]) -> pa.Table | None:
        """Read these columns of a file, as far as it has them."""
        there = set(file.fields.names)
        some = {name for name in names if name in there}
        some |= {"instruction"} if INSTRUCTIONS in names and INSTRUCTIONS not in there else set()
        return file.read(sorted(some)) if some else None

    def array(self, name: str) -> NDArray[Any]:
        """Returns one column as a NumPy array, and keeps only this form in memory. Equal strings are one object.

        Raises:
            DamageError: a file is missing or altered.
            KeyError: there is no such column.
        """
        with self._reading:
            if name not in self._arrays:
                self._arrays[name] = as_numpy(self.column(name))
                self._columns.pop(name, None)
            return self._arrays[name]

    def rows_of_shard(self, shard: int, stream: str) -> NDArray[np.int64]:
        """Returns start and number of rows of each of the shard's episodes in a stream, ``(episodes, 2)``, in order."""
        first, stop = np.searchsorted(self.array("shard"), [shard, shard + 1])
        return np.stack([self.array(f"{stream}/{name}")[first:stop] for name in ("start", "rows")], axis=1)

    def row(self, index: int) -> dict[str, Any]:
        """Returns all columns of one episode. Reads the episode's row group and keeps the last row group in memory."""
        if "whole" in vars(self):
            return dict(self.whole.slice(index, 1).to_pylist()[0])
        with self._reading:
            first, rows = self._near
            if not first <= index < first + rows.num_rows:
                self._near = self._read_near(index)
                first, rows = self._near
        return dict(rows.slice(index - first, 1).to_pylist()[0])

    def _read_near(self, index: int) -> tuple[int, pa.Table]:
        number = bisect_right(self._parts, index, key=lambda part: part.first_episode) - 1
        first = self._parts[number].first_episode
        within, rows = self._files[number].read_near(index - first)
        if len(self._files) == 1:
            return within, rows
        placed = self._placed(rows, number)
        return first + within, placed if placed.schema.equals(self.fields) else self._joined(
            [placed], self.fields.names
        )

    def _placed(self, table: pa.Table, number: int) -> pa.Table:
        """Count shards and episodes from the dataset's first one, and not from the part's."""
        part = self._parts[number]
        for name, first in (("shard", part.first_shard), ("episode_index", part.first_episode)):
            if first and name in table.column_names:
                place = table.column_names.index(name)
                table = table.set_column(place, table.schema.field(name), pc.add(table[name], first))
        return table

    def _joined(self, tables: list[pa.Table | None], names: list[str]) -> pa.Table:
        """Return these columns of the parts one after the other. ``None`` is a part that has none of them."""
        if len(tables) == len(self._files):
            tables = [None if each is None else self._placed(each, number) for number, each in enumerate(tables)]
        counts = [part.num_episodes if t is None else len(t) for part, t in zip(self._parts, tables, strict=False)]
        fields, columns = [], []
        for name in names:
            field, column = _one_column(name, tables, counts)
            fields.append(field)
            columns.append(column)
        return pa.table(columns, schema=pa.schema(fields))


def _one_column(name: str, tables: list[pa.Table | None], counts: list[int]) -> tuple[pa.Field, pa.ChunkedArray]:
    """Join one column of several tables. A column of metadata may be of other types in them, or in some alone."""
    own: list[Any] = list(tables)
    has = [table is not None and name in table.column_names for table in own]
    fields = [table.schema.field(name) for table, there in zip(own, has, strict=True) if there]
    if not fields:
        raise KeyError(name)
    if name == INSTRUCTIONS:
        lists = [
            chunk if there else pa.array([[text] for text in table["instruction"].to_pylist()], fields[0].type)
            for table, there in zip(own, has, strict=True)
            for chunk in (table[name].chunks if there else [None])
        ]
        return fields[0], pa.chunked_array(lists, fields[0].type)
    if all(field.type == fields[0].type and holds_json(field) == holds_json(fields[0]) for field in fields[1:]):
        chunks = [
            chunk
            for table, there, count in zip(own, has, counts, strict=True)
            for chunk in (table[name].chunks if there else [pa.nulls(count, fields[0].type)])
        ]
        return fields[0], pa.chunked_array(chunks, fields[0].type)
    values: list[Any] = []
    for table, there, count in zip(own, has, counts, strict=True):
        found = table[name].to_pylist() if there else [None] * count
        is_json = there and holds_json(table.schema.field(name))
        values += [json.loads(each) if is_json and each is not None else each for each in found]
    key = name.removeprefix(PREFIX)
    [(field, array)] = metadata_columns([{} if value is None else {key: value} for value in values], ())
    return field.with_name(name), pa.chunked_array([array])


class _File:
    """One Parquet file. Not thread-safe."""

    def __init__(self, path: Path, sha256: str, generation: int, *, stays_open: bool) -> None:
        self._path, self._sha256, self._generation, self._stays_open = path, sha256, generation, stays_open
        self._opened: pq.ParquetFile | None = None
        self._footer: pq.FileMetaData | None = None  # takes longer to read than a column

    def _open(self) -> pq.ParquetFile:
        file = self._opened or pq.ParquetFile(
            parquet_source(self._path), metadata=self._footer, read_dictionary=_FEW_TEXTS
        )
        self._footer = file.metadata
        self._opened = file if self._stays_open else None
        return file

    def read(self, columns: list[str] | None) -> pa.Table:
        """Read columns, by default all as they are. Texts that many episodes share have a dictionary type otherwise."""
        if columns is None:
            return self._checked(lambda: _read(pq.ParquetFile(parquet_source(self._path)), None))
        return self._checked(lambda: _read(self._open(), columns))

    @cached_property
    def fields(self) -> pa.Schema:
        return self._checked(lambda: self._open().schema_arrow)

    def read_near(self, index: int) -> tuple[int, pa.Table]:
        """Returns the first episode of the row group that contains episode ``index``, and the row group."""
        return self._checked(lambda: _read_near(self._open(), index))

    def _checked(self, read: Callable[[], T]) -> T:
        """Returns the result of ``read`` after verifying the digest. The first call hashes while ``read`` runs."""
        try:
            if "_digest" in vars(self):
                require_digest(self._path, self._digest, self._sha256)
                return read()
            with ThreadPoolExecutor(1) as hashing:
                digest = hashing.submit(lambda: self._digest)
                try:
                    return read()
                finally:  # also if the read failed, because the usual reason is an altered file
                    require_digest(self._path, digest.result(), self._sha256)
        except DamageError as error:
            if self._path.exists():
                raise
            raise missing_file(self._path.parent, self._generation, self._path, "no such file", error.cure) from None
        except (OSError, MemoryError, RuntimeError) as error:
            raise_if_stopped(error, self._path)
            raise

    @cached_property
    def _digest(self) -> str:
        return file_sha256(self._path)


def _read(file: pq.ParquetFile, columns: list[str] | None) -> pa.Table:
    for name in columns or ():
        if name not in file.schema_arrow.names:
            raise KeyError(name)
    # With pyarrow's threads, a process that ends soon after a read aborts one time in four (seen with 26.0).
    return file.read(columns=columns, use_threads=False)


def _read_near(file: pq.ParquetFile, index: int) -> tuple[int, pa.Table]:
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    ends = np.cumsum(sizes)
    group = int(np.searchsorted(ends, index, side="right"))
    return int(ends[group]) - sizes[group], file.read_row_group(group, use_threads=False)

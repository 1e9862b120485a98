"""Reads the episodes table a column or a few rows at a time. The file's digest is verified with the first read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlapipe.pipeline.shards.arrow_numpy import as_numpy
from vlapipe.pipeline.shards.format.digest import file_sha256, require_digest
from vlapipe.schemas.errors import is_text
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["EpisodesTable"]

T = TypeVar("T")

_FEW_TEXTS = ["task", "instruction", "split"]  # columns with few distinct texts, read as a dictionary type


class EpisodesTable:
    """The file ``episodes-<digest8>.parquet`` of a dataset. Columns are read at their first use. Thread-safe."""

    def __init__(self, path: Path, sha256: str) -> None:
        self._path, self._sha256 = path, sha256
        self._reading = threading.RLock()  # two simultaneous reads of one ParquetFile may abort the process
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._near: tuple[int, pa.Table] = (0, pa.table({}))  # the row group that was read last, and its first episode

    @cached_property
    def whole(self) -> pa.Table:
        """The table with all columns.

        Raises:
            DamageError: the file is missing or altered.
        """
        with self._reading:
            return self._checked(lambda: _read(pq.ParquetFile(self._source), None))

    @property
    def fields(self) -> pa.Schema:
        """The names and types of all columns.

        Raises:
            DamageError: the file is missing or altered.
        """
        with self._reading:
            return self._checked(lambda: self._file.schema_arrow)

    def column(self, name: str) -> pa.ChunkedArray:
        """Returns one column. Texts that many episodes share have a dictionary type.

        Raises:
            DamageError: the file is missing or altered.
            KeyError: there is no such column.
        """
        with self._reading:
            if name not in self._columns:
                self._load([name])
            return self._columns[name]

    def read(self, names: Collection[str]) -> None:
        """Read several columns in advance. The first call computes the digest in parallel with the read.

        Raises:
            DamageError: the file is missing or altered.
            KeyError: there is no such column.
        """
        with self._reading:
            wanted = [name for name in names if name not in self._columns and name not in self._arrays]
            if wanted:
                self._load(wanted)

    def _load(self, names: list[str]) -> None:
        read = self._checked(lambda: _read(self._file, names))
        self._columns |= {name: read.column(name) for name in names}

    def array(self, name: str) -> NDArray[Any]:
        """Returns one column as a NumPy array, and keeps only this form in memory. Equal strings are one object.

        Raises:
            DamageError: the file is missing or altered.
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
                self._near = self._checked(lambda: _read_near(self._file, index))
                first, rows = self._near
        return dict(rows.slice(index - first, 1).to_pylist()[0])

    @cached_property
    def _file(self) -> pq.ParquetFile:
        return pq.ParquetFile(self._source, read_dictionary=_FEW_TEXTS)

    @property
    def _source(self) -> Path | BinaryIO:
        """The source for pyarrow: the path, or an open file if the path is not valid text."""
        return self._path if is_text(str(self._path)) else self._path.open("rb")

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
    """Returns the first episode of the row group that contains episode ``index``, and the row group."""
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    ends = np.cumsum(sizes)
    group = int(np.searchsorted(ends, index, side="right"))
    return int(ends[group]) - sizes[group], file.read_row_group(group, use_threads=False)

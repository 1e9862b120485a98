"""The list of a dataset's shards: in the manifest of a small dataset, else in tables ``shards-<digest8>.parquet``.

A table has a shard's ``file``, ``bytes``, ``sha256``, ``episodes``, and its ``arrays`` as JSON text; ``stored`` and
``kept`` of a shard whose file has episodes that the dataset has not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlapipe.pipeline.shards.format.digest import damage_or_bug, file_sha256, require_digest
from vlapipe.pipeline.shards.format.parquet import parquet_bytes, parquet_source

__all__ = ["ShardTables", "shard_column", "shards_bytes"]

_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("episodes", pa.int64()),
        ("stored", pa.int64()),
        ("kept", pa.string()),
        ("arrays", pa.string()),
    ]
)
Entry = dict[str, Any]


def shards_bytes(shards: Sequence[Mapping[str, Any]]) -> bytes:
    """Returns the table of these shards as a Parquet file."""
    rows = [{**shard, "arrays": json.dumps(shard["arrays"])} for shard in shards]
    return parquet_bytes(pa.Table.from_pylist(rows, schema=_SCHEMA))


def shard_column(shards: Sequence[Entry], name: str) -> list[Any]:
    """Returns one value a shard, ``None`` where a shard has none. No other column of a table is read."""
    if isinstance(shards, ShardTables):
        return shards.column(name)
    return [shard.get(name) for shard in shards]


class ShardTables(Sequence[Entry]):
    """The entries of all shards of a dataset in parts, in order. Tables are read at their first use.

    Entries are as in the manifest of a small dataset. Of the descriptions of arrays, which are long, only those of the
    part that was read last stay in memory.
    """

    def __init__(self, folder: Path, named: Sequence[Mapping[str, Any]]) -> None:
        """``named`` are the tables' entries in the manifest: file, sha256 and count."""
        self._folder = folder
        self._named = [dict(each) for each in named]
        self._ends = np.cumsum([each["count"] for each in self._named]).tolist()
        self._columns: dict[str, list[Any]] = {}
        self._verified: set[int] = set()
        self._near: tuple[int, list[str]] = (-1, [])

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._ends else 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShardTables) and self._named == other._named

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[ShardTables], tuple[Path, list[Entry]]]:
        return ShardTables, (self._folder, self._named)

    def of_table(self, part: int, names: Sequence[str]) -> list[tuple[Any, ...]]:
        """Returns some values of each shard of one table.

        Raises:
            DamageError: the table is missing or altered.
        """
        return list(zip(*self._read(part, names), strict=True))

    def of_part(self, part: int) -> list[Entry]:
        """Returns the entries of one table. No other one is read.

        Raises:
            DamageError: the table is missing or altered.
        """
        rows = self.of_table(part, _SCHEMA.names)
        entries = [dict(zip(_SCHEMA.names, row, strict=True)) for row in rows]
        return [
            {
                name: json.loads(value) if name == "arrays" else value
                for name, value in each.items()
                if value is not None
            }
            for each in entries
        ]

    def column(self, name: str) -> list[Any]:
        """Returns one value a shard.

        Raises:
            DamageError: a table is missing or altered.
        """
        if name == "arrays":
            return [shard["arrays"] for shard in self]
        if name not in self._columns:
            values: list[Any] = []
            for part in range(len(self._named)):
                values += self._read(part, [name])[0]
            self._columns[name] = values
        return self._columns[name]

    @overload
    def __getitem__(self, shard: int) -> Entry: ...
    @overload
    def __getitem__(self, shard: slice) -> list[Entry]: ...
    def __getitem__(self, shard: int | slice) -> Entry | list[Entry]:
        if isinstance(shard, slice):
            return [self[i] for i in range(*shard.indices(len(self)))]
        index = shard + len(self) if shard < 0 else shard
        if not 0 <= index < len(self):
            raise IndexError(f"shards are numbered from 0 to {len(self) - 1}")
        part = int(np.searchsorted(self._ends, index, side="right"))
        near, texts = self._near
        if near != part:
            (texts,) = self._read(part, ["arrays"])
            self._near = (part, texts)
        first = self._ends[part] - len(texts)
        entry = {name: self.column(name)[index] for name in _SCHEMA.names if name != "arrays"}
        entry = {name: value for name, value in entry.items() if value is not None}
        return {**entry, "arrays": json.loads(texts[index - first])}

    def __iter__(self) -> Iterator[Entry]:
        return (self[i] for i in range(len(self)))

    def _read(self, part: int, names: Sequence[str]) -> list[list[Any]]:
        named = self._named[part]
        path = self._folder / named["file"]
        if part not in self._verified:
            require_digest(path, file_sha256(path), named["sha256"])
            self._verified.add(part)
        with damage_or_bug(path, named["sha256"]):
            table = pq.ParquetFile(parquet_source(path)).read([*names], use_threads=False)
            return [table[name].to_pylist() for name in names]

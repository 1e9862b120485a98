"""Makes the episodes table from the rows of shards' records, some rows at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import pyarrow as pa

from vlapipe.pipeline.build.record import GAPS, INSTRUCTIONS, METADATA, STORED, Record
from vlapipe.pipeline.check.episode_rows import EVIDENCE
from vlapipe.pipeline.shards.manifest.metadata_columns import MetadataKinds, metadata_columns

__all__ = ["TableKinds", "episodes_table"]

_AT_ONCE = 512  # rows that are Python objects at the same time
_SOURCE = pa.struct(
    [("path", pa.string()), ("num_files", pa.int64()), ("num_bytes", pa.int64()), ("sha256", pa.string())]
)
_LISTS = {"sources": pa.list_(_SOURCE), INSTRUCTIONS: pa.list_(pa.string())}
_NO_COLUMNS = (GAPS, METADATA, EVIDENCE, STORED)


class TableKinds:
    """The columns and types of the table of all rows that were added."""

    def __init__(self) -> None:
        self.metadata = MetadataKinds()
        self._schema: pa.Schema | None = None
        self._has_several = False  # instructions of one episode

    def add(self, rows: list[Record], schema: pa.Schema | None = None) -> None:
        """Add rows, one or more. ``schema`` is that of their table without metadata, if it has been made."""
        schema = _plain_table(rows).schema if schema is None else schema
        known = [schema] if self._schema is None else [self._schema, schema]
        self._schema = pa.unify_schemas(known, promote_options="permissive")
        self._has_several = self._has_several or any(len(row[INSTRUCTIONS]) > 1 for row in rows)
        for row in rows:
            self.metadata.add(row[METADATA])

    @property
    def plain(self) -> pa.Schema:
        """The columns that are not metadata, without the number of the episode."""
        assert self._schema is not None
        return pa.schema([each for each in self._schema if each.name != INSTRUCTIONS or self._has_several])

    @classmethod
    def of(cls, rows: Iterable[Record]) -> TableKinds:
        """Look at all rows of a table."""
        found = cls()
        for some in _batches(rows):
            found.add(some)
        return found


def episodes_table(rows: Iterable[Record], kinds: TableKinds | None = None) -> pa.Table:
    """Return the episodes table of these rows, one or more.

    ``kinds`` are those of the whole table if these rows are a part of it.
    """
    tables: list[pa.Table] = []
    metadata: list[Record] = []
    own = TableKinds()
    for some in _batches(rows):
        tables.append(_plain_table(some))
        metadata += [row[METADATA] for row in some]
        if kinds is None:
            own.add(some, tables[-1].schema)
    kinds = kinds or own
    plain = kinds.plain
    table = pa.concat_tables([each.select(plain.names) for each in tables], promote_options="permissive")
    table = pa.concat_tables([plain.empty_table(), table], promote_options="permissive").combine_chunks()
    table = table.add_column(0, "episode_index", pa.array(range(len(metadata)), pa.int64()))
    for field, values in metadata_columns(metadata, table.column_names, kinds.metadata):
        table = table.append_column(field, values)
    return table


def _batches(rows: Iterable[Record]) -> Iterator[list[Record]]:
    rest = iter(rows)
    while some := list(itertools.islice(rest, _AT_ONCE)):
        yield some


def _plain_table(rows: list[Record]) -> pa.Table:
    """Return the table of these rows without the columns of metadata."""
    return pa.table(
        {name: pa.array([row[name] for row in rows], _type_of(name)) for name in rows[0] if name not in _NO_COLUMNS}
    )


def _type_of(column: str) -> pa.DataType | None:
    """Return the type of a column, or ``None`` if Arrow infers it. It infers none from lists that are all empty."""
    if column in _LISTS:
        return _LISTS[column]
    if column.endswith("/gaps"):
        return pa.list_(pa.int32())
    return pa.int32() if column.endswith("/begin") else None

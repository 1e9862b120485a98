"""Joins episodes tables whose metadata columns differ. A column's type is that of all values, as after one ingest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from vlapipe.pipeline.build.record import INSTRUCTIONS
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.manifest.metadata_columns import PREFIX, holds_json, metadata_columns
from vlapipe.schemas.errors import DamageError

__all__ = ["joined", "with_metadata"]


def joined(table: pa.Table, new: pa.Table, dataset: Dataset) -> pa.Table:
    """Return the rows of ``table`` and then those of ``new``, without columns that an older vlapipe did not write."""
    if INSTRUCTIONS in table.column_names or INSTRUCTIONS in new.column_names:
        table, new = _with_instructions(table), _with_instructions(new)
    ours, theirs = _metadata_fields(table, dataset), _metadata_fields(new, dataset)
    own = [name for name in table.column_names if name not in ours]
    missing = set(own) - set(new.column_names)
    if missing:
        raise DamageError(f"{dataset.path}: the new episodes have no {sorted(missing)[0]}", "ingest into a new folder")
    schema = pa.schema([table.schema.field(name) for name in own])
    whole = pa.concat_tables([table.select(own).cast(schema), new.select(own).cast(schema)])
    if ours == theirs:
        each = pa.concat_tables([table.select([*ours]), new.select([*ours])])
        for name in ours:
            whole = whole.append_column(table.schema.field(name), each[name])
        return whole
    rows = [*_metadata_rows(table, ours), *_metadata_rows(new, theirs)]
    for field, values in metadata_columns(rows, whole.column_names):
        whole = whole.append_column(field, values)
    return whole


def with_metadata(table: pa.Table, column: str, values: Mapping[str, Any]) -> pa.Table:
    """Return the table with other values of one metadata column, by episode id. The column may be a new one."""
    fields = {name: table.schema.field(name) for name in table.column_names if name == column}
    rows = _metadata_rows(table, fields)
    key = column.removeprefix(PREFIX)
    for name, row in zip(table["id"].to_pylist(), rows, strict=True):
        if name in values:
            row[key] = values[name]
    [(field, array)] = metadata_columns(rows, ())
    if column in table.column_names:
        return table.set_column(table.column_names.index(column), field, array)
    return table.append_column(field, array)


def _with_instructions(table: pa.Table) -> pa.Table:
    if INSTRUCTIONS in table.column_names:
        return table
    lists = pa.array([[text] for text in table["instruction"].to_pylist()], pa.list_(pa.string()))
    return table.append_column(INSTRUCTIONS, lists)


def _metadata_fields(table: pa.Table, dataset: Dataset) -> dict[str, pa.Field]:
    """Return the columns of metadata; a stream may be called ``metadata`` too."""
    streams = tuple(f"{name}/" for name in dataset.manifest.streams)
    names = [name for name in table.column_names if name.startswith(PREFIX) and not name.startswith(streams)]
    return {name: table.schema.field(name) for name in names}


def _metadata_rows(table: pa.Table, fields: Mapping[str, pa.Field]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{} for _ in range(len(table))]
    for name, field in fields.items():
        is_json = holds_json(field)
        for row, value in zip(rows, table[name].to_pylist(), strict=True):
            if value is not None:
                row[name.removeprefix(PREFIX)] = json.loads(value) if is_json else value
    return rows

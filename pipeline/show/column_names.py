"""Names the columns of a field as its recordings do (``joint_1``), for tables and plots that people read."""

from __future__ import annotations

from vlapipe.pipeline.shards.derive.actions import ACTION_VALUE
from vlapipe.schemas.schema import Schema

__all__ = ["column_names"]


def column_names(schema: Schema, path: str, num_columns: int) -> list[str]:
    """Returns ``num_columns`` names of ``<stream>/<field>`` or ``action/value``; ``path[i]`` where nothing names them.

    A field of one column is named by its path.
    """
    if path == ACTION_VALUE:
        found = [name for part in schema.action.of for name in _of_field(schema, part)]
        found += [constant.name for constant in schema.action.append]
    else:
        found = _of_field(schema, path)
    if num_columns == 1:
        return [path]
    return found if len(found) == num_columns else [f"{path}[{i}]" for i in range(num_columns)]


def _of_field(schema: Schema, path: str) -> list[str]:
    """Returns the names that the schema has for a field's columns; its path for a single column."""
    try:
        field = schema.field(path)
    except (KeyError, ValueError):  # a dataset whose statistics are of a field that its schema lacks
        return []
    in_file = [names[0] for names in field.columns if names]
    return list(field.names) or in_file or [path]

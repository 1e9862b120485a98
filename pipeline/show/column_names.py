"""Names the columns of a field as its recordings do (``joint_1``), for tables and plots that people read."""

from __future__ import annotations

from vlapipe.pipeline.shards.derive.actions import ACTION_VALUE
from vlapipe.schemas.schema import FieldSpec, Schema

__all__ = ["action_names", "column_names", "names_of_numbers"]


def column_names(path: str, field: FieldSpec) -> list[str]:
    """Returns the names of the columns of ``<stream>/<field>``; numbered if the recording names only the field."""
    name = path.partition("/")[2]
    numbered = [name] if field.num_columns == 1 else [f"{name}[{i}]" for i in range(field.num_columns)]
    return list(field.recorded_names) or numbered


def action_names(schema: Schema) -> list[str]:
    """Returns the names of an action's columns: those of the fields that it follows from, and what is appended."""
    names = [name for path in schema.action.of for name in column_names(path, schema.field(path))]
    return names + [constant.name for constant in schema.action.append]


def names_of_numbers(schema: Schema, path: str, count: int) -> list[str]:
    """Returns ``count`` names for the numbers that a dataset has of ``<stream>/<field>`` or ``action/value``.

    A single number has the name of the path: it may be of a wide field as a whole.
    """
    if count == 1:
        return [path]
    try:
        found = action_names(schema) if path == ACTION_VALUE else column_names(path, schema.field(path))
    except (KeyError, ValueError):  # a dataset whose statistics are of a field that its schema lacks
        found = []
    return found if len(found) == count else [f"{path}[{i}]" for i in range(count)]

"""Derives actions from stored fields, and puts them into stride order, in which a strided action chunk is contiguous.

A shard stores only the row that each action looks ahead to. The differences follow from it, and storing them too would
make the shard of a CSV a third larger. Ingest (for statistics) and training both call ``derive_actions``, so there is
only one formula.

Stride order of an episode: rows 0, n, 2n and so on, then rows 1, n+1, 2n+1 and so on, where n is the schema's
``action_stride``. Without stride order, the actions of a chunk of every n-th row are scattered in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.schemas.schema import ActionConstant, ImageStream, Schema

__all__ = [
    "ACTION_ROW",
    "ACTION_STRIDE_ORDER",
    "ACTION_VALUE",
    "action_fields",
    "action_size",
    "derive_actions",
    "in_stride_order",
    "masks_of_action",
    "position_in_stride_order",
    "rows_of_finite_actions",
]

ACTION_ROW = "action/row"  # stored: int32 (rows,), relative to the episode's start, -1 if there is no such row
ACTION_VALUE = "action/value"  # derived: float32 (rows, A), zero where action/row is -1


@np.errstate(over="ignore", invalid="ignore")
def derive_actions(schema: Schema, fields: Mapping[str, NDArray[Any]], rows: NDArray[np.int32]) -> NDArray[np.float32]:
    """Returns one action for each anchor row, ``(rows, A)`` column-major, in the fields' units; zero if ``rows`` is -1.

    An action that follows from a value that is not finite is not finite. Ingest removes such actions with
    ``rows_of_finite_actions``.

    Args:
        schema: the schema. Its ``action`` names the fields, and says whether an action is their change or their value.
        fields: fields of one episode by ``<stream>/<field>``, ``(rows, ...)``; ``action_fields`` lists the names.
        rows: the row that each action looks ahead to, relative to the episode's start.
    """
    spec = schema.action
    valid = rows >= 0
    ahead = np.where(valid, rows, 0)
    columns: list[NDArray[Any]] = []
    for path in spec.of:
        values = fields[path].reshape(len(rows), -1)
        # Work column by column, because fields of a CSV are column-major. Subtract in float64: the difference of two
        # float32 is then rounded only once, to float32.
        now = values.T.astype(np.float64, order="C")
        then = now.take(ahead, axis=1)
        if spec.kind == "delta":
            then -= now
            _wrap(then, schema.field(path).period)
        columns += list(then)
    columns += [_constant(constant, fields, ahead) for constant in spec.append]
    actions = np.empty((len(columns), len(rows)), dtype=np.float32)
    for row, values in zip(actions, columns, strict=True):
        row[:] = values
    actions[:, ~valid] = 0
    return actions.T


def rows_of_finite_actions(
    schema: Schema, fields: Mapping[str, NDArray[Any]], rows: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Returns ``rows`` with -1 also for each action that would not be a finite float32.

    A schema may allow values that are not finite. A row with such an action has no action, like a row at the end of
    the episode.
    """
    finite = np.isfinite(derive_actions(schema, fields, rows)).all(axis=1)
    return np.where(finite, rows, np.int32(-1))


def _wrap(changes: NDArray[np.float64], period: tuple[float, ...]) -> None:
    """Wrap ``changes`` ``(columns, rows)`` in place to plus or minus half a period. A period of 0 means not periodic.

    Period i is for the columns i, i + n, i + 2n and so on, where n is ``len(period)``, because a field's row may have
    more than one dimension.
    """
    for i, length in enumerate(period):
        if length:
            changes[i :: len(period)] -= length * np.rint(changes[i :: len(period)] / length)


def action_fields(schema: Schema) -> list[str]:
    """Returns the fields ``<stream>/<field>`` that actions are derived from, each once."""
    paths = [*schema.action.of, *(constant.field for constant in schema.action.append if constant.field)]
    return list(dict.fromkeys(paths))


def masks_of_action(schema: Schema) -> list[str]:
    """Returns the masks ``<stream>/<field>_is_missing`` of the fields with ``mask`` that hold what was commanded.

    There are none unless the action is what columns hold: a position in between is filled in well enough to move to.
    An optional field that a file lacks is zero in the action, as the schema says.
    """
    streams = {stream.name: stream for stream in schema.streams if not isinstance(stream, ImageStream)}
    derived = {
        f"{name}/{each.name}": f"{name}/{each.of}" for name, stream in streams.items() for each in stream.derived
    }
    found = []
    for path in action_fields(schema) if schema.action.kind == "column" else ():
        spec = schema.field(derived.get(path, path))
        found += [f"{path.partition('/')[0]}/{spec.mask.name}"] if spec.on_missing == "mask" and spec.mask else []
    return found


def _constant(constant: ActionConstant, fields: Mapping[str, NDArray[Any]], ahead: NDArray[Any]) -> NDArray[np.float64]:
    """Returns an appended action column ``(rows,)``.

    The column is a constant, a field's value at the row ahead, or one of two values for the sides of a threshold.
    """
    if constant.field is None:
        return np.full(len(ahead), constant.value)
    values: NDArray[np.float64] = fields[constant.field].reshape(-1)[ahead].astype(np.float64)
    if constant.threshold is None:
        return values
    sides = np.where(values > constant.threshold, constant.value, constant.below)
    return np.where(np.isnan(values), values, sides)


def action_size(schema: Schema) -> int:
    """Returns A, the number of columns of an action."""
    return sum(schema.field(path).num_columns for path in schema.action.of) + len(schema.action.append)


ACTION_STRIDE_ORDER = "action/stride_order"  # action/value with each episode's rows in stride order


def in_stride_order(num_rows: int, step: int) -> NDArray[np.int64]:
    """Returns the rows of an episode in stride order, ``(num_rows,)``, for stride ``step``."""
    rows = np.arange(num_rows)
    return rows[np.argsort(rows % step, kind="stable")]


def position_in_stride_order(row: NDArray[np.int64], num_rows: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """Returns each row's position in the stride order of its episode, which has ``num_rows`` rows."""
    # NumPy divides an array by a scalar fast, but its remainder is slow.
    turn, least = row // step, num_rows // step
    phase = row - turn * step
    # Each phase (rows with the same remainder) has at least ``least`` rows. The first phases have one row more.
    place: NDArray[np.int64] = phase * least + np.minimum(phase, num_rows - least * step) + turn
    return place

"""Derives actions from stored fields, and keeps them in stride order, in which a strided action chunk is contiguous.

A shard stores only the row that each action looks ahead to. To store the differences as well would add a third to the
bytes of a CSV's shard and say nothing new. Ingest (for statistics) and training both call ``derive_actions``, so
there is one formula.

Stride order of an episode: rows 0, n, 2n and so on, then rows 1, n+1, 2n+1 and so on, where n is the schema's
``action_stride``. An action chunk that takes every n-th row would otherwise lie at as many places in memory as it has
actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.schemas.schema import ActionConstant, Schema

__all__ = [
    "ACTION_ROW",
    "ACTION_STRIDE_ORDER",
    "ACTION_VALUE",
    "action_fields",
    "action_size",
    "derive_actions",
    "in_stride_order",
    "position_in_stride_order",
    "rows_of_finite_actions",
]

ACTION_ROW = "action/row"  # stored: int32 (rows,), episode-local, -1 where there is no such row
ACTION_VALUE = "action/value"  # derived: float32 (rows, A), zero where action/row is -1


@np.errstate(over="ignore", invalid="ignore")
def derive_actions(schema: Schema, fields: Mapping[str, NDArray[Any]], rows: NDArray[np.int32]) -> NDArray[np.float32]:
    """Actions ``(rows, A)`` in the fields' units, one for each anchor row; zero where ``rows`` is -1. Column-major.

    One that follows from a value that is not finite is not finite; ingest leaves none (``rows_of_finite_actions``).

    Args:
        schema: its ``action`` says which fields, and whether their change or their value.
        fields: ``<stream>/<field>`` of one episode, ``(rows, ...)``; ``action_fields`` lists those that are read.
        rows: the row each action looks ahead to, local to the episode.
    """
    spec = schema.action
    valid = rows >= 0
    ahead = np.where(valid, rows, 0)
    columns: list[NDArray[Any]] = []
    for path in spec.of:
        values = fields[path].reshape(len(rows), -1)
        # Column by column, as fields of a CSV lie in memory. Subtract in float64: the difference of two float32 is then
        # exact before it is rounded once.
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
    """``rows`` as ``derive_actions`` takes them, -1 also where the action would be no finite float32.

    A schema may let values through that are not finite. There then is no action, as there is none past the end.
    """
    finite = np.isfinite(derive_actions(schema, fields, rows)).all(axis=1)
    return np.where(finite, rows, np.int32(-1))


def _wrap(changes: NDArray[np.float64], period: tuple[float, ...]) -> None:
    """Bring ``(columns, rows)`` into half a period either way, in place; 0 stands for none.

    A period stands for every ``len(period)``-th column, for a field whose rows have several lines of as many columns.
    """
    for i, length in enumerate(period):
        if length:
            changes[i :: len(period)] -= length * np.rint(changes[i :: len(period)] / length)


def action_fields(schema: Schema) -> list[str]:
    """The fields ``<stream>/<field>`` that actions follow from, each once."""
    paths = [*schema.action.of, *(constant.field for constant in schema.action.append if constant.field)]
    return list(dict.fromkeys(paths))


def _constant(constant: ActionConstant, fields: Mapping[str, NDArray[Any]], ahead: NDArray[Any]) -> NDArray[np.float64]:
    """A number, a field's value at the row ahead, or on which side of a threshold that value is, ``(rows,)``."""
    if constant.field is None:
        return np.full(len(ahead), constant.value)
    values: NDArray[np.float64] = fields[constant.field].reshape(-1)[ahead].astype(np.float64)
    if constant.threshold is None:
        return values
    sides = np.where(values > constant.threshold, constant.value, constant.below)
    return np.where(np.isnan(values), values, sides)


def action_size(schema: Schema) -> int:
    """A: how many numbers one action has."""
    return sum(schema.field(path).num_columns for path in schema.action.of) + len(schema.action.append)


ACTION_STRIDE_ORDER = "action/stride_order"  # action/value, each episode's rows in the order of ``in_stride_order``


def in_stride_order(num_rows: int, step: int) -> NDArray[np.int64]:
    """An episode's rows ``(num_rows,)`` in that order."""
    rows = np.arange(num_rows)
    return rows[np.argsort(rows % step, kind="stable")]


def position_in_stride_order(row: NDArray[np.int64], num_rows: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """Where each row of an episode of ``num_rows`` lies in that order."""
    # Division by one number is quick, its remainder is not.
    turn, least = row // step, num_rows // step
    phase = row - turn * step
    # Each phase has that many rows at least, the first ones one more.
    place: NDArray[np.int64] = phase * least + np.minimum(phase, num_rows - least * step) + turn
    return place

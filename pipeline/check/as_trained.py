"""Checks what training makes of a field's numbers: float32, and for absolute actions one number for each angle."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from vlapipe.pipeline.check.episode_rows import FindingsOf, Row, files_of
from vlapipe.pipeline.check.location import add_at_row, column_name
from vlapipe.pipeline.check.values import by_column, missing_of
from vlapipe.pipeline.stream_rows import StreamRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import FieldSpec, ImageStream, Schema

__all__ = ["check_as_trained", "check_sides_of_wrap"]

_TURN = {"deg": 360.0, "rad": 2 * np.pi, "turn": 1.0}
_CROSSES = 0.75  # share of a turn between two rows from which an angle has come round, and has not moved
_OVER = 1.01  # a larger step is a spike, and a larger angle does not come round after a turn
_JUMPS = 0.02  # share of the rows that may move by a quarter of a turn or more
_NEAR = 0.375  # share of a turn beyond which all values of an episode are near the wrap


@np.errstate(over="ignore", invalid="ignore")
def check_as_trained(name: str, rows: StreamRows, schema: Schema, findings: Findings) -> None:
    """Reports values that training cannot use as they are: too fine for float32, or angles that come round.

    Args:
        name: the stream's name.
        rows: the stream; its clock runs forwards.
        schema: says which fields train and how actions are made.
        findings: collects the faults.
    """
    trained = {*schema.sample.state, *schema.action.of, *dict(schema.sample.sensors).values()}
    stream = schema.stream(name)
    assert not isinstance(stream, ImageStream)
    for field in stream.fields:
        if f"{name}/{field.name}" in trained and not field.text:
            _check_float32(rows, field, findings)
    for field in stream.fields:
        if f"{name}/{field.name}" in schema.action.of and _is_plain_angle(field, schema):
            _check_crossing(rows, field, findings)


def _is_plain_angle(field: FieldSpec, schema: Schema) -> bool:
    """Returns whether actions hold the field's angles as they are: neither as changes nor in another form."""
    if schema.action.kind == "delta" or field.quaternion or schema.sample.rotation is not None:
        return False
    return schema.sample.action_form == "absolute" or not any(field.period)


def _check_float32(rows: StreamRows, field: FieldSpec, findings: Findings) -> None:
    """Reports columns in which float32 makes one number of neighbouring rows that differ."""
    stored = rows.fields[field.name]
    if stored.dtype in (np.float32, np.float16) or stored.dtype.itemsize <= 2 or len(stored) < 2:
        return
    values = by_column(stored)
    merged = (values[1:] != values[:-1]) & (values[1:].astype(np.float32) == values[:-1].astype(np.float32))
    for column in np.flatnonzero(merged.any(axis=0)).tolist():
        same = np.flatnonzero(merged[:, column])
        row = int(same[0]) + 1
        add_at_row(
            findings,
            "value.float32",
            rows,
            row,
            column=column_name(rows, field, column),
            expected="numbers that float32, in which training reads them, tells apart",
            found=f"{values[row, column]!s} after {values[row - 1, column]!s}",
            count=len(same),
        )


def _turn(field: FieldSpec, column: int) -> float:
    """Returns the size of a full turn in the stored unit: the declared period, or that of an angle's unit; else 0."""
    if field.period:
        return field.period[column % len(field.period)]
    return _TURN.get(field.unit[column % len(field.unit)], 0.0) if field.unit else 0.0


def _check_crossing(rows: StreamRows, field: FieldSpec, findings: Findings) -> None:
    """Reports columns that come round within the episode."""
    values, missing = by_column(rows.fields[field.name]), missing_of(rows, field)
    for column in range(values.shape[1]):
        turn = _turn(field, column)
        if not turn:
            continue
        angle = values[:, column].astype(np.float64)
        step, within = np.abs(np.diff(angle)), np.abs(angle) < _OVER * turn
        crosses = (step > _CROSSES * turn) & (step < _OVER * turn) & within[1:] & within[:-1]
        moves = ~crosses & (step > (1 - _CROSSES) * turn)
        if missing is not None:
            both = ~(missing[1:, column] | missing[:-1, column])
            crosses, moves = crosses & both, moves & both
        where = np.flatnonzero(crosses)
        if not len(where) or np.count_nonzero(moves) > _JUMPS * len(step):
            continue  # numbers that jump about all the time are no angles in this unit
        row = int(where[0]) + 1
        scale = abs(field.scale[column % len(field.scale)]) if field.scale else 1.0
        add_at_row(
            findings,
            "action.wraps",
            rows,
            row,
            column=column_name(rows, field, column),
            expected="an angle that does not come round, since an absolute action is one number",
            found=f"{values[row - 1, column] / scale:.6g}, then {values[row, column] / scale:.6g}",
            count=len(where),
        )


def check_sides_of_wrap(rows: Sequence[Row], schema: Schema, findings_of: FindingsOf) -> None:
    """Reports angles that lie near the wrap, on one side in some episodes and on the other side in others.

    Args:
        rows: for each episode its row of the episodes table.
        schema: says how actions are made.
        findings_of: returns what collects the findings of an episode, by its number and row.
    """
    fields = {path: schema.field(path) for path in schema.action.of if _is_stored(path, schema)}
    sides = {
        (path, column): _Sides(turn)
        for path, field in fields.items()
        if _is_plain_angle(field, schema)
        for column in range(field.num_columns)
        if (turn := _turn(field, column))
    }
    for number, row in enumerate(rows) if sides else ():
        for (path, column), each in sides.items():
            found = row["statistics"].get(path)
            if found is not None and (each.count or len(found["min"]) == fields[path].num_columns):
                each.add(number, found["min"][column], found["max"][column])
    for (path, column), each in sides.items():
        field = fields[path]
        if not each.above or not each.below or len(each.above) + len(each.below) < each.count:
            continue
        few, many = (each.below, each.above) if len(each.below) < len(each.above) else (each.above, each.below)
        row, other = rows[few[0]], rows[many[0]]
        scale = abs(field.scale[column % len(field.scale)]) if field.scale else 1.0
        here, there = (one["statistics"][path]["mean"][column] / scale for one in (row, other))
        findings_of(few[0], row).add(
            "action.wraps",
            files_of(row)[path.partition("/")[0]],
            column=field.columns[column][0] if len(field.columns) == field.num_columns else field.name,
            expected=f"angles on one side of the wrap, as {there:.6g} in {other['id']}",
            found=f"{here:.6g} on average",
        )


class _Sides:
    """The numbers of the episodes in which an angle lies near the wrap: above on one side, below on the other."""

    def __init__(self, turn: float) -> None:
        self.count = 0
        self.above, self.below = array("q"), array("q")
        self._limit = _NEAR * turn

    def add(self, number: int, low: float, high: float) -> None:
        self.count += 1
        if low > self._limit:
            self.above.append(number)
        if high < -self._limit:
            self.below.append(number)


def _is_stored(path: str, schema: Schema) -> bool:
    stream = schema.stream(path.partition("/")[0])
    return not isinstance(stream, ImageStream) and any(path == f"{stream.name}/{each.name}" for each in stream.fields)

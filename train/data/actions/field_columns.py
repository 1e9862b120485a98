"""Reads the columns of a field as numbers and rotations, and writes them in another representation.

Shape letters: N numbers or angles. Inside, rotations are unit quaternions xyzw (``train.data.actions.rotations``), and
every number is float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor

from vlapipe.pipeline.shards.derive.derived_fields import derived_specs
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.schema import FieldSpec, Rotation, Schema
from vlapipe.schemas.units import conversion_factor
from vlapipe.train.data.actions.rotations import (
    of_6d,
    of_axis_angle,
    of_euler,
    of_quaternion,
    shorter,
    to_6d,
    to_axis_angle,
    to_euler,
)

__all__ = ["ROTATIONS", "Columns", "columns_of", "columns_of_path"]

ROTATIONS: tuple[Rotation, ...] = get_args(Rotation)
_T = TypeVar("_T")
_WIDTHS = {"quaternion": 4, "6d": 6, "axis_angle": 3, "euler": 3}


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Neighbouring columns of one field: numbers, or one rotation.

    ``period``: for numbers, one entry per column; 0 if the column does not repeat. ``unit``: one entry per column, or
    none. ``convention``: of Euler angles.
    """

    kind: Literal["numbers", "quaternion", "euler", "6d"]
    num_columns: int
    period: tuple[float, ...] = ()
    unit: tuple[str, ...] = ()
    convention: str = ""

    @property
    def is_rotation(self) -> bool:
        """Whether the columns are one rotation."""
        return self.kind != "numbers"

    def is_changed_by(self, rotation: Rotation | None) -> bool:
        """Whether these columns look different if they are written as ``rotation``."""
        if rotation == "sin_cos":
            return self.kind == "euler" or any(self.period)
        return rotation is not None and self.is_rotation and rotation != self.kind

    def width(self, rotation: Rotation | None) -> int:
        """Number of columns that these columns have if they are written as ``rotation``; ``None``: as recorded."""
        if not self.is_changed_by(rotation):
            return self.num_columns
        if rotation == "sin_cos":
            return 6 if self.is_rotation else self.num_columns + sum(1 for period in self.period if period)
        return _WIDTHS[rotation or self.kind]

    def read(self, values: Tensor, rotation: Rotation | None) -> Tensor:
        """Returns the numbers ``(..., N)`` or the rotation ``(..., 4)`` of columns that are written as ``rotation``."""
        if not self.is_rotation:
            return self._read_circles(values) if self.is_changed_by(rotation) else values
        kind = rotation if self.is_changed_by(rotation) else self.kind
        if kind == "sin_cos":
            angles = torch.atan2(values[..., 0::2], values[..., 1::2])
            return of_euler(angles, self.convention)
        if kind == "euler":
            return of_euler(values * values.new_tensor(self.to_rad), self.convention)
        if kind == "quaternion":
            return of_quaternion(values)
        return of_6d(values) if kind == "6d" else of_axis_angle(values)

    def write(self, values: Tensor, rotation: Rotation | None) -> Tensor:
        """Returns the columns, written as ``rotation``, of numbers ``(..., N)`` or of a rotation ``(..., 4)``."""
        if not self.is_rotation:
            return self._write_circles(values) if self.is_changed_by(rotation) else values
        kind = rotation if self.is_changed_by(rotation) else self.kind
        if kind == "sin_cos":
            angles = to_euler(values, self.convention)
            return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)
        if kind == "euler":
            return to_euler(values, self.convention) / values.new_tensor(self.to_rad)
        if kind == "quaternion":
            return values if self.kind == "quaternion" else shorter(values)
        return to_6d(values) if kind == "6d" else to_axis_angle(values)

    @property
    def to_rad(self) -> tuple[float, ...]:
        """The factor from the unit of each Euler angle to radians."""
        return tuple(conversion_factor(unit, "rad") for unit in self.unit)

    def _write_circles(self, values: Tensor) -> Tensor:
        out = []
        for column, period in zip(values.unbind(-1), self.period, strict=True):
            angle = column * (2 * math.pi / (period or 1))
            out += [angle.sin(), angle.cos()] if period else [column]
        return torch.stack(out, dim=-1)

    def _read_circles(self, values: Tensor) -> Tensor:
        columns, out = iter(values.unbind(-1)), []
        for period in self.period:
            column = next(columns)
            out.append(torch.atan2(column, next(columns)) * (period / (2 * math.pi)) if period else column)
        return torch.stack(out, dim=-1)


def columns_of(field: FieldSpec) -> list[Columns]:
    """Returns the columns of a field in order.

    Raises:
        UsageError: the field holds Euler angles, and the schema does not say in what unit.
    """
    if field.quaternion:
        return [Columns(kind="quaternion", num_columns=4)]
    total = field.num_columns
    period, unit = _each(field.period, total), _each(field.unit, total)
    if not field.euler:
        return [_numbers(period, unit, 0, total)]
    # Each row of the last dimension ends with three angles.
    row, found = field.shape[-1], list[Columns]()
    for first in range(0, total, row):
        angles = first + row - 3
        if angles > first:
            found.append(_numbers(period, unit, first, angles))
        found.append(Columns(kind="euler", num_columns=3, unit=unit[angles : angles + 3], convention=field.euler))
        try:
            assert len(found[-1].to_rad) == 3, unit
        except (ValueError, AssertionError):
            problem = f"{field.name}: in what unit are its Euler angles?"
            raise UsageError(problem, "say unit = 'deg' or 'rad' in that field of the schema") from None
    return found


def columns_of_path(schema: Schema, path: str) -> list[Columns]:
    """Returns the columns of field ``<stream>/<field>``, which may be derived."""
    return [Columns(kind="6d", num_columns=6)] if path in derived_specs(schema) else columns_of(schema.field(path))


def _numbers(period: tuple[float, ...], unit: tuple[str, ...], first: int, stop: int) -> Columns:
    periods = period[first:stop] or (0.0,) * (stop - first)
    return Columns(kind="numbers", num_columns=stop - first, period=periods, unit=unit[first:stop])


def _each(values: Sequence[_T], count: int) -> tuple[_T, ...]:
    """Returns an entry for each column; a field of several dimensions names only those of its last."""
    return tuple(values[i % len(values)] for i in range(count)) if values else ()

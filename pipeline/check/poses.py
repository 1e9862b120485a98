"""Checks rotations: quaternions must be of length 1, and Euler angles mean little near their singularity."""

from __future__ import annotations

import numpy as np

from vlapipe.pipeline.check.location import add_at_row, column_name
from vlapipe.pipeline.check.values import by_column, missing_of
from vlapipe.pipeline.stream_rows import StreamRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import CsvStream, FieldSpec, NpzStream

__all__ = ["check_poses"]

_MAX_OFF_UNIT = 1e-3  # float32 and six printed digits stay well below it
_NEAR_DEG = 1.0


def check_poses(rows: StreamRows, stream: CsvStream | NpzStream, findings: Findings) -> None:
    """Report what is wrong with the fields that hold rotations."""
    for field in stream.fields:
        if field.quaternion:
            _check_length(rows, field, findings)
        elif field.euler:
            _check_singularity(rows, field, findings)


def _check_length(rows: StreamRows, field: FieldSpec, findings: Findings) -> None:
    """The stored quaternion; where the schema normalizes, only that of no length is left to be found."""
    values = by_column(rows.fields[field.name])
    length = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
    off = np.abs(length - 1) > _MAX_OFF_UNIT
    missing = missing_of(rows, field)
    if missing is not None:
        off &= ~missing.any(axis=1)
    wrong = np.flatnonzero(off)
    if len(wrong):
        row = int(wrong[0])
        add_at_row(
            findings,
            "pose.not_unit",
            rows,
            row,
            column=column_name(rows, field, 0),
            expected=f"a quaternion of length 1 within {_MAX_OFF_UNIT:g}",
            found=f"length {length[row]:.6g}",
            count=len(wrong),
        )


def _check_singularity(rows: StreamRows, field: FieldSpec, findings: Findings) -> None:
    """The outer two angles turn about one axis where the middle one is +-90 degrees, or 0 or 180 for two equal axes."""
    assert field.euler
    proper = field.euler[0] == field.euler[2]
    middle = field.num_columns - 2
    angle = by_column(rows.fields[field.name])[:, middle].astype(np.float64)
    unit = field.unit[middle % len(field.unit)] if field.unit else "deg"
    degrees = np.rad2deg(angle) if unit.startswith("rad") else angle * 360 if unit == "turn" else angle
    distance = np.abs((degrees - (0 if proper else 90) + 90) % 180 - 90)
    close = distance < _NEAR_DEG
    missing = missing_of(rows, field)
    if missing is not None:
        close &= ~missing[:, middle]
    near = np.flatnonzero(close)
    if len(near):
        row = int(near[0])
        add_at_row(
            findings,
            "pose.singular",
            rows,
            row,
            column=column_name(rows, field, middle),
            expected=f"more than {_NEAR_DEG:g} degree from {'0 and 180' if proper else '+-90'}",
            found=f"{degrees[row]:.6g}",
            count=len(near),
        )

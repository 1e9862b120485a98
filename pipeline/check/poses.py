"""Checks rotations: quaternions must have length 1, and Euler angles should stay away from their singularity."""

from __future__ import annotations

import numpy as np

from vlapipe.pipeline.check.location import add_at_row, column_name
from vlapipe.pipeline.check.values import by_column, missing_of
from vlapipe.pipeline.stream_rows import StreamRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ArrayStream, CsvStream, FieldSpec

__all__ = ["check_poses"]

_MAX_OFF_UNIT = 1e-3  # rounding of float32 and of six printed digits stays well below this limit
_NEAR_DEG = 1.0


def check_poses(rows: StreamRows, stream: CsvStream | ArrayStream, findings: Findings) -> None:
    """Reports the faults of the fields that hold rotations."""
    for field in stream.fields:
        if field.quaternion:
            _check_length(rows, field, findings)
        elif field.euler:
            _check_singularity(rows, field, findings)


def _check_length(rows: StreamRows, field: FieldSpec, findings: Findings) -> None:
    """Checks the stored quaternion. If the schema normalizes, only a quaternion of length 0 can fail."""
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
    """Reports gimbal lock: the middle angle is near +-90 degrees, or, if the outer axes are equal, near 0 or 180.

    The two outer angles then turn about one axis.
    """
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

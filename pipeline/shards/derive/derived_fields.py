"""Derives fields from stored fields, row by row. Derived fields are computed on use and never stored in a shard.

Ingest (for statistics) and unpacking (for training) both use ``rotation_6d``, so there is only one formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.schemas.schema import DerivedSpec, FieldSpec, ImageStream, Schema
from vlapipe.schemas.units import conversion_factor

__all__ = ["derive_fields", "derived_specs", "matrix_of_euler", "matrix_of_quaternion", "rotation_6d"]


def derived_specs(schema: Schema) -> dict[str, tuple[str, DerivedSpec]]:
    """Returns for each derived field ``<stream>/<name>`` its stored source field and its specification."""
    return {
        f"{stream.name}/{derived.name}": (f"{stream.name}/{derived.of}", derived)
        for stream in schema.streams
        if not isinstance(stream, ImageStream)
        for derived in stream.derived
    }


def derive_fields(schema: Schema, fields: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Returns every derived field of the schema, ``(rows, 6)``, from stored fields ``(rows, ...)`` of any rows."""
    return {path: rotation_6d(schema.field(of), fields[of]) for path, (of, _) in derived_specs(schema).items()}


@np.errstate(over="ignore", invalid="ignore")
def rotation_6d(field: FieldSpec, values: NDArray[Any]) -> NDArray[np.float32]:
    """Returns the first two columns of each row's rotation matrix, ``(rows, 6)``: ``r00 r10 r20 r01 r11 r21``.

    This is the continuous representation of Zhou et al. 2019, "On the Continuity of Rotation Representations in Neural
    Networks", equation 15 (PyTorch3D uses the first two rows of the matrix instead). A quaternion of zeros, which
    stands for a missing one, gives zeros. A value that is not finite gives results that are not finite.

    Args:
        field: the field's specification: a quaternion, or Euler angles in the last three columns.
        values: the field's values, ``(rows, columns)``. Quaternions are xyzw, as stored.
    """
    if field.quaternion:
        matrix = matrix_of_quaternion(values)
    else:
        assert field.euler is not None, field.name
        to_rad = [conversion_factor(unit, "rad") for unit in field.unit[-3:]]
        matrix = matrix_of_euler(values[..., -3:].astype(np.float64) * to_rad, field.euler)
    # (rows, 3, 2) -> (rows, 2, 3): the three numbers of a matrix column are then adjacent.
    columns = matrix[:, :, :2].transpose(0, 2, 1)
    return columns.reshape(len(values), 6).astype(np.float32)


def matrix_of_quaternion(quaternions: NDArray[Any]) -> NDArray[np.float64]:
    """Returns rotation matrices ``(rows, 3, 3)`` of quaternions xyzw, which need not be normalized.

    A quaternion of zeros gives a matrix of zeros.
    """
    quaternions = quaternions.astype(np.float64)
    length = np.linalg.norm(quaternions, axis=1, keepdims=True)
    x, y, z, w = (quaternions / np.where(length, length, 1)).T
    matrix = np.empty((len(quaternions), 3, 3))
    matrix[:, 0] = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], axis=1)
    matrix[:, 1] = np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], axis=1)
    matrix[:, 2] = np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], axis=1)
    matrix[length[:, 0] == 0] = 0
    return matrix


def matrix_of_euler(angles_rad: NDArray[np.float64], convention: str) -> NDArray[np.float64]:
    """Returns rotation matrices ``(rows, 3, 3)`` of angles ``(rows, 3)``.

    ``XYZ`` rotates about the moving axes, X first: ``Rx @ Ry @ Rz``. ``xyz`` rotates about the fixed axes, x first:
    ``Rz @ Ry @ Rx``.
    """
    first, second, third = (_turn(axis, angles_rad[:, i]) for i, axis in enumerate(convention.upper()))
    return first @ second @ third if convention.isupper() else third @ second @ first


def _turn(axis: str, angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the matrices of right-handed rotations about one axis, ``(rows, 3, 3)``."""
    i = "XYZ".index(axis)
    j, k = (i + 1) % 3, (i + 2) % 3
    matrix = np.zeros((len(angle), 3, 3))
    matrix[:, i, i] = 1
    matrix[:, j, j] = matrix[:, k, k] = np.cos(angle)
    matrix[:, k, j] = np.sin(angle)
    matrix[:, j, k] = -matrix[:, k, j]
    return matrix

"""Converts columns as the file has them to columns as they are stored: units, quaternion order, quaternion length.

Nothing is guessed: columns without a declaration in the schema are not changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.schemas.schema import FieldSpec

__all__ = ["convert", "is_converted"]


def is_converted(field: FieldSpec) -> bool:
    """Returns whether ``convert`` changes this field."""
    return bool(field.scale or field.normalize or field.quaternion == "wxyz")


def convert(columns: Sequence[NDArray[Any]], field: FieldSpec) -> list[NDArray[Any]]:
    """Returns a field's columns as they are stored, float64 if they were calculated. The input arrays are not changed.

    Args:
        columns: one array per column, of equal shapes, as the file has them.
        field: ``scale``, ``quaternion`` and ``normalize`` say what to do.

    Returns:
        The columns; a quaternion has the order ``xyzw``. A quaternion of length 0 (for example, a missing one) cannot
        be normalized and stays as it is.
    """
    converted = list(columns)
    if field.scale:
        converted = [c if s == 1.0 else c * np.float64(s) for c, s in zip(converted, field.scale, strict=True)]
    if field.quaternion == "wxyz":
        w, x, y, z = converted
        converted = [x, y, z, w]
    if field.normalize:
        length = np.sqrt(sum(column.astype(np.float64) ** 2 for column in converted))
        length = np.where(length == 0, 1.0, length)
        converted = [column / length for column in converted]
    return converted

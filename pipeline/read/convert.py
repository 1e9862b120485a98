"""Turns columns as a file has them into columns as they are stored: units, the order of a quaternion, its length.

Nothing is guessed: what is not declared in the schema stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.schemas.schema import FieldSpec

__all__ = ["convert", "is_converted"]


def is_converted(field: FieldSpec) -> bool:
    """Whether ``convert`` changes anything of this field."""
    return bool(field.scale or field.normalize or field.quaternion == "wxyz")


def convert(columns: Sequence[NDArray[Any]], field: FieldSpec) -> list[NDArray[Any]]:
    """A field's columns as they are stored, float64 where they were calculated; the given arrays are not changed.

    Args:
        columns: one array a column, of equal shapes, as the file has them.
        field: ``scale``, ``quaternion`` and ``normalize`` say what to do.

    Returns:
        new columns, ``xyzw`` for a quaternion. One of length 0 (a missing one, say) cannot be normalized and stays.
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

"""Checks an array's values as the file has them, and converts them to the unit and dtype of the schema."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.convert import convert, is_converted
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import FieldSpec

__all__ = ["store_field"]


def store_field(
    values: NDArray[Any], field: FieldSpec, label: str, name: str, findings: Findings
) -> NDArray[Any] | None:
    """Returns the array as it is stored, or ``None`` if the dtype cannot hold the values.

    Args:
        values: ``(rows, ...)`` as the file has them.
        field: the schema's entry for the field.
        label: the file's name in findings.
        name: the array's name in findings.
        findings: collects the faults.
    """
    _check_values(values, field, label, name, findings)
    stored = values
    if is_converted(field):
        columns = [values[..., i] for i in range(values.shape[-1])] if field.shape else [values]
        with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite or too large are reported
            converted = convert(columns, field)
        stored = np.stack(converted, axis=-1) if field.shape else converted[0]
    _check_size(stored, field, label, name, findings)
    return _cast(stored, values, field, label, name, findings)


def _check_size(stored: NDArray[Any], field: FieldSpec, label: str, name: str, findings: Findings) -> None:
    """Reports values of a float64 field that float32 cannot hold: actions, statistics and batches are float32."""
    if field.dtype != "float64" or stored.dtype.kind != "f":
        return
    too_large = np.isfinite(stored) & (np.abs(stored) > np.finfo(np.float32).max)
    if field.range and not is_converted(field):
        too_large &= (stored >= field.range[0]) & (stored <= field.range[1])  # values out of range were reported
    if too_large.any():
        rows = np.flatnonzero(too_large.reshape(len(stored), -1).any(axis=1))
        found = f"more in row {rows[0]}"
        findings.add(
            "npz.out_of_range", label, column=name, expected="what float32 holds", found=found, count=len(rows)
        )


def _check_values(values: NDArray[Any], field: FieldSpec, label: str, name: str, findings: Findings) -> None:
    if not values.size:
        return
    low, high = values.min(), values.max()  # both are NaN if any value is NaN
    if not (np.isfinite(low) and np.isfinite(high)):
        rows = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
        found = f"NaN or infinity in row {rows[0]}"
        findings.add("npz.not_finite", label, column=name, expected="finite numbers", found=found, count=len(rows))
        finite = values[np.isfinite(values)]
        if not finite.size:
            return
        low, high = finite.min(), finite.max()
    if field.range and not (low >= field.range[0] and high <= field.range[1]):
        outside = ((values < field.range[0]) | (values > field.range[1])).reshape(len(values), -1).any(axis=1)
        rows = np.flatnonzero(outside)
        expected = f"values in [{field.range[0]:g}, {field.range[1]:g}]"
        found = f"[{low:g}, {high:g}], first in row {rows[0]}"
        findings.add("npz.out_of_range", label, column=name, expected=expected, found=found, count=len(rows))


def _cast(
    stored: NDArray[Any], values: NDArray[Any], field: FieldSpec, label: str, name: str, findings: Findings
) -> NDArray[Any] | None:
    """Casts to the schema's dtype. Only floats may lose digits, and no value may become infinite."""
    if stored.dtype == field.dtype:
        return stored
    with np.errstate(over="ignore", invalid="ignore"):
        cast = stored.astype(field.dtype)
        back = cast.astype(stored.dtype)
    if cast.dtype.kind == "f":
        too_much = np.isinf(cast) & np.isfinite(stored)
    elif stored.dtype.kind in "iu":  # a round trip would not show it: -1 as uint8 and back is -1 again
        limits = np.iinfo(cast.dtype)
        too_much = (stored < limits.min) | (stored > limits.max)
    else:
        too_much = back != stored
    if too_much.any():
        row = int(np.flatnonzero(too_much.reshape(len(stored), -1).any(axis=1))[0])
        findings.add("npz.dtype", label, column=name, expected=f"what {field.dtype} holds", found=f"more in row {row}")
        return None
    rounded = not np.array_equal(back, stored, equal_nan=stored.dtype.kind == "f")
    if rounded and stored is values:  # converted values are rounded in any case
        findings.add("npz.rounded", label, column=name, expected=field.dtype, found=str(values.dtype))
    return cast

"""What happens with NaN where a field may lack values: rows are dropped, or values are filled and marked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.npz.sources import Source
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import FieldSpec

__all__ = ["fill_missing", "mask_of", "rows_with_values"]


def rows_with_values(sources: Iterable[Source], label: str, findings: Findings) -> NDArray[np.int64] | None:
    """Returns the rows that have all values of the fields with ``on_missing = "drop"``; ``None`` for all rows."""
    drop: Any = None
    for source in sources:
        if source.missing is not None and source.spec.on_missing == "drop":
            rows = source.missing.reshape(len(source.missing), -1).any(axis=1)
            drop = rows if drop is None else drop | rows
    if drop is None:
        return None
    found = f"row {int(np.argmax(drop))} without a value"
    findings.add("npz.rows_dropped", label, found=found, count=int(drop.sum()))
    if drop.all():
        findings.add("npz.length", label, expected="a row that has all its values", found="none")
    return np.flatnonzero(~drop)


def fill_missing(values: NDArray[Any], missing: NDArray[np.bool_]) -> NDArray[Any]:
    """Returns the values where a missing one is the last one before, at the start the first after it, else 0."""
    filled = values.reshape(len(values), -1).copy()
    marks = missing.reshape(len(values), -1)
    for column in np.flatnonzero(marks.any(axis=0)).tolist():
        unset = marks[:, column]
        present = np.flatnonzero(~unset)
        source = np.where(unset, present[0], np.arange(len(values))) if len(present) else None
        filled[:, column] = 0 if source is None else filled[np.maximum.accumulate(source), column]
    return filled.reshape(values.shape)


def mask_of(spec: FieldSpec, missing: NDArray[np.bool_] | None, num_rows: int) -> NDArray[np.uint8]:
    """Returns 1 where a value was missing, in the shape and the order of the stored field."""
    mask = np.zeros((num_rows, *spec.shape), dtype=np.uint8)
    if missing is not None:
        mask[...] = missing[..., [1, 2, 3, 0]] if spec.quaternion == "wxyz" else missing
    return mask

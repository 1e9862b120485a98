"""Checks the values of fields over time: constant columns, stuck sensors, and jumps that are too fast.

Missing values are skipped: they are not a fault, and they do not hide one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.check.clocks import steps_s
from vlapipe.pipeline.check.location import add_at_row, column_name, column_names
from vlapipe.pipeline.shards.derive.gaps import find_gaps
from vlapipe.pipeline.shards.derive.stamps import seconds
from vlapipe.pipeline.stream_rows import StreamRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ArrayStream, CsvStream, FieldSpec

__all__ = ["by_column", "check_values", "missing_of"]

_LEAST_ROWS = 20  # fewer equal rows say nothing


@np.errstate(over="ignore", invalid="ignore")  # the schema may allow values that are not finite
def check_values(rows: StreamRows, stream: CsvStream | ArrayStream, findings: Findings) -> None:
    """Reports the faults of each field's values; the clock must run forwards."""
    for field in stream.fields:
        if field.text:
            continue
        values, missing = by_column(rows.fields[field.name]), missing_of(rows, field)
        _check_constant(values, missing, rows, field, findings)
        if field.stuck_s is not None:
            _check_stuck(values, missing, rows, field, stream.max_gap_s, findings)
        if any(field.max_speed):
            _check_speed(values, missing, rows, field, findings)


def by_column(values: NDArray[Any]) -> NDArray[Any]:
    """Returns a field as ``(rows, columns)``, without a copy."""
    return values.reshape(len(values), -1)


def missing_of(rows: StreamRows, field: FieldSpec) -> NDArray[np.bool_] | None:
    """Returns a mask ``(rows, columns)`` of missing values, or ``None`` if no value can be missing."""
    if field.mask is None or field.mask.name not in rows.fields:
        return None
    return by_column(rows.fields[field.mask.name]).astype(np.bool_)


def _check_constant(
    values: NDArray[Any], missing: NDArray[np.bool_] | None, rows: StreamRows, field: FieldSpec, findings: Findings
) -> None:
    constant = list(_constant_columns(values, missing))
    if constant:
        numbers = [float(values[row, column]) for column, row in constant]
        stored = ", ".join(f"{number:.6g}" for number in numbers[:3]) + (", ..." if len(numbers) > 3 else "")
        names = column_names(rows, field, [column for column, _ in constant])
        found = f"{stored} in each of {len(values)} rows"
        findings.add("value.constant", rows.source.path, column=names, found=found)


def _constant_columns(values: NDArray[Any], missing: NDArray[np.bool_] | None) -> Iterator[tuple[int, int]]:
    """Yields each column that never changes, with a row that has its value."""
    if len(values) < _LEAST_ROWS:
        return
    if missing is not None:
        for column in range(values.shape[1]):
            present = np.flatnonzero(~missing[:, column])
            if len(present) >= _LEAST_ROWS and (values[present, column] == values[present[0], column]).all():
                yield column, int(present[0])
        return
    # Four probed rows rule out almost every column that changes, so that the full comparison is rare.
    probe = values[[0, len(values) // 3, len(values) * 2 // 3, -1]]
    for column in np.flatnonzero((probe == probe[0]).all(axis=0)).tolist():
        if (values[:, column] == values[0, column]).all():
            yield column, 0


def _check_stuck(
    values: NDArray[Any],
    missing: NDArray[np.bool_] | None,
    rows: StreamRows,
    field: FieldSpec,
    max_gap_s: float | None,
    findings: Findings,
) -> None:
    """Reports intervals of one value that last longer than ``stuck_s``; a missing value or a gap ends an interval."""
    assert field.stuck_s is not None
    gaps = find_gaps(rows.timestamp, max_gap_s)
    for column in range(values.shape[1]):
        same = values[1:, column] == values[:-1, column]
        if missing is not None:
            same &= ~(missing[1:, column] | missing[:-1, column])
        same[gaps - 1] = False
        ends = np.append(np.flatnonzero(~same), len(values) - 1)
        starts = np.concatenate([[0], ends[:-1] + 1])
        lasts_s = seconds(rows.timestamp[ends] - rows.timestamp[starts])
        stuck = np.flatnonzero(lasts_s > field.stuck_s)
        if not len(stuck):
            continue
        first = int(starts[stuck[0]])
        add_at_row(
            findings,
            "value.stuck",
            rows,
            first,
            column=column_name(rows, field, column),
            expected=f"another value within {field.stuck_s:g} s",
            found=f"{_in_file(values[first, column], field, column):.6g} for {lasts_s[stuck[0]]:.4g} s",
            count=len(stuck),
        )


def _check_speed(
    values: NDArray[Any], missing: NDArray[np.bool_] | None, rows: StreamRows, field: FieldSpec, findings: Findings
) -> None:
    """Reports changes per second above ``max_speed``, in the file's unit.

    Rows that share a stamp have no speed; the check of the clock reports them.
    """
    steps = steps_s(rows.timestamp)
    for column in range(values.shape[1]):
        limit = field.max_speed[column % len(field.max_speed)]
        if not limit:
            continue
        change = np.abs(np.diff(values[:, column].astype(np.float64)))
        period = field.period[column % len(field.period)] if field.period else 0.0
        if period:
            change %= period
            change = np.minimum(change, period - change)
        change = _in_file(change, field, column)
        fast = change > limit * steps
        fast &= steps > 0
        if missing is not None:
            fast &= ~(missing[1:, column] | missing[:-1, column])
        jumps = np.flatnonzero(fast)
        if not len(jumps):
            continue
        step = int(jumps[0])
        found = f"{change[step] / steps[step]:.6g}, a change by {change[step]:.6g} in {steps[step]:.4g} s"
        add_at_row(
            findings,
            "value.jump",
            rows,
            step + 1,
            column=column_name(rows, field, column),
            expected=f"at most {limit:g} a second",
            found=found,
            count=len(jumps),
        )


def _in_file(value: Any, field: FieldSpec, column: int) -> Any:
    """Returns a stored value, or a difference of stored values, in the file's unit."""
    return value / abs(field.scale[column % len(field.scale)]) if field.scale else value

"""The location (file, line, column) of a stream's row or column, for findings."""

from __future__ import annotations

from collections.abc import Sequence

from vlapipe.pipeline.stream_rows import ClockLocation, ImageRows, Rows, StreamRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import FieldSpec

__all__ = ["add_at_row", "clock_location", "clock_row", "column_name", "column_names"]

_MOST_NAMED = 16  # up to so many columns are listed one by one in a finding


def add_at_row(
    findings: Findings, code: str, rows: StreamRows, row: int, *, column: str, expected: str, found: str, count: int
) -> None:
    """Reports ``count`` values of one column; the first one is in ``row``."""
    line = rows.line_of(row)
    found += "" if line is not None else _numbered(rows, row)
    findings.add(code, rows.source.path, line=line, column=column, expected=expected, found=found, count=count)


def clock_row(rows: Rows, row: int) -> tuple[int | None, str]:
    """Returns the line of a row's stamp and ``""``; or, if the file has no lines, ``None`` and words for the row."""
    line = clock_location(rows).line_of(row)
    return line, "" if line is not None else _numbered(rows, row)


def _numbered(rows: Rows, row: int) -> str:
    return f" in {'image' if isinstance(rows, ImageRows) else 'row'} {row} (counted from 0)"


def clock_location(rows: Rows) -> ClockLocation:
    """Returns the clock's location: the clock's own file if there is one, else the stream's file."""
    if rows.clock_location is not None:
        return rows.clock_location
    if isinstance(rows, ImageRows):
        return ClockLocation(file=rows.source.path)
    return ClockLocation(file=rows.source.path, column=rows.clock_name, line_of=rows.line_of)


def column_name(rows: StreamRows, field: FieldSpec, column: int) -> str:
    """Returns the file's name for a field's column; for an array of several columns, the array's name and a number."""
    names = rows.column_names.get(field.name) or tuple(accepted[0] for accepted in field.columns)
    if len(names) == field.num_columns:
        return names[column]
    name = names[0] if len(names) == 1 else field.name
    return f"{name}[{column}]"


def column_names(rows: StreamRows, field: FieldSpec, columns: Sequence[int]) -> str:
    """Returns the names of several columns. Many columns of one array are written as ranges of their numbers."""
    if len(columns) <= _MOST_NAMED:
        return ", ".join(column_name(rows, field, column) for column in columns)
    ranges: list[tuple[int, int]] = []
    for column in columns:
        if ranges and ranges[-1][1] == column - 1:
            ranges[-1] = (ranges[-1][0], column)
        else:
            ranges.append((column, column))
    spans = ", ".join(f"{first}" if first == last else f"{first}..{last}" for first, last in ranges)
    names = rows.column_names.get(field.name) or tuple(accepted[0] for accepted in field.columns)
    return f"{names[0] if len(names) == 1 else field.name}[{spans}]"

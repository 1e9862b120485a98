"""Where in its file a row or a column of a stream stands, for findings."""

from __future__ import annotations

from collections.abc import Sequence

from vlapipe.pipeline.stream_rows import ClockLocation, ImageRows, Rows, StreamRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import FieldSpec

__all__ = ["add_at_row", "clock_location", "clock_row", "column_name", "column_names"]

_MOST_NAMED = 16  # columns that a finding lists one by one


def add_at_row(
    findings: Findings, code: str, rows: StreamRows, row: int, *, column: str, expected: str, found: str, count: int
) -> None:
    """Report values of one column: the first stands in ``row``, and there are ``count``."""
    line = rows.line_of(row)
    found += "" if line is not None else _numbered(rows, row)
    findings.add(code, rows.source.path, line=line, column=column, expected=expected, found=found, count=count)


def clock_row(rows: Rows, row: int) -> tuple[int | None, str]:
    """The line on which a row's stamp stands, and ``""``; where a file has no lines ``None``, and words for the row."""
    line = clock_location(rows).line_of(row)
    return line, "" if line is not None else _numbered(rows, row)


def _numbered(rows: Rows, row: int) -> str:
    return f" in {'image' if isinstance(rows, ImageRows) else 'row'} {row} (counted from 0)"


def clock_location(rows: Rows) -> ClockLocation:
    """Where the clock stands: in the stream's own file unless it has one to itself."""
    if rows.clock_location is not None:
        return rows.clock_location
    if isinstance(rows, ImageRows):
        return ClockLocation(file=rows.source.path)
    return ClockLocation(file=rows.source.path, column=rows.clock_name, line_of=rows.line_of)


def column_name(rows: StreamRows, field: FieldSpec, column: int) -> str:
    """What the file calls a field's column; an array's name with the column's number where it has several."""
    names = rows.column_names.get(field.name) or tuple(accepted[0] for accepted in field.columns)
    if len(names) == field.num_columns:
        return names[column]
    name = names[0] if len(names) == 1 else field.name
    return f"{name}[{column}]"


def column_names(rows: StreamRows, field: FieldSpec, columns: Sequence[int]) -> str:
    """Names of several columns; of many in one array, ranges of their numbers."""
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

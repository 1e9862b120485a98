"""Walks a CSV file cell by cell to say where it is wrong; slow, and used only on a file that was found faulty."""

from __future__ import annotations

import csv
import io
import math
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from vlapipe.pipeline.readers.clock import parse_stamp
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import CsvStream

if TYPE_CHECKING:
    from vlapipe.pipeline.readers.csv_table import ResolvedColumn

__all__ = ["find_faults"]


def find_faults(
    body: bytes,
    stream: CsvStream,
    columns: list[ResolvedColumn],
    num_columns: int,
    label: str,
    findings: Findings,
) -> None:
    """Report each ragged row and each faulty cell of ``columns`` with its line; ``body`` begins with the header."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        findings.add("csv.encoding", label, line=line, expected="UTF-8 text", found=f"byte {body[error.start]:#x}")
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=stream.dialect.delimiter, strict=True)
    next(reader)
    line = reader.line_num + 1
    try:
        for cells in reader:
            if cells and len(cells) != num_columns:
                expected, found = f"{num_columns} cells", f"{len(cells)}"
                if not text.endswith("\n") and reader.line_num == text.count("\n") + 1:
                    found += " in a last line that ends without a newline, as if the recorder was stopped"
                findings.add("csv.ragged_row", label, line=line, expected=expected, found=found)
            elif cells:
                for column in columns:
                    _check_cell(cells[column.position], column, line, stream, label, findings)
            line = reader.line_num + 1
    except csv.Error as error:
        findings.add("csv.unreadable", label, line=line, found=str(error))


def _check_cell(
    cell: str, column: ResolvedColumn, line: int, stream: CsvStream, label: str, findings: Findings
) -> None:
    def add(code: str, expected: str, found: str) -> None:
        findings.add(code, label, line=line, column=column.name, expected=expected, found=found)

    if not cell.strip():
        add("csv.missing_value", "a number", "an empty cell")
    elif column.is_time:
        time = stream.time
        wanted = f"a time like {time.format!r}" if time.format else "whole " * time.integer + f"{time.unit} as a number"
        try:
            parse_stamp(PurePosixPath(cell.replace("\\", "/")).name if time.format else cell.strip(), time)
        except ValueError:
            add("csv.bad_time", wanted, repr(cell))
    else:
        unit = column.unit or "a number"
        low, high = column.range or (-math.inf, math.inf)
        limits = f"{unit} in [{low:g}, {high:g}]" if column.range else unit
        try:
            value = float(cell)
        except ValueError:
            add("csv.not_a_number", "a number", repr(cell))
            return
        if not math.isfinite(value):
            add("csv.not_finite", limits if column.range else "a finite number", repr(cell))
        elif not low <= value <= high:
            add("csv.out_of_range", limits, repr(cell))
        elif "int" in column.dtype and value != int(value):
            add("csv.not_a_number", "a whole number", repr(cell))

"""The plain interface of the CSV reader: a file or its bytes in; cells as strings, or faults with locations, out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlapipe.pipeline.read.csv.rows import CsvRows, UnreadableError, open_rows
from vlapipe.pipeline.read.text import read_bytes, read_text
from vlapipe.schemas.errors import VlapipeError
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import Dialect

__all__ = ["CsvTable", "TableError", "read_table"]


class TableError(VlapipeError):
    """A file cannot be read as a table for certain; ``findings`` say where and why."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__("")
        self.args = findings

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Returns the faults, each with its code, line and column."""
        return self.args

    def __str__(self) -> str:
        more = f" and {len(self.findings) - 1} more" if len(self.findings) > 1 else ""
        return f"{self.findings[0]}{more}"


@dataclass(frozen=True, kw_only=True)
class CsvTable:
    """A table as printed: ``columns[i]`` holds the cells below ``names[i]`` as strings; names may repeat."""

    names: tuple[str, ...]
    columns: tuple[pa.ChunkedArray, ...]
    lines: NDArray[np.int64]  # the line on which each row begins
    notes: tuple[Finding, ...] = ()

    @property
    def num_rows(self) -> int:
        """Returns the number of rows below the header."""
        return len(self.lines)

    @property
    def table(self) -> pa.Table:
        """Returns the table as a pyarrow table."""
        return pa.Table.from_arrays(list(self.columns), names=list(self.names))

    def rows(self) -> list[list[str]]:
        """Returns the table as a list of rows."""
        return [list(row) for row in zip(*(column.to_pylist() for column in self.columns), strict=True)]


def read_table(source: bytes | str | Path, dialect: Dialect | None = None) -> CsvTable:
    """Reads a CSV file as strings, exactly as printed.

    Args:
        source: a path, or a file's bytes; may be a ZIP or gzip with one table in it.
        dialect: how the text is cut; by default commas, double quotes and a header of one row.

    Raises:
        TableError: the text can be read in more than one way, or in none; each finding has a code and a location.
    """
    dialect = dialect or Dialect()
    label = "table" if isinstance(source, bytes) else str(source)
    findings = Findings()
    raw = source if isinstance(source, bytes) else read_bytes(Path(source), label, findings)
    text = None if raw is None else read_text(raw, dialect.encoding, label, findings)
    rows = None if text is None else open_rows(text, dialect, label, findings)
    table = None if rows is None else _read_cells(rows, dialect, findings)
    if table is None or findings.errors:
        raise TableError(*findings.errors)
    return table


def _read_cells(rows: CsvRows, dialect: Dialect, findings: Findings) -> CsvTable | None:
    names = rows.names[:-1] if dialect.trailing_delimiter else rows.names
    num_blank = sum(not name.strip() for name in names)
    if rows.header_line is not None and num_blank > 1 and 2 * num_blank >= len(names):
        expected, found = (
            "a header that names the columns",
            f"{num_blank} of {len(names)} without a name (see skip_lines)",
        )
        findings.add("csv.missing_column", rows.label, line=rows.header_line, expected=expected, found=found)
        return None
    try:
        if not rows.check_delimiter():
            return None
        parsed = rows.strings(range(len(names)))
        lines = rows.row_lines
    except UnreadableError as error:
        findings.add("csv.unreadable", rows.label, line=rows.header_line, found=str(error))
        return None
    return CsvTable(names=names, columns=tuple(parsed.columns), lines=lines, notes=tuple(findings))

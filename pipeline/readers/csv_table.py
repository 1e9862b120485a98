"""Reads one CSV file into a stream's arrays; pyarrow parses, and only a faulty file is walked again to find the place.

Every value is the correctly rounded number of what is printed, or the file is refused with line and column.
"""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from vlapipe.pipeline.readers.arrays import SourceFile, StreamRows
from vlapipe.pipeline.readers.clock import clock_from_numbers, parse_stamp
from vlapipe.pipeline.readers.csv_faults import find_faults
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import CsvStream, FieldSpec
from vlapipe.schemas.toml_table import did_you_mean

__all__ = ["ResolvedColumn", "read_csv_stream"]

_BOM = b"\xef\xbb\xbf"
_MAX_NAMED = 8  # columns that a note lists by name


@dataclass(frozen=True, kw_only=True)
class ResolvedColumn:
    """A column of the file that the schema asks for: where it stands and what its cells must be."""

    name: str
    position: int
    dtype: str  # a numpy dtype, or "stamp" for formatted time
    range: tuple[float, float] | None = None
    unit: str = ""
    is_time: bool = False


class _Table:
    """The bytes of one CSV file, its header, and the lines of its rows."""

    def __init__(self, raw: bytes, delimiter: str) -> None:
        self.body = raw.removeprefix(_BOM)
        self.delimiter = delimiter
        first, _, _ = self.body.partition(b"\n")
        line = first.decode("utf-8").rstrip("\r")
        self.header = [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]

    @cached_property
    def lines(self) -> list[int]:
        """Line of the file on which each row begins; walks the file, so ask only where a fault has to be placed."""
        text = io.StringIO(self.body.decode("utf-8", errors="replace"), newline="")
        reader = csv.reader(text, delimiter=self.delimiter)
        next(reader)
        lines, before = [], reader.line_num
        for cells in reader:
            if cells:
                lines.append(before + 1)
            before = reader.line_num
        return lines

    def line_of(self, row: int) -> int:
        return self.lines[row]

    def parse(self, columns: list[ResolvedColumn]) -> pa.Table:
        names = [f"{position}" for position in range(len(self.header))]
        types = {f"{c.position}": pa.string() if c.dtype == "stamp" else pa.from_numpy_dtype(c.dtype) for c in columns}
        return pa_csv.read_csv(
            pa.BufferReader(self.body),
            read_options=pa_csv.ReadOptions(use_threads=False, skip_rows=1, column_names=names, block_size=1 << 24),
            parse_options=pa_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=b'"' in self.body),
            convert_options=pa_csv.ConvertOptions(include_columns=list(types), column_types=types, null_values=[]),
        )


def read_csv_stream(path: Path, label: str, stream: CsvStream, findings: Findings) -> StreamRows | None:
    """Read a stream's rows; ``None`` where errors were found.

    Args:
        path: the file.
        label: how findings call it, relative to the dataset.
        stream: what the schema says of it.
        findings: takes what is wrong.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        findings.add("file.unreadable", label, found=error.strerror or str(error))
        return None
    table = _open_table(raw, label, stream, findings)
    columns = _resolve_columns(table, label, stream, findings) if table else None
    if table is None or columns is None:
        return None
    try:
        parsed = table.parse(columns)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        find_faults(table.body, stream, columns, len(table.header), label, findings)
        if not findings.errors:
            findings.add("csv.unreadable", label, found=str(error).splitlines()[0])
        return None
    if parsed.num_rows == 0:
        findings.add("csv.header_only", label, line=1, found="a header and no row")
        return None
    timestamp = _read_clock(table, parsed, columns, label, stream, findings)
    fields = _read_fields(table, parsed, columns, label, stream, findings)
    if timestamp is None or fields is None:
        return None
    digest = hashlib.sha256(raw).hexdigest()
    source = SourceFile(path=label, num_files=1, num_bytes=len(raw), sha256=digest)
    return StreamRows(
        timestamp=timestamp, fields=fields, source=source, line_of=table.line_of, clock_name=columns[0].name
    )


def _open_table(raw: bytes, label: str, stream: CsvStream, findings: Findings) -> _Table | None:
    if not raw.strip():
        findings.add("csv.empty", label, found="an empty file")
        return None
    nul = raw.find(b"\0")
    if nul >= 0:
        line = raw.count(b"\n", 0, nul) + 1
        findings.add("csv.nul_bytes", label, line=line, found=f"{raw.count(0)} NUL bytes")
        return None
    try:
        return _Table(raw, stream.dialect.delimiter)
    except UnicodeDecodeError as error:
        findings.add("csv.encoding", label, line=1, expected="UTF-8 text", found=f"byte {error.object[error.start]:#x}")
        return None


def _resolve_columns(table: _Table, label: str, stream: CsvStream, findings: Findings) -> list[ResolvedColumn] | None:
    """Find each column that the schema asks for in the header: the clock first, then field by field."""
    header = table.header
    for name in sorted({name for name in header if header.count(name) > 1}):
        findings.add("csv.duplicate_column", label, line=1, column=name, found=f"{header.count(name)} columns {name!r}")
    wanted: list[tuple[tuple[str, ...], FieldSpec | None, int]] = [(stream.time.sources, None, 0)]
    wanted += [(names, field, i) for field in stream.fields for i, names in enumerate(field.columns)]
    asked_for = {name for names, _, _ in wanted for name in names} | set(stream.drop)
    unasked = [name for name in header if name not in asked_for]
    columns: list[ResolvedColumn] = []
    for names, field, i in wanted:
        present = [name for name in names if name in header]
        if not present:
            expected = "a column " + " or ".join(repr(n) for n in names)
            near = did_you_mean(names[0], unasked)
            found = f"{len(header)} other columns" + (f"; {near}" if near.startswith("did") else "")
            findings.add("csv.missing_column", label, line=1, column=names[0], expected=expected, found=found)
            continue
        name, position = present[0], header.index(present[0])
        if field is None:
            dtype = "stamp" if stream.time.format else "int64" if stream.time.integer else "float64"
            columns.append(ResolvedColumn(name=name, position=position, dtype=dtype, is_time=True))
        else:
            unit = field.unit[i] if field.unit else ""
            columns.append(
                ResolvedColumn(name=name, position=position, dtype=field.dtype, range=field.range, unit=unit)
            )
    if findings.errors:
        return None
    kept = {column.name for column in columns} | set(stream.drop) | set(stream.time.sources)
    others = [name for name in header if name not in kept]
    if others:
        more = f" and {len(others) - _MAX_NAMED} more" if len(others) > _MAX_NAMED else ""
        findings.add("csv.columns_not_kept", label, line=1, found=", ".join(others[:_MAX_NAMED]) + more + " not kept")
    return columns


def _read_clock(
    table: _Table,
    parsed: pa.Table,
    columns: list[ResolvedColumn],
    label: str,
    stream: CsvStream,
    findings: Findings,
) -> NDArray[Any] | None:
    column = columns[0]
    cells = parsed.column(f"{column.position}")
    try:
        if column.dtype == "stamp":
            # A stamp may stand in a path; the schema describes its last part.
            names = [PurePosixPath(cell.replace("\\", "/")).name for cell in cells.to_pylist()]
            timestamp = np.array([parse_stamp(name, stream.time) for name in names], dtype=np.int64)
        else:
            timestamp = clock_from_numbers(cells.to_numpy(), stream.time)
    except ValueError:
        find_faults(table.body, stream, columns[:1], len(table.header), label, findings)
        return None
    except OverflowError as error:
        findings.add("csv.bad_time", label, column=column.name, found=str(error))
        return None
    if timestamp.dtype == np.float64 and not np.isfinite(timestamp).all():
        find_faults(table.body, stream, columns[:1], len(table.header), label, findings)
        return None
    return timestamp


def _read_fields(
    table: _Table,
    parsed: pa.Table,
    columns: list[ResolvedColumn],
    label: str,
    stream: CsvStream,
    findings: Findings,
) -> dict[str, NDArray[Any]] | None:
    """Fill each field column by column; a value that is not finite or out of range is placed by the fault finder."""
    fields: dict[str, NDArray[Any]] = {}
    remaining = iter(columns[1:])
    clean = True
    for field in stream.fields:
        by_column = np.empty((len(field.columns), parsed.num_rows), dtype=field.dtype)
        for i in range(len(field.columns)):
            values = parsed.column(f"{next(remaining).position}").to_numpy()
            by_column[i] = values
            clean &= _is_clean(values, field)
        fields[field.name] = by_column.T if field.shape else by_column[0]
    if not clean:
        find_faults(table.body, stream, columns, len(table.header), label, findings)
        return None
    return fields


def _is_clean(values: NDArray[Any], field: FieldSpec) -> bool:
    low, high = values.min(), values.max()  # either is NaN if any value is
    if field.range is None:
        return bool(np.isfinite(low) and np.isfinite(high))
    return bool(low >= field.range[0] and high <= field.range[1])

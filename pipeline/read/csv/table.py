"""Reads one CSV file into a stream's arrays. pyarrow parses; only a faulty file is searched again for line and column.

Every value is the correctly rounded value of the printed number, or the file is refused with line and column.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from vlapipe.pipeline.read.csv.cells import Cells
from vlapipe.pipeline.read.csv.clock import clock_dtype, read_clock
from vlapipe.pipeline.read.csv.columns import Column, StreamColumns, find_columns
from vlapipe.pipeline.read.csv.faulty_rows import FaultyRows, all_but, fill_clock
from vlapipe.pipeline.read.csv.fields import build_fields, field_dtype, kept_rows, read_field
from vlapipe.pipeline.read.csv.json_rows import are_json_lines, rows_of_json_lines
from vlapipe.pipeline.read.csv.matched_lines import rows_of_matched_lines
from vlapipe.pipeline.read.csv.rows import CsvRows, UnreadableError, open_rows
from vlapipe.pipeline.read.csv.stated_clock import read_stated_clock
from vlapipe.pipeline.read.text import read_bytes, read_text
from vlapipe.pipeline.stream_rows import SourceFile, StreamRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import CsvStream

__all__ = ["as_plain_table", "read_csv_stream", "read_table_text"]


def read_csv_stream(
    path: Path, label: str, stream: CsvStream, findings: Findings, *, in_parts: bool = False
) -> StreamRows | None:
    """Reads a stream's rows. Returns ``None`` if errors were found.

    If the clock is not in this file (``time.is_elsewhere``), ``timestamp`` holds each row's number in this file,
    counted from 0.

    Args:
        path: the file.
        label: the file's name in findings, relative to the dataset.
        stream: the schema's entry for the stream.
        findings: collects the faults.
        in_parts: the file holds several episodes. Faults of single rows are then told by ``StreamRows.faults``.
    """
    found = findings.fresh()
    rows = _read_file(path, label, stream, FaultyRows.of(stream, in_parts=in_parts), found)
    # Findings are sorted by line, because different steps found them.
    findings.extend(sorted(found, key=lambda finding: finding.line or 0))
    return None if found.errors else rows


def _read_file(path: Path, label: str, stream: CsvStream, faulty: FaultyRows, findings: Findings) -> StreamRows | None:
    raw = read_bytes(path, label, findings)
    text = None if raw is None else read_text(raw, stream.dialect.encoding, label, findings)
    if raw is None or text is None:
        return None
    source = SourceFile(path=label, num_files=1, num_bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())
    return read_table_text(text, source, stream, faulty, findings)


def read_table_text(
    text: bytes, source: SourceFile, stream: CsvStream, faulty: FaultyRows, findings: Findings
) -> StreamRows | None:
    """Reads a stream's rows from the text of a table. Returns ``None`` if errors were found."""
    label, start_ns = source.path, 0
    if stream.time.rate_line is not None or stream.time.start_line is not None:
        stated = read_stated_clock(text, stream.time, stream.dialect, label, findings)
        if stated is None:
            return None
        stream, start_ns = replace(stream, time=stated.time), stated.start_ns
    plain = as_plain_table(text, stream, label, findings)
    if plain is None:
        return None
    text, stream = plain
    rows = open_rows(text, stream.dialect, label, findings, faulty)
    if rows is None:
        return None
    try:
        if not _is_parted(rows, stream):
            return None
        columns = find_columns(rows.names, stream, label, rows.header_line, findings)
        if columns is None:
            return None
        if not rows.has_rows:
            findings.add("csv.header_only", label, line=rows.header_line or 1, found="a header and no row")
            return None
        return _read_rows(rows, columns, stream, source, faulty, findings, start_ns)
    except UnreadableError as error:
        findings.add("csv.unreadable", label, line=rows.header_line, found=str(error))
        return None


def as_plain_table(text: bytes, stream: CsvStream, label: str, findings: Findings) -> tuple[bytes, CsvStream] | None:
    """Returns lines that are no cells between delimiters as a table; any other text as it is."""
    if stream.dialect.row_line is not None:
        made = rows_of_matched_lines(text, stream.dialect, label, findings)
    elif are_json_lines(text):
        made = rows_of_json_lines(text, label, findings, keep_bad=stream.on_bad == "drop")
    else:
        return text, stream
    return None if made is None else (made[0], replace(stream, dialect=made[1]))


def _is_parted(rows: CsvRows, stream: CsvStream) -> bool:
    """Returns whether the cells are separated by the schema's delimiter.

    A wrong delimiter is one clear finding, where missing columns would be many.
    """
    wanted = {name for field in stream.fields for names in field.columns for name in names}
    return rows.names[0].strip() in wanted or rows.check_delimiter()


def _read_rows(
    rows: CsvRows,
    columns: StreamColumns,
    stream: CsvStream,
    source: SourceFile,
    faulty: FaultyRows,
    findings: Findings,
    start_ns: int,
) -> StreamRows | None:
    may_lack = any(spec.on_missing != "refuse" for spec in stream.fields)
    types, dialect = _types(columns, stream), stream.dialect
    cells = Cells(
        rows,
        types,
        stream.missing,
        dialect.decimal,
        findings,
        nulls=may_lack,
        faulty=faulty,
        thousands=dialect.thousands,
    )
    fields = [read_field(cells, spec, columns.fields[spec.name]) for spec in stream.fields]
    with_values = kept_rows(fields, cells, rows, findings)
    if with_values is not None and not len(with_values):
        findings.add("csv.header_only", rows.label, found="no row that has all its values")
        return None
    every = np.arange(cells.num_rows) if with_values is None else with_values
    while True:
        # Faults may come to light one after another, so reading is repeated without the faulty rows until none is new.
        num_faults = len(faulty.faults)
        kept = with_values if not num_faults else all_but(every, faulty.dropped(cells.num_rows))
        good = with_values if not num_faults else all_but(every, faulty.rows(cells.num_rows))
        if good is not None and not len(good):
            for fault in faulty.faults:
                fault.report(findings)
            return None
        cells.findings = findings.fresh()
        timestamp = read_clock(cells, columns, stream.time, good, cells.findings, start_ns)
        arrays = build_fields(fields, kept, cells)
        if len(faulty.faults) == num_faults:
            break
    findings.extend(cells.findings)
    faults = faulty.settle(every if kept is None else kept, findings)
    if timestamp is None or findings.errors:
        return None
    if kept is not None and good is not None and len(good) < len(kept):
        timestamp = kept if stream.time.is_elsewhere else fill_clock(timestamp, good, kept)
    return StreamRows(
        timestamp=timestamp,
        fields=arrays,
        source=source,
        line_of=rows.line_finder(kept),
        clock_name=columns.clock.name if columns.clock else None,
        column_names={spec.name: _names(columns.fields[spec.name], spec.quaternion) for spec in stream.fields},
        faults=faults,
    )


def _names(columns: list[Column], quaternion: str | None) -> tuple[str, ...]:
    """Returns the names of the columns in the file, in stored order."""
    names = [column.name for column in columns]
    return tuple([*names[1:], names[0]] if quaternion == "wxyz" and len(names) == 4 else names)


def _types(columns: StreamColumns, stream: CsvStream) -> dict[int, set[str]]:
    """Returns the dtypes that will be asked for, by column position."""
    types: dict[int, set[str]] = {}

    def ask(column: Column | None, dtype: str) -> None:
        if column is not None and column.position is not None:
            types.setdefault(column.position, set()).add(dtype)

    for column in {columns.clock, columns.plus, *columns.parts}:
        ask(column, clock_dtype(stream.time))
    for spec in stream.fields:
        for column in columns.fields[spec.name]:
            ask(column, field_dtype(spec))
    return types

"""Reads a stream whose rows lie in files of their own, as one table. Each finding names the file that is at fault.

A row is one record of text, or one JSON object. Row ``i`` of the joined table is line ``i + 1`` of its text.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from vlapipe.pipeline.read.clocks.stamps import FarStampsError, clock_from_index, parse_stamp, shift_clock, wanted_stamp
from vlapipe.pipeline.read.csv.faulty_rows import FaultyRows
from vlapipe.pipeline.read.csv.json_rows import cells_of_object, parse_object, table_of_objects
from vlapipe.pipeline.read.csv.lines import CutText, cut_text
from vlapipe.pipeline.read.csv.table import read_table_text
from vlapipe.pipeline.read.text import read_bytes, read_text
from vlapipe.pipeline.stream_rows import SourceFile, StreamRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import WHITESPACE, CsvStream, Dialect, TimeSpec

__all__ = ["read_one_row_files"]

_DIGITS = re.compile(r"\d+")
_ELSEWHERE = TimeSpec(file="the files' names")
_OUTER_NEWLINES = b"\r\n"


@dataclass(frozen=True, kw_only=True)
class _Joined:
    """The rows of all files as one text, the dialect that reads it, and the line of each row in its own file."""

    text: bytes
    dialect: Dialect
    lines: list[int]


def read_one_row_files(root: Path, files: list[str], stream: CsvStream, findings: Findings) -> StreamRows | None:
    """Reads one row from each file, in the order of the numbers in their names. Returns ``None`` if errors were found.

    Without a clock in the rows, the time of a row follows from its file's name. If the clock has a file of its own,
    ``timestamp`` holds each row's number, counted from 0. The arguments are those of ``read_csv_stream``.
    """
    files = sorted(files, key=_order)
    found = findings.fresh()
    digest, num_bytes, raws = hashlib.sha256(), 0, []
    for file in files:
        raw = read_bytes(root / file, file, found)
        if raw is not None:
            digest.update(raw)
            num_bytes += len(raw)
            raws.append(raw)
    joined = None
    if not found.errors:
        join = _join_objects if all(file.lower().endswith(".json") for file in files) else _join_tables
        joined = join(files, raws, stream.dialect, found)
    findings.extend(found)
    if joined is None or found.errors:
        return None
    folder = str(PurePosixPath(files[0]).parent)
    source = SourceFile(path=folder, num_files=len(files), num_bytes=num_bytes, sha256=digest.hexdigest())
    by_name = not (stream.time.sources or stream.time.parts or stream.time.is_elsewhere)
    table = replace(stream, dialect=joined.dialect, time=_ELSEWHERE if by_name else stream.time)
    found = findings.fresh()
    rows = read_table_text(joined.text, source, table, FaultyRows.of(table, in_parts=False), found)
    for finding in found:
        row = finding.line - 1 if finding.line is not None else 0
        whole = finding.line is None or row >= len(files)
        place = folder if whole else files[row]
        findings.extend([replace(finding, file=place, line=None if whole else joined.lines[row])])
    if rows is None or found.errors:
        return None
    if by_name:
        rows = _with_times_of_names(rows, files, stream.time, findings)
    return rows and replace(rows, line_of=lambda _row: None)


def _order(file: str) -> tuple[list[int], str]:
    """Files are ordered by the numbers in their names, so that record_10 comes after record_9."""
    return [int(digits) for digits in _DIGITS.findall(PurePosixPath(file).name)], file


def _join_tables(files: list[str], raws: list[bytes], dialect: Dialect, findings: Findings) -> _Joined | None:
    """Joins files that hold one record of text each, with or without a header above it."""
    names: tuple[str, ...] | None = None
    records, lines = [], []
    for file, raw in zip(files, raws, strict=True):
        text = read_text(raw, dialect.encoding, file, findings)
        text = text if text is None else _as_one_line(text, dialect)
        cut = None if text is None else cut_text(text, dialect, file, findings)
        if cut is None:
            continue
        record = cut.text[cut.start : cut.stop].strip(_OUTER_NEWLINES)
        if not record or b"\n" in record or b"\r" in record:
            num = len(record.splitlines())
            findings.add("csv.one_row", file, line=cut.first_line, expected="one row", found=f"{num}")
            continue
        if names is not None and cut.names != names:
            expected = f"the {len(names)} columns of {PurePosixPath(files[0]).name}"
            others = [name for name in cut.names if name not in names] or [f"{len(cut.names)} columns"]
            findings.add(
                "csv.missing_column", file, line=cut.header_line, expected=expected, found=", ".join(others[:4])
            )
            continue
        names = cut.names
        records.append(_as_written(record, cut))
        lines.append(cut.first_line)
    if names is None or findings.errors:
        return None
    named = names[dialect.index_column : len(names) - dialect.trailing_delimiter]
    plain = replace(
        dialect,
        encoding="utf-8",
        comment="",
        skip_lines=0,
        skip_after_header=0,
        skip_footer=0,
        header_rows=0,
        header_commented=False,
        header_line=None,
        row_kind=None,
        names=(named,),
    )
    return _Joined(text=b"\n".join(records) + b"\n", dialect=plain, lines=lines)


def _as_one_line(text: bytes, dialect: Dialect) -> bytes:
    """Returns a matrix on one line, if the lines together have as many cells as there are names, and no line has."""
    given = [line.strip() for line in text.splitlines() if line.strip()]
    has_quotes = bool(dialect.quote) and dialect.quote.encode() in text
    if len(given) < 2 or has_quotes or dialect.header_rows or dialect.header_line is not None or dialect.comment:
        return text
    between = None if dialect.delimiter in (WHITESPACE, " ") else dialect.delimiter.encode()
    cells = [[cell.strip() for cell in line.split(between)] for line in given]
    if sum(map(len, cells)) not in map(len, dialect.names) or max(map(len, cells)) in map(len, dialect.names):
        return text
    return (between or b" ").join(cell for line in cells for cell in line) + b"\n"


def _as_written(record: bytes, cut: CutText) -> bytes:
    return record if cut.restored is None else record.replace(cut.delimiter, cut.restored)


def _join_objects(files: list[str], raws: list[bytes], _dialect: Dialect, findings: Findings) -> _Joined | None:
    """Joins files that hold one JSON object each. A key that a file lacks is an empty cell."""
    rows: list[dict[str, str]] = []
    for file, raw in zip(files, raws, strict=True):
        try:
            value = parse_object(raw)
        except (ValueError, RecursionError) as error:
            line = error.lineno if isinstance(error, json.JSONDecodeError) else None
            findings.add("csv.one_row", file, line=line, expected="a JSON object", found=f"{error}".split(":")[0])
            continue
        if not isinstance(value, dict):
            findings.add("csv.one_row", file, line=1, expected="a JSON object", found=type(value).__name__)
            continue
        rows.append(cells_of_object(value))
    if findings.errors:
        return None
    text, dialect = table_of_objects(rows)
    return _Joined(text=text, dialect=dialect, lines=[1] * len(rows))


def _with_times_of_names(rows: StreamRows, files: list[str], time: TimeSpec, findings: Findings) -> StreamRows | None:
    """Replaces the row numbers by the times in the files' names, or by the numbers in them divided by the rate."""
    kept = [files[row] for row in rows.timestamp.tolist()]
    stamps = []
    for file in kept:
        try:
            stamps.append(_stamp(PurePosixPath(file), time))
        except FarStampsError as error:
            findings.add("clock.unit", file, expected=wanted_stamp(time), found=str(error))
        except (ValueError, OverflowError):
            where = f" where {time.pattern!r} finds it" if time.pattern else ""
            findings.add("csv.bad_time", file, expected=f"{wanted_stamp(time)} in the name{where}", found=file)
    if len(stamps) < len(kept):
        return None
    try:
        if time.index_rate_hz is not None:
            clock = clock_from_index(np.array(stamps, dtype=np.int64), time.index_rate_hz)
        else:
            clock = np.array(stamps, dtype=time.dtype)
        return replace(rows, timestamp=shift_clock(clock, time))
    except (FarStampsError, OverflowError) as error:
        findings.add("csv.bad_time", rows.source.path, expected=wanted_stamp(time), found=str(error))
        return None


def _stamp(file: PurePosixPath, time: TimeSpec) -> int | float:
    text = file.stem
    if time.pattern is not None:
        match = re.search(time.pattern, file.name)
        if match is None or match[1] is None:
            raise ValueError(file.name)
        text = match[1]
    if time.index_rate_hz is None:
        return parse_stamp(text, time)
    numbers = _DIGITS.findall(text)
    if not numbers:
        raise ValueError(text)
    return int(numbers[-1])

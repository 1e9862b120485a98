"""Reads a clock that has a file of its own: an NPY, a JSON list, a text with a stamp per line, a column of a table.

``TimeSpec`` says how stamps are kept. A cell that is not a stamp is refused with its line.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.clocks.stamps import (
    FarStampsError,
    clock_from_index,
    clock_from_numbers,
    parse_stamp,
    shift_clock,
    start_of_file,
    wanted_stamp,
)
from vlapipe.pipeline.read.containers.arrays import load_array
from vlapipe.pipeline.read.csv.json_rows import are_json_lines, rows_of_json_lines
from vlapipe.pipeline.read.csv.text import CsvTable, TableError, read_table
from vlapipe.pipeline.read.text import read_bytes, read_text
from vlapipe.pipeline.stream_rows import ClockLocation
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import NANOSECONDS, WHITESPACE, Dialect, TimeSpec
from vlapipe.schemas.toml_table import did_you_mean

__all__ = ["ClockFile", "clock_of_array", "clock_of_stamps", "read_clock_file", "refuse_far", "shift_by_name"]

_WHOLE = re.compile(r"[+-]?\d+\Z")
_NUMBER_BEGINS = re.compile(r"[+-]?\.?\d")


@dataclass(frozen=True, kw_only=True)
class ClockFile:
    """Stamps in the file's order, each stamp's image name if the table has names, and the location of the stamps."""

    timestamp: NDArray[Any]
    names: tuple[str, ...] | None
    place: ClockLocation

    def fits(self, num_rows: int, what: str, findings: Findings) -> bool:
        """Returns whether there is one stamp for each of ``num_rows`` rows; findings call the stream ``what``."""
        if len(self.timestamp) == num_rows:
            return True
        expected = f"{num_rows} stamps, one a row of {what}"
        findings.add("clock.count", self.place.file, expected=expected, found=f"{len(self.timestamp)}")
        return False


def read_clock_file(path: Path, label: str, time: TimeSpec, findings: Findings) -> ClockFile | None:
    """Reads a clock's file. Returns ``None`` if errors were found.

    Args:
        path: the file.
        label: the file's name in findings, relative to the dataset.
        time: how stamps are written in the file; ``offset_s`` and ``start_format`` are applied.
        findings: collects the faults.
    """
    raw = read_bytes(path, label, findings)
    if raw is None:
        return None
    if label.endswith(".npy"):
        return _read_npy(raw, label, time, findings)
    text = read_text(raw, "utf-8", label, findings)
    if text is not None and label.lower().endswith(".json"):
        return _read_json(text, label, time, findings)
    return None if text is None else _read_table_of_text(text, label, time, findings)


def _read_json(text: bytes, label: str, time: TimeSpec, findings: Findings) -> ClockFile | None:
    """Reads a JSON list of stamps, or the list that a JSON object has under the clock's name or alone."""
    try:
        value = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else None
        findings.add("csv.bad_time", label, line=line, expected="a JSON list of stamps", found=f"{error}")
        return None
    if isinstance(value, dict):
        lists = {key: item for key, item in value.items() if isinstance(item, list)}
        named = [key for key in time.sources if key in lists]
        value = lists[named[0]] if named else next(iter(lists.values())) if len(lists) == 1 else None
    if not isinstance(value, list) or not value or not all(isinstance(stamp, str) for stamp in value):
        findings.add("csv.bad_time", label, expected="a JSON list of stamps", found="something else")
        return None
    lines = "\n".join(" ".join(stamp.split()) for stamp in value).encode()
    found = findings.fresh()
    clock = _read_table_of_text(lines, label, replace(time, sources=(), name_column=None), found)
    findings.extend(replace(finding, line=None) for finding in found)  # the list's lines are not those of the file
    return None if clock is None else replace(clock, place=ClockLocation(file=label))


def _read_table_of_text(text: bytes, label: str, time: TimeSpec, findings: Findings) -> ClockFile | None:
    table = _read_text_table(text, label, time, findings)
    if table is None:
        return None
    columns = _find_columns(table, label, time, findings)
    if columns is None:
        return None
    at, name_at, plus_at = columns
    stamps = _parse_cells(table, at, plus_at, label, time, findings)
    timestamp = None if stamps is None else _finish(stamps, label, time, findings)
    if timestamp is None:
        return None
    names = None if name_at is None else tuple(cell.strip() for cell in table.columns[name_at].to_pylist())
    lines = table.lines
    place = ClockLocation(file=label, column=table.names[at], line_of=lambda row: int(lines[row]))
    return ClockFile(timestamp=timestamp, names=names, place=place)


def clock_of_array(
    stamps: NDArray[Any], label: str, name: str, time: TimeSpec, findings: Findings
) -> NDArray[Any] | None:
    """Converts a numeric array to a clock, int64 nanoseconds or float64 seconds; ``None`` if there was an error."""
    if stamps.ndim != 1 or not len(stamps):
        expected = "shape (rows,), one row or more"
        findings.add("npz.shape", label, column=name, expected=expected, found=f"{stamps.shape}")
        return None
    # float32 and smaller types cannot tell the stamps of two rows apart.
    if stamps.dtype.kind not in "iuf" or (stamps.dtype.kind == "f" and stamps.dtype.itemsize < 8):
        expected = "float64 or integer stamps"
        findings.add("npz.dtype", label, column=name, expected=expected, found=str(stamps.dtype))
        return None
    if stamps.dtype.kind == "f" and not np.isfinite(stamps).all():
        rows = np.flatnonzero(~np.isfinite(stamps))
        found = f"{stamps[rows[0]]} in row {rows[0]}"
        findings.add("npz.bad_time", label, column=name, expected="a time", found=found, count=len(rows))
        return None
    try:
        if not time.index_rate_hz:
            return shift_by_name(clock_from_numbers(stamps, time), label, time)
        whole = stamps.astype(np.int64)
        if not np.array_equal(whole, stamps):
            raise ValueError("not whole numbers")
        return shift_by_name(clock_from_index(whole, time.index_rate_hz), label, time)
    except FarStampsError as error:
        refuse_far(error, label, time, findings, column=name)
        return None
    except (ValueError, OverflowError) as error:
        findings.add("npz.bad_time", label, column=name, expected=wanted_stamp(time), found=str(error))
        return None


def refuse_far(
    error: FarStampsError,
    label: str,
    time: TimeSpec,
    findings: Findings,
    *,
    column: str | None = None,
    line_of: Callable[[int], int | None] | None = None,
) -> None:
    """Adds one finding for all stamps of a file that are in another unit; ``line_of`` returns the line of a row."""
    far = np.flatnonzero(error.rows)
    row = int(far[0]) if len(far) else 0
    line = None if line_of is None else line_of(row)
    where = "" if line is not None or not len(error.rows) else f" (row {row})"
    findings.add(
        "clock.unit",
        label,
        line=line,
        column=column,
        expected=wanted_stamp(time),
        found=f"{error}{where}",
        count=max(1, len(far)),
    )


def clock_of_stamps(stamps: list[int | float], label: str, time: TimeSpec) -> NDArray[Any]:
    """Makes a clock of stamps from ``parse_stamp``, or of whole numbers that are divided by the rate.

    Raises:
        OverflowError: a stamp does not fit 64 bits.
        ValueError: the file's name does not have the form ``start_format``; the message says so.
    """
    whole = all(isinstance(stamp, int) for stamp in stamps)
    clock = np.array(stamps, dtype=np.int64 if whole else np.float64)
    if time.index_rate_hz:
        clock = clock_from_index(clock.astype(np.int64), time.index_rate_hz)
    return shift_by_name(clock, label, time)


def shift_by_name(timestamp: NDArray[Any], label: str, time: TimeSpec) -> NDArray[Any]:
    """Returns the clock plus ``offset_s`` and plus the time in the file's name.

    Raises:
        OverflowError: a stamp does not fit 64 bits.
        ValueError: the file's name does not have the form ``start_format``; the message says so.
    """
    try:
        start_ns = start_of_file(label, time) if time.start_format else 0
    except ValueError as error:
        raise ValueError(f"a file called {error}, not like {time.start_format!r}") from None
    return shift_clock(timestamp, time, start_ns)


def _read_npy(raw: bytes, label: str, time: TimeSpec, findings: Findings) -> ClockFile | None:
    name = PurePosixPath(label).stem
    if time.format or time.exact or time.plus:
        found = "an array of numbers, which has no format, exact or plus"
        findings.add("npz.bad_time", label, column=name, expected="stamps as text", found=found)
        return None
    stamps = load_array(lambda: np.lib.format.read_array(io.BytesIO(raw), allow_pickle=False), label, name, findings)
    timestamp = None if stamps is None else clock_of_array(stamps, label, name, time, findings)
    if timestamp is None:
        return None
    return ClockFile(timestamp=timestamp, names=None, place=ClockLocation(file=label))


def _read_text_table(text: bytes, label: str, time: TimeSpec, findings: Findings) -> CsvTable | None:
    """Returns the cells as strings. The first row decides on the delimiter and on whether there is a header."""
    if are_json_lines(text):
        made = rows_of_json_lines(text, label, findings)
        return None if made is None else read_table(*made)
    lines = text.decode("utf-8").splitlines()
    rows = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not rows:
        findings.add("csv.header_only", label, found="no row")
        return None
    delimiter = next((character for character in ",;\t" if character in rows[0]), WHITESPACE)
    if delimiter == WHITESPACE and not time.sources and time.format:
        delimiter = "\x1f"  # with a format, a stamp may contain blanks, and the stamp is the whole line
    cells = [cell.strip() for cell in (rows[0].split() if delimiter == WHITESPACE else rows[0].split(delimiter))]
    before = lines[: lines.index(rows[0])]
    if _is_header(cells, time):
        dialect = Dialect(delimiter=delimiter, comment="#")
    elif time.sources and any(line.lstrip().startswith("#") for line in before):
        dialect = Dialect(delimiter=delimiter, comment="#", header_commented=True)
    else:
        names = tuple(f"column {i + 1}" for i in range(len(cells)))
        dialect = Dialect(delimiter=delimiter, comment="#", header_rows=0, names=(names,))
    try:
        table = read_table(text, dialect)
    except TableError as error:
        findings.extend(replace(finding, file=label) for finding in error.findings)
        return None
    if not table.num_rows:
        findings.add("csv.header_only", label, line=1, found="a header and no row")
        return None
    return table


def _is_header(cells: list[str], time: TimeSpec) -> bool:
    """Returns whether the first row is a header.

    A header holds the clock's name. If the clock has no name, a header's first cell is neither a stamp nor a number.
    """
    if time.sources:
        return any(name in cells for name in time.sources)
    try:
        parse_stamp(cells[0], time)
    except FarStampsError:
        return False
    except ValueError:
        return not _NUMBER_BEGINS.match(cells[0])
    return False


def _find_columns(
    table: CsvTable, label: str, time: TimeSpec, findings: Findings
) -> tuple[int, int | None, int | None] | None:
    """Returns the positions of three columns: the stamps, the images' names, and the ``plus`` column."""
    at = _find(table, time.sources, label, findings) if time.sources else 0
    name_at = _find(table, (time.name_column,), label, findings) if time.name_column else None
    plus_at = _find(table, (time.plus,), label, findings) if time.plus else None
    if at is None or (time.name_column and name_at is None) or (time.plus and plus_at is None):
        return None
    return at, name_at, plus_at


def _find(table: CsvTable, names: tuple[str, ...], label: str, findings: Findings) -> int | None:
    for name in names:
        if table.names.count(name) == 1:
            return table.names.index(name)
        if name in table.names:
            findings.add("csv.duplicate_column", label, column=name, found=f"{table.names.count(name)} columns")
            return None
    expected = "a column " + " or ".join(repr(name) for name in names)
    near = did_you_mean(names[0], table.names)
    findings.add("csv.missing_column", label, column=names[0], expected=expected, found=f"other columns; {near}")
    return None


def _parse_cells(
    table: CsvTable, at: int, plus_at: int | None, label: str, time: TimeSpec, findings: Findings
) -> list[int | float] | None:
    """Returns the stamp of each cell. Cells without a stamp are counted; the first one is reported with its line."""
    stamps: list[int | float] = []
    far: list[tuple[int, FarStampsError]] = []
    added = table.columns[plus_at].to_pylist() if plus_at is not None else None
    for row, cell in enumerate(table.columns[at].to_pylist()):
        text = cell.strip()
        try:
            if time.index_rate_hz:
                stamps.append(_whole(text))
                continue
            if added is not None and time.format:  # for example, a date and a time
                text = f"{text} {added[row].strip()}"
            stamp = parse_stamp(text, time)
            if added is not None and not time.format:
                text = added[row].strip()
                plus = _whole(text) * NANOSECONDS[time.plus_unit]
                stamp = stamp + plus if isinstance(stamp, int) else stamp + plus / 1e9
            stamps.append(stamp)
        except FarStampsError as error:
            far.append((row, error))
        except ValueError:
            line, name = int(table.lines[row]), table.names[at]
            findings.add("csv.bad_time", label, line=line, column=name, expected=wanted_stamp(time), found=repr(text))
    if far:
        rows = np.zeros(table.num_rows, dtype=np.bool_)
        rows[[row for row, _ in far]] = True
        lines = table.lines
        refuse_far(
            far[0][1].at(rows), label, time, findings, column=table.names[at], line_of=lambda row: int(lines[row])
        )
    return stamps if len(stamps) == table.num_rows else None


def _whole(text: str) -> int:
    if not _WHOLE.match(text):
        raise ValueError(text)
    return int(text)


def _finish(stamps: list[int | float], label: str, time: TimeSpec, findings: Findings) -> NDArray[Any] | None:
    try:
        return clock_of_stamps(stamps, label, time)
    except FarStampsError as error:
        refuse_far(error, label, time, findings)
        return None
    except (ValueError, OverflowError) as error:
        findings.add("csv.bad_time", label, expected=wanted_stamp(time), found=str(error))
        return None

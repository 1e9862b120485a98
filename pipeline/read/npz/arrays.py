"""Reads the arrays of containers into a stream's rows. A cast that rounds recorded values is reported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.discover.discovery import MetadataSays
from vlapipe.pipeline.read.clock_file import ClockFile, clock_of_array, shift_by_name
from vlapipe.pipeline.read.clocks.stamps import clock_from_index
from vlapipe.pipeline.read.containers.arrays import ArrayFiles, Part
from vlapipe.pipeline.read.containers.container import open_container
from vlapipe.pipeline.read.metadata_says import check_against_metadata, with_task_texts
from vlapipe.pipeline.read.npz.fields import store_field
from vlapipe.pipeline.read.npz.windows import expand_clock, new_rows
from vlapipe.pipeline.shards.derive.stamps import seconds
from vlapipe.pipeline.stream_rows import ClockLocation, StreamRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ArrayStream, FieldSpec

__all__ = ["read_array_stream"]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The source of a field: its own array ``(rows, ...)``, or windows ``(N, W, columns)`` that hold the field."""

    spec: FieldSpec
    array: str
    values: NDArray[Any]
    in_windows: bool


@dataclass(frozen=True, kw_only=True)
class _Stamps:
    """The stamps of rows, or of windows; ``timestamp`` is ``None`` if the clock only counts rows."""

    timestamp: NDArray[Any] | None
    place: ClockLocation


def read_array_stream(
    root: Path,
    files: list[str],
    stream: ArrayStream,
    findings: Findings,
    clock: ClockFile | None = None,
    *,
    group: str | None = None,
    part: Part | None = None,
    says: MetadataSays | None = None,
) -> StreamRows | None:
    """Reads a stream's rows. Returns ``None`` if errors were found.

    Args:
        root: the dataset's folder.
        files: the path of one container, or of NPY files, relative to ``root``.
        stream: the schema's entry for the stream.
        findings: collects the faults.
        clock: the stream's stamps, if they have a file of their own.
        group: the episode's group in the container.
        part: the episode's rows in the container.
        says: what the dataset's own metadata says about the rows, which are compared with it.
    """
    found = findings.fresh()
    base = stream.topic if stream.topic is not None else group
    with open_container(root, files, found, kind=stream.kind, base=base, part=part) as opened:
        if opened is not None and says is not None:
            check_against_metadata(opened, says, found)
            opened = with_task_texts(opened, says)
        rows = None if opened is None else _read(opened, stream, found, clock)
    findings.extend(found)
    return None if found.errors else rows


def _read(files: ArrayFiles, stream: ArrayStream, findings: Findings, clock: ClockFile | None) -> StreamRows | None:
    stamps = _read_stamps(files, stream, findings, clock)
    sources = [_find_source(files, spec, findings) for spec in stream.fields]
    found = [source for source in sources if source is not None]
    if stamps is None or len(found) < len(sources):
        for source in found:  # so that faults of their values are reported too
            _store(files, source, source.values, findings)
        return None
    windows = [source for source in found if source.in_windows]
    if windows:
        laid = _lay_out(files, windows, stamps, stream, findings)
        if laid is None:
            return None
        stamps, rows = laid
        values = {s.spec.name: _take_rows(s, rows) if s.in_windows else s.values for s in found}
    else:
        values = {source.spec.name: source.values for source in found}
    fields = {source.spec.name: _store(files, source, values[source.spec.name], findings) for source in found}
    timestamp = stamps.timestamp
    if timestamp is None:
        timestamp = _count_rows(len(next(iter(values.values()))), files.label, stream, findings)
    if timestamp is None or not _check_lengths(timestamp, found, values, files, stamps.place, findings):
        return None
    has_own_file = clock is not None
    return StreamRows(
        timestamp=timestamp,
        fields={name: array for name, array in fields.items() if array is not None},
        source=files.source,
        clock_name=stamps.place.column,
        column_names={source.spec.name: (source.array,) for source in found},
        clock_location=stamps.place if has_own_file else None,
    )


def _read_stamps(files: ArrayFiles, stream: ArrayStream, findings: Findings, clock: ClockFile | None) -> _Stamps | None:
    time = stream.time
    if clock is not None:
        return _Stamps(timestamp=clock.timestamp, place=clock.place)
    if time.file is not None:
        return None  # the clock's file could not be read, which was reported
    if not time.sources:
        return _Stamps(timestamp=None, place=ClockLocation(file=files.label))
    name = files.find(time.sources, findings)
    array = files.load(name, findings) if name is not None else None
    if name is None or array is None:
        return None
    label = files.file_of(name)
    timestamp = clock_of_array(array, label, name, time, findings)
    return None if timestamp is None else _Stamps(timestamp=timestamp, place=ClockLocation(file=label, column=name))


def _count_rows(num_rows: int, label: str, stream: ArrayStream, findings: Findings) -> NDArray[Any] | None:
    if stream.time.rows_of is not None:
        return np.arange(num_rows)  # until the stream that it names has been read
    assert stream.time.index_rate_hz
    try:
        return shift_by_name(clock_from_index(np.arange(num_rows), stream.time.index_rate_hz), label, stream.time)
    except (ValueError, OverflowError) as error:
        findings.add("npz.bad_time", label, expected="a clock that begins at the file's time", found=str(error))
        return None


def _find_source(files: ArrayFiles, spec: FieldSpec, findings: Findings) -> _Source | None:
    """Returns the field's own array, or the windows that hold the field, if the shape fits the schema."""
    window, first, stop = spec.window or (None, 0, 0)
    name = files.find(spec.columns[0], findings, or_else=window)
    values = files.load(name, findings) if name is not None else None
    if name is None or values is None:
        return None
    in_windows = name == window and name not in spec.columns[0]
    if in_windows:
        values = values[..., None] if values.ndim == 2 else values
        fits = values.ndim == 3 and values.shape[2] >= stop and values.shape[1] > 0 and stop - first == spec.num_columns
        expected = f"shape (windows, rows, {stop} or more), {spec.num_columns} of them for {spec.name}"
    else:
        fits = values.ndim > 0 and values.shape[1:] == spec.shape
        expected = f"shape (rows{''.join(f', {length}' for length in spec.shape)})"
    if not fits:
        findings.add("npz.shape", files.file_of(name), column=name, expected=expected, found=f"{values.shape}")
        return None
    return _Source(spec=spec, array=name, values=values, in_windows=in_windows)


def _lay_out(
    files: ArrayFiles, sources: list[_Source], stamps: _Stamps, stream: ArrayStream, findings: Findings
) -> tuple[_Stamps, NDArray[np.int64]] | None:
    """Returns a stamp for each row that is new in its window, and the positions of these rows in all windows."""
    by_array = {source.array: source.values for source in sources}
    name, values = next(iter(by_array.items()))
    label, shape = files.file_of(name), values.shape[:2]
    timestamp = stamps.timestamp
    for other, windows in by_array.items():
        expected = f"{shape[0]} windows of {shape[1]} rows as in {name}"
        if windows.shape[:2] != shape:
            findings.add("npz.length", files.file_of(other), column=other, expected=expected, found=f"{windows.shape}")
            return None
    if timestamp is not None and len(timestamp) != shape[0]:
        expected = f"{shape[0]} stamps, one a window of {name}"
        code = "npz.length" if stamps.place.column in files.arrays else "clock.count"
        place = stamps.place
        findings.add(code, place.file, column=place.column, expected=expected, found=f"{len(timestamp)}")
        return None
    rate_hz = stream.rate_hz
    assert rate_hz, "the schema asks for it"
    stamps_s = np.arange(shape[0]) * shape[1] / rate_hz if timestamp is None else seconds(timestamp)
    fresh = new_rows(list(by_array.values()), stamps_s, rate_hz)
    begin = np.arange(1, shape[0] + 1) * shape[1] - fresh
    rows = np.repeat(begin - np.cumsum(fresh) + fresh, fresh) + np.arange(int(fresh.sum()))
    repeated = shape[0] * shape[1] - len(rows)
    found = f"{shape[0]} windows of {shape[1]} rows: {len(rows)} rows, {repeated} repeated ones left out"
    findings.add("npz.windows", label, column=name, found=found)
    if timestamp is not None:
        timestamp = expand_clock(timestamp, fresh, rate_hz)
    # The rows of a window have no line of their own.
    return _Stamps(timestamp=timestamp, place=ClockLocation(file=stamps.place.file, column=stamps.place.column)), rows


def _take_rows(source: _Source, rows: NDArray[np.int64]) -> NDArray[Any]:
    assert source.spec.window is not None
    _, first, stop = source.spec.window
    flat = source.values.reshape(-1, source.values.shape[2])[:, first:stop]
    return flat[rows].reshape(len(rows), *source.spec.shape)


def _store(files: ArrayFiles, source: _Source, values: NDArray[Any], findings: Findings) -> NDArray[Any] | None:
    if source.in_windows and source.spec.window is not None and values is source.values:
        _, first, stop = source.spec.window
        values = values[..., first:stop]
    return store_field(values, source.spec, files.file_of(source.array), source.array, findings)


def _check_lengths(
    timestamp: NDArray[Any],
    sources: list[_Source],
    values: dict[str, NDArray[Any]],
    files: ArrayFiles,
    place: ClockLocation,
    findings: Findings,
) -> bool:
    """Checks that every field has one row per stamp. If only the clock differs, the clock is reported."""
    lengths = {len(array) for array in values.values()}
    if lengths == {len(timestamp)} and len(timestamp):
        return True
    if len(lengths) == 1:
        expected = f"{lengths.pop()} stamps, one a row of {', '.join(source.array for source in sources)}"
        code = "npz.length" if place.column in files.arrays else "clock.count"
        findings.add(code, place.file, column=place.column, expected=expected, found=f"{len(timestamp)}")
        return False
    for source in sources:
        num_rows = len(values[source.spec.name])
        if num_rows != len(timestamp):
            expected = f"{len(timestamp)} rows, one a stamp"
            label = files.file_of(source.array)
            findings.add("npz.length", label, column=source.array, expected=expected, found=f"{num_rows}")
    return False

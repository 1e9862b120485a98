"""Reads the arrays of containers into a stream's rows. A cast that rounds recorded values is reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.discover.discovery import MetadataSays
from vlapipe.pipeline.read.array_clock import Stamps, count_rows, read_stamps
from vlapipe.pipeline.read.clock_file import ClockFile
from vlapipe.pipeline.read.containers.arrays import ArrayFiles, Part
from vlapipe.pipeline.read.containers.container import open_container
from vlapipe.pipeline.read.metadata_says import check_against_metadata, with_task_texts
from vlapipe.pipeline.read.npz.fields import store_field
from vlapipe.pipeline.read.npz.missing import fill_missing, mask_of, rows_with_values
from vlapipe.pipeline.read.npz.sources import Source, find_source
from vlapipe.pipeline.read.npz.windows import expand_clock, new_rows
from vlapipe.pipeline.shards.derive.stamps import seconds
from vlapipe.pipeline.stream_rows import ClockLocation, StreamRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ArrayStream

__all__ = ["read_array_stream"]


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
    one_row = stream.one_row_a_file
    with open_container(root, files, found, kind=stream.kind, base=base, part=part, one_row_a_file=one_row) as opened:
        if opened is not None and says is not None:
            check_against_metadata(opened, says, found)
            opened = with_task_texts(opened, says)
        rows = None if opened is None else _read(opened, stream, found, clock)
    findings.extend(found)
    return None if found.errors else rows


def _read(files: ArrayFiles, stream: ArrayStream, findings: Findings, clock: ClockFile | None) -> StreamRows | None:
    stamps = read_stamps(files, stream.time, findings, clock)
    sources = [find_source(files, spec, findings) for spec in stream.fields]
    found = [source for source in sources if source is not None]
    if stamps is None or len(found) < len(sources):
        for source in found:  # so that faults of their values are reported too
            if not source.is_absent and not source.spec.text:
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
    present = [source for source in found if not source.is_absent]
    if not present:
        first = stream.fields[0].columns[0][0]
        findings.add("npz.missing_array", files.label, column=first, expected="an array of the stream", found="none")
        return None
    timestamp = stamps.timestamp
    if timestamp is None:
        timestamp = count_rows(len(values[present[0].spec.name]), files.label, stream.time, findings)
    lengths_fit = timestamp is not None and _check_lengths(timestamp, present, values, files, stamps.place, findings)
    if timestamp is None or not lengths_fit:
        for source in present:  # so that faults of their values are reported too
            if not source.spec.text:
                _store(files, source, values[source.spec.name], findings)
        return None
    _report_rows_left(files, present, findings)
    kept = rows_with_values(present, files.label, findings)
    fields: dict[str, NDArray[Any]] = {}
    for source in found:
        fields |= _fields_of(files, source, values[source.spec.name], len(timestamp), kept, findings)
    return StreamRows(
        timestamp=timestamp if kept is None else timestamp[kept],
        fields=fields,
        source=files.source,
        clock_name=stamps.place.column,
        column_names={source.spec.name: source.arrays for source in found},
        clock_location=stamps.place if clock is not None else None,
    )


def _report_rows_left(files: ArrayFiles, sources: list[Source], findings: Findings) -> None:
    """Reports rows past the end of the last episode of a container, once: with that episode."""
    part, shape = files.part, files.arrays[sources[0].arrays[0]].shape
    if part is not None and part.stop == part.num_rows and shape and shape[0] > part.num_rows:
        expected, found = f"{part.num_rows} rows, as the ends of episodes say", f"{shape[0]}"
        findings.add("npz.rows_left", files.label, column=sources[0].array, expected=expected, found=found)


def _fields_of(
    files: ArrayFiles,
    source: Source,
    values: NDArray[Any],
    num_rows: int,
    kept: NDArray[np.int64] | None,
    findings: Findings,
) -> dict[str, NDArray[Any]]:
    """Returns a field as it is stored, with its mask if it has one; nothing if its dtype cannot hold the values."""
    spec, missing = source.spec, source.missing
    if source.is_absent:
        values = np.zeros((num_rows, *spec.shape), dtype=spec.dtype)
        missing = np.ones(values.shape, dtype=np.bool_)
    if kept is not None:
        values, missing = values[kept], None if missing is None else missing[kept]
    if missing is not None and not source.is_absent:
        values = fill_missing(values, missing)
        if spec.on_missing == "mask":
            count = int(missing.reshape(len(missing), -1).any(axis=1).sum())
            findings.add("npz.values_masked", files.file_of(source.arrays[0]), column=source.array, count=count)
    stored = values if source.is_absent or spec.text else _store(files, source, values, findings)
    if stored is None:
        return {}
    mask = {} if spec.mask is None else {spec.mask.name: mask_of(spec, missing, len(stored))}
    return {spec.name: stored, **mask}


def _lay_out(
    files: ArrayFiles, sources: list[Source], stamps: Stamps, stream: ArrayStream, findings: Findings
) -> tuple[Stamps, NDArray[np.int64]] | None:
    """Returns a stamp for each row that is new in its window, and the positions of these rows in all windows."""
    by_array = {source.arrays[0]: source.values for source in sources}
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
    return Stamps(timestamp=timestamp, place=ClockLocation(file=stamps.place.file, column=stamps.place.column)), rows


def _take_rows(source: Source, rows: NDArray[np.int64]) -> NDArray[Any]:
    assert source.spec.window is not None
    _, first, stop = source.spec.window
    flat = source.values.reshape(-1, source.values.shape[2])[:, first:stop]
    return flat[rows].reshape(len(rows), *source.spec.shape)


def _store(files: ArrayFiles, source: Source, values: NDArray[Any], findings: Findings) -> NDArray[Any] | None:
    if source.in_windows and source.spec.window is not None and values is source.values:
        _, first, stop = source.spec.window
        values = values[..., first:stop]
    return store_field(values, source.spec, files.file_of(source.arrays[0]), source.array, findings)


def _check_lengths(
    timestamp: NDArray[Any],
    sources: list[Source],
    values: dict[str, NDArray[Any]],
    files: ArrayFiles,
    place: ClockLocation,
    findings: Findings,
) -> bool:
    """Checks that every field has one row per stamp. If only the clock differs, the clock is reported."""
    lengths = {len(values[source.spec.name]) for source in sources}
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
            label = files.file_of(source.arrays[0])
            findings.add("npz.length", label, column=source.array, expected=expected, found=f"{num_rows}")
    return False

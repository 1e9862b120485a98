"""Moves clocks that share no time with the others.

A stream with ``starts_with`` shares no common time with the others. Its clock is first moved, so that it begins
together with the stream that ``starts_with`` names. A stream with ``rows_of`` takes the times of another one's rows.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from vlapipe.pipeline.stream_rows import Rows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream, Schema

__all__ = ["start_with_others", "take_rows_of_others"]


def start_with_others(
    streams: dict[str, Rows], schema: Schema, cameras: dict[str, tuple[str, ...]], findings: Findings
) -> dict[str, Rows]:
    """Returns the streams, each one with ``starts_with`` moved to the clock of the stream that it names.

    ``offset_s`` is added to the start of the moved clock. The cameras of one image stream are moved by one amount, so
    that their times relative to each other stay; the first image of all cameras counts. If the named stream is optional
    and absent, the stream that the named one would have started with takes its place. If there is none, the clock has
    no place among the others, which is reported. A stream is not moved if the stream that it names could not be read.
    """
    moved = dict(streams)
    waiting = {stream.name: stream for stream in schema.streams if stream.time.starts_with is not None}
    while waiting:
        # The schema has refused circles, so at least one waiting stream waits for no other waiting stream.
        name = next(name for name, stream in waiting.items() if stream.time.starts_with not in waiting)
        time = waiting.pop(name).time
        assert time.starts_with is not None
        ours = _of(name, moved, schema, cameras)
        if not ours:
            continue
        named, offset_s = time.starts_with, time.offset_s
        while not (others := _of(named, moved, schema, cameras)) and schema.stream(named).optional:
            absent = schema.stream(named).time
            if absent.starts_with is None:
                label = next(iter(ours.values())).source.path
                findings.add("clock.no_start", label, expected=f"a stream {named!r} to start with", found="none")
                break
            named, offset_s = absent.starts_with, offset_s + absent.offset_s
        if others:
            moved |= _move(ours, min(rows.timestamp[0] for rows in others.values()), offset_s)
    return moved


def take_rows_of_others(
    streams: dict[str, Rows], schema: Schema, cameras: dict[str, tuple[str, ...]], findings: Findings
) -> dict[str, Rows]:
    """Returns the streams; one with ``rows_of``, whose stamps are row numbers until now, takes the times of these rows.

    A stream may have fewer rows than the named one, which is a warning; more rows have no time. A stream is left as it
    is if the named stream could not be read.
    """
    placed = dict(streams)
    for stream in schema.streams:
        named = stream.time.rows_of
        if named is None or named not in streams:
            continue
        times = streams[named].timestamp
        for name, rows in _of(stream.name, streams, schema, cameras).items():
            num_rows = int(rows.timestamp[-1]) + 1 if len(rows.timestamp) else 0
            expected, found = f"{len(times)} rows, as many as {named} has", f"{num_rows}"
            if num_rows > len(times):
                findings.add("clock.more_rows", rows.source.path, expected=expected, found=found)
                continue
            if num_rows < len(times):
                findings.add("clock.fewer_rows", rows.source.path, expected=expected, found=found)
            placed[name] = replace(rows, timestamp=times[rows.timestamp])
    return placed


def _of(name: str, streams: dict[str, Rows], schema: Schema, cameras: dict[str, tuple[str, ...]]) -> dict[str, Rows]:
    """Returns the stream called ``name``, or the cameras of the image stream called ``name``."""
    names = cameras[name] if isinstance(schema.stream(name), ImageStream) else (name,)
    return {name: streams[name] for name in names if name in streams}


def _move(ours: dict[str, Rows], start: np.int64 | np.float64, offset_s: float) -> dict[str, Rows]:
    """Shifts clocks of one dtype by one amount, so that the earliest stamp becomes ``start``. The dtype is kept."""
    first = min(rows.timestamp[0] for rows in ours.values())
    if isinstance(first, np.int64):
        begins = int(start) if isinstance(start, np.int64) else round(Fraction(float(start)) * 1_000_000_000)
        by = begins + round(Fraction(repr(offset_s)) * 1_000_000_000) - int(first)
        return {name: replace(rows, timestamp=rows.timestamp + np.int64(by)) for name, rows in ours.items()}
    begin = float(start) / 1e9 if isinstance(start, np.int64) else float(start)
    # Subtracting first keeps all digits, because the differences are small numbers.
    return {name: replace(rows, timestamp=(rows.timestamp - first) + (begin + offset_s)) for name, rows in ours.items()}

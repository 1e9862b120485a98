"""Moves clocks that know no common time so that they begin with another stream, as ``starts_with`` says."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from vlapipe.pipeline.readers.arrays import Rows
from vlapipe.schemas.schema import ImageStream, Schema

__all__ = ["start_with_others"]


def start_with_others(streams: dict[str, Rows], schema: Schema, views: dict[str, tuple[str, ...]]) -> dict[str, Rows]:
    """The streams, those with ``starts_with`` on the clock of the other one; ``offset_s`` is added to their start.

    The views of a camera are moved together, by the first image of all, so that they keep their times to each other.
    A stream stays as it is where the other one could not be read.
    """
    moved = dict(streams)
    waiting = {stream.name: stream for stream in schema.streams if stream.time.starts_with is not None}
    while waiting:
        # The schema has refused circles, so one of them waits for none of the others.
        name = next(name for name, stream in waiting.items() if stream.time.starts_with not in waiting)
        time = waiting.pop(name).time
        assert time.starts_with is not None
        ours = _of(name, moved, schema, views)
        others = _of(time.starts_with, moved, schema, views)
        if ours and others:
            moved |= _move(ours, min(rows.timestamp[0] for rows in others.values()), time.offset_s)
    return moved


def _of(name: str, streams: dict[str, Rows], schema: Schema, views: dict[str, tuple[str, ...]]) -> dict[str, Rows]:
    """A stream by its name, or the views of a camera."""
    names = views[name] if isinstance(schema.stream(name), ImageStream) else (name,)
    return {name: streams[name] for name in names if name in streams}


def _move(ours: dict[str, Rows], start: np.int64 | np.float64, offset_s: float) -> dict[str, Rows]:
    """Clocks of one kind, the first of whose stamps becomes ``start`` in their own dtype."""
    first = min(rows.timestamp[0] for rows in ours.values())
    if isinstance(first, np.int64):
        begins = int(start) if isinstance(start, np.int64) else round(Fraction(float(start)) * 1_000_000_000)
        by = begins + round(Fraction(repr(offset_s)) * 1_000_000_000) - int(first)
        return {name: replace(rows, timestamp=rows.timestamp + np.int64(by)) for name, rows in ours.items()}
    begin = float(start) / 1e9 if isinstance(start, np.int64) else float(start)
    # Subtracted first: small numbers lose no digit.
    return {name: replace(rows, timestamp=(rows.timestamp - first) + (begin + offset_s)) for name, rows in ours.items()}

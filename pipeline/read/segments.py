"""Cuts files that hold several episodes. The rows at which episodes begin are found before the plan is made.

Rows are counted as the reader returns them, after it has dropped rows. The pass that cuts and the pass that reads both
use the same reader, so that they count alike. A file that cannot be cut stays one episode; reading that episode
reports the reason.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.discover.discovery import Discovery, RawEpisode, called
from vlapipe.pipeline.discover.packed import Packed
from vlapipe.pipeline.read.container_parts import has_parts, parts_of_container, with_cameras
from vlapipe.pipeline.read.streams import read_rows
from vlapipe.pipeline.shards.ordered_map import in_order
from vlapipe.pipeline.stream_rows import StreamRows
from vlapipe.schemas.errors import StoppedError, UsageError
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ArrayStream, CsvStream, FieldSpec, ImageStream, Schema, TimeSpec
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["Part", "cut_files", "has_cameras", "is_cut", "parts_of"]

_THREADS = 4  # files read at the same time; each is in memory meanwhile
_SPLIT_FIELD = "split column"  # no field of a schema can have this name
_MOST_SHORT_PARTS = 1000  # so many parts of two rows or fewer mean that the schema names the wrong column
_NO_CLOCK = TimeSpec(index_rate_hz=1.0)
_OTHERWISE = {"csv.text_too_long", "npz.text_too_long", "npz.dtype"}  # faults of the way to read split_column
_WIDTHS = (32, 1024)  # bytes of a value of split_column, the small width first: every row takes as many
_NOT_IN_ID = re.compile(r"[/\\\x00-\x1f]")


@dataclass(frozen=True, kw_only=True)
class Part:
    """An episode within a file: its name, its rows ``start <= row < stop``, and the row where it wrongly resumes."""

    name: str
    start: int
    stop: int
    again_at: int | None = None


def cut_files(discovery: Discovery, schema: Schema) -> Discovery:
    """Returns a discovery with one episode for each part of the anchor's files, and one stream for each camera in them.

    No file is opened unless the schema says that files hold several episodes, or several cameras.
    """
    if not is_cut(schema) and not has_cameras(schema):
        return discovery
    jobs = (partial(_look_into, discovery.root, raw, schema) for raw in discovery.episodes)
    episodes = Packed(part for parts in in_order(jobs, _THREADS) for part in parts)
    counts = Counter(episode.id for episode in episodes)
    # Two values of a column, or a part and a file, may result in the same name. The first row makes the id unique.
    ids = [
        f"{episode.id}@{episode.rows[0]}" if episode.rows and counts[episode.id] > 1 else episode.id
        for episode in episodes
    ]
    return replace(discovery, episodes=called(episodes, ids, set(ids)))


def has_cameras(schema: Schema) -> bool:
    """Returns whether the names of cameras stand in containers."""
    return any(isinstance(s, ImageStream) and any("{camera}" in name for name in s.array) for s in schema.streams)


def _look_into(root: Path, raw: RawEpisode, schema: Schema) -> list[RawEpisode]:
    try:
        return _episodes_in(root, raw, schema)
    except (StoppedError, UsageError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - a damaged container fails in a dozen ways; reading it reports that
        raise_if_stopped(error, raw.folder)
        return [raw]


def _episodes_in(root: Path, raw: RawEpisode, schema: Schema) -> list[RawEpisode]:
    if has_parts(schema):
        parts = parts_of_container(root, raw, schema, Findings()) or [raw]
    else:
        parts = _cut_file(root, raw, schema) if is_cut(schema) else [raw]
    if not has_cameras(schema):
        return parts
    if schema.episodes.group:
        return [with_cameras(root, part, schema) for part in parts]
    first = with_cameras(root, parts[0], schema)  # the parts are rows of the same arrays
    of_arrays = {s.name for s in schema.streams if isinstance(s, ImageStream) and s.array}
    return [first, *(_with_cameras_of(first, part, of_arrays) for part in parts[1:])]


def _with_cameras_of(first: RawEpisode, part: RawEpisode, streams: set[str]) -> RawEpisode:
    """Returns a part with the cameras of the first one, each with the part's own files."""
    files, cameras = dict(part.files), {**part.cameras}
    for stream in streams & first.cameras.keys():
        ours = files.pop(stream, ())
        files |= dict.fromkeys(first.cameras[stream], ours)
        cameras[stream] = first.cameras[stream]
    return replace(part, files=files, cameras=cameras)


def is_cut(schema: Schema) -> bool:
    """Returns whether the anchor's files may hold several episodes."""
    return bool(schema.episodes.split_column or schema.episodes.split_gap_s) or has_parts(schema)


def _cut_file(root: Path, raw: RawEpisode, schema: Schema) -> list[RawEpisode]:
    parts, num_rows = parts_of(root, raw, schema, Findings())
    if len(parts) > max(_MOST_SHORT_PARTS, num_rows // 2):
        where = f"{raw.files[schema.anchor][0].path}: {len(parts)} episodes in {num_rows} rows"
        raise UsageError(where, "correct split_column or split_gap_s in the schema")
    return [
        replace(
            raw,
            id=f"{raw.id}/{part.name}",
            rows=(part.start, part.stop),
            num_rows=num_rows,
            again_at=part.again_at,
        )
        for part in parts
    ] or [raw]


def parts_of(root: Path, raw: RawEpisode, schema: Schema, findings: Findings) -> tuple[list[Part], int]:
    """Returns the parts of the anchor's file and the file's number of rows; no parts if the file cannot be read."""
    files, stream, layout = raw.files[schema.anchor], schema.anchor_stream, schema.episodes
    if len(files) != 1:
        return [], 0
    dropping = _dropping(stream)
    if layout.split_gap_s is not None:
        fields = dropping or (stream.fields[:1] if isinstance(stream, ArrayStream) else ())
        narrow = replace(stream, fields=fields, derived=())
        rows = read_rows(root, raw, narrow, findings, in_parts=True)
        return (_parts_by_gap(rows, layout.split_gap_s), rows.num_rows) if rows is not None else ([], 0)
    assert layout.split_column is not None
    for column in _split_fields(stream, layout.split_column):
        tried = Findings()
        time = _NO_CLOCK if stream.time.counts_rows else stream.time
        narrow = replace(stream, fields=(*dropping, column), derived=(), time=time)
        rows = read_rows(root, raw, narrow, tried, in_parts=True)
        for fault in rows.faults if rows is not None else ():
            if fault.column == layout.split_column:  # nobody knows to which episode such a row belongs
                fault.report(tried)
        if not any(each.code in _OTHERWISE and each.column == layout.split_column for each in tried.errors):
            break
    findings.extend(tried.errors)
    if rows is None or tried.errors:
        return [], 0
    values = rows.fields[_SPLIT_FIELD]
    if not column.text:
        values = np.array([str(value) for value in values.tolist()], dtype=bytes)[:, None].view(np.uint8)
    return _parts_by_value(values), rows.num_rows


def _dropping(stream: CsvStream | ArrayStream) -> tuple[FieldSpec, ...]:
    """Returns the fields that decide which rows there are, because they drop rows.

    So does the clock, if it may be bad. With ``nearest``, the clock is a column near the first field, so all fields
    must be read.
    """
    every = isinstance(stream, CsvStream) and (stream.on_bad == "drop" or stream.time.nearest)
    return tuple(field for field in stream.fields if every or field.on_missing == "drop")


def _split_fields(stream: CsvStream | ArrayStream, name: str) -> Iterator[FieldSpec]:
    """Yields the ways to read ``split_column``: as texts, small ones first; in a container also as whole numbers."""
    if isinstance(stream, ArrayStream):
        yield FieldSpec(name=_SPLIT_FIELD, columns=((name,),), dtype="int64")
    for width in _WIDTHS:
        yield FieldSpec(name=_SPLIT_FIELD, columns=((name,),), shape=(width,), dtype="uint8", text=True)


def _parts_by_gap(rows: StreamRows, gap_s: float) -> list[Part]:
    """A part ends where the clock jumps forwards or backwards: a recorder may begin each episode at 0."""
    limit = round(gap_s * 1e9) if rows.timestamp.dtype == np.int64 else gap_s
    starts = np.flatnonzero(np.abs(np.diff(rows.timestamp)) > limit) + 1
    edges = [0, *starts.tolist(), rows.num_rows]
    return [
        Part(name=f"part_{i:04d}", start=start, stop=stop) for i, (start, stop) in enumerate(itertools.pairwise(edges))
    ]


def _parts_by_value(texts: NDArray[np.uint8]) -> list[Part]:
    values = np.ascontiguousarray(texts).view(f"S{texts.shape[1]}")[:, 0]
    edges = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
    parts: dict[bytes, Part] = {}
    for start, stop in itertools.pairwise(edges):
        value = bytes(values[start])
        if value not in parts:
            name = _NOT_IN_ID.sub("_", value.decode("utf-8").strip()) or "_"
            parts[value] = Part(name=name, start=start, stop=stop)
        elif parts[value].again_at is None:
            parts[value] = replace(parts[value], again_at=start)
    return list(parts.values())

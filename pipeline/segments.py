"""Cuts files that hold several episodes: where one begins is found before the plan is made, and kept as rows.

Rows are counted as ``read_csv_stream`` returns them, after those that it drops; both passes go through it, so that
they count alike. A file that cannot be cut stays one episode, whose reading then says why.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.discovery import Discovery, RawEpisode
from vlapipe.pipeline.readers.arrays import ImageRows, StreamRows
from vlapipe.pipeline.readers.clock import seconds
from vlapipe.pipeline.readers.csv_table import read_csv_stream
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import CsvStream, FieldSpec, Schema

__all__ = ["cut_files", "read_part"]

_THREADS = 4  # files looked at together; each is held in memory meanwhile
_SPLIT_FIELD = "split column"  # no field of a schema can be called so
_WIDTHS = (32, 1024)  # bytes of a value of split_column: most are short, and every row takes as many
_NOT_IN_ID = re.compile(r"[/\\\x00-\x1f]")

Rows = StreamRows | ImageRows


@dataclass(frozen=True, kw_only=True)
class _Part:
    """An episode within a file: its name there, its rows, and where it wrongly begins again."""

    name: str
    start: int
    stop: int
    again_at: int | None = None


def cut_files(discovery: Discovery, schema: Schema) -> Discovery:
    """The same with an episode for each part of the anchor's files, if the schema cuts them."""
    if not _cuts(schema):
        return discovery
    with ThreadPoolExecutor(_THREADS) as threads:
        cut = threads.map(lambda raw: _cut_file(discovery.root, raw, schema), discovery.episodes)
        episodes = [part for parts in cut for part in parts]
    counts = Counter(episode.id for episode in episodes)
    # Two values of a column, or a part and a file, may come to the same name; the first row tells them apart.
    unique = [
        replace(episode, id=f"{episode.id}@{episode.rows[0]}") if episode.rows and counts[episode.id] > 1 else episode
        for episode in episodes
    ]
    return replace(discovery, episodes=tuple(sorted(unique, key=lambda episode: episode.id)))


def _cuts(schema: Schema) -> bool:
    return bool(schema.episodes.split_column or schema.episodes.split_gap_s)


def _cut_file(root: Path, raw: RawEpisode, schema: Schema) -> list[RawEpisode]:
    parts, num_rows = _parts_of(root, raw, schema, Findings())
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


def _parts_of(root: Path, raw: RawEpisode, schema: Schema, findings: Findings) -> tuple[list[_Part], int]:
    """Each part of the anchor's file, and the rows of all; no part where the file cannot be read that far."""
    files, stream, layout = raw.files[schema.anchor], schema.anchor_stream, schema.episodes
    assert isinstance(stream, CsvStream)
    if len(files) != 1:
        return [], 0
    # Fields that drop rows must be read to know which rows there are.
    dropping = tuple(field for field in stream.fields if field.on_missing == "drop")
    narrow = replace(stream, fields=dropping, derived=())
    path, label = root / files[0].path, files[0].path
    if layout.split_gap_s is not None:
        rows = read_csv_stream(path, label, narrow, findings)
        return (_parts_by_gap(rows, layout.split_gap_s), rows.num_rows) if rows is not None else ([], 0)
    assert layout.split_column is not None
    for width in _WIDTHS:
        column = FieldSpec(
            name=_SPLIT_FIELD, columns=((layout.split_column,),), shape=(width,), dtype="uint8", text=True
        )
        tried = Findings()
        rows = read_csv_stream(path, label, replace(narrow, fields=(*dropping, column)), tried)
        if not any(finding.code == "csv.text_too_long" for finding in tried):
            break
    findings.extend(tried.errors)
    return (_parts_by_value(rows.fields[_SPLIT_FIELD]), rows.num_rows) if rows is not None else ([], 0)


def _parts_by_gap(rows: StreamRows, gap_s: float) -> list[_Part]:
    """A part ends where the clock jumps, either way: a recorder may begin each episode at 0."""
    limit = round(gap_s * 1e9) if rows.timestamp.dtype == np.int64 else gap_s
    starts = np.flatnonzero(np.abs(np.diff(rows.timestamp)) > limit) + 1
    edges = [0, *starts.tolist(), rows.num_rows]
    return [
        _Part(name=f"part_{i:04d}", start=start, stop=stop) for i, (start, stop) in enumerate(itertools.pairwise(edges))
    ]


def _parts_by_value(texts: NDArray[np.uint8]) -> list[_Part]:
    values = np.ascontiguousarray(texts).view(f"S{texts.shape[1]}")[:, 0]
    edges = [0, *(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]
    parts: dict[bytes, _Part] = {}
    for start, stop in itertools.pairwise(edges):
        value = bytes(values[start])
        if value not in parts:
            name = _NOT_IN_ID.sub("_", value.decode("utf-8").strip()) or "_"
            parts[value] = _Part(name=name, start=start, stop=stop)
        elif parts[value].again_at is None:
            parts[value] = replace(parts[value], again_at=start)
    return list(parts.values())


@dataclass(frozen=True, kw_only=True)
class _WholeFile:
    """What a file of several episodes holds; ``forwards`` are the streams whose clock never runs back."""

    key: object
    streams: dict[str, Rows]
    findings: list[Finding]
    forwards: frozenset[str]


# The parts of a file follow each other, and it is read once for all of them.
_last: _WholeFile | None = None


def read_part(
    root: Path, raw: RawEpisode, schema: Schema, findings: Findings, read: Callable[[Findings], dict[str, Rows]]
) -> dict[str, Rows]:
    """The streams of an episode, cut to its rows where its file holds several; ``read`` reads the whole files."""
    if not _cuts(schema):
        return read(findings)
    if raw.rows is None:
        streams = read(findings)
        parts, _ = _parts_of(root, raw, schema, findings)
        if parts and not findings.errors:
            findings.add("file.unreadable", raw.files[schema.anchor][0].path, found="it has changed meanwhile")
        return streams
    whole = _read_once(root, raw, schema, read)
    anchor = whole.streams.get(schema.anchor)
    _take_over(whole.findings, raw.rows, anchor, findings)
    if raw.rows[1] == raw.num_rows:
        _forget()
    if not isinstance(anchor, StreamRows):
        return whole.streams
    if anchor.num_rows != raw.num_rows:
        expected, counted = f"{raw.num_rows} rows, as it had before", f"{anchor.num_rows}"
        findings.add("file.unreadable", anchor.source.path, expected=expected, found=counted)
        return whole.streams
    if raw.again_at is not None:
        line, column = anchor.line_of(raw.again_at), schema.episodes.split_column
        expected, again = f"all rows of {raw.id!r} together", f"more of them after {raw.again_at - raw.rows[1]} others"
        findings.add(
            "episode.interleaved", anchor.source.path, line=line, column=column, expected=expected, found=again
        )
    return _cut(whole, schema.anchor, raw.rows, findings)


def _read_once(root: Path, raw: RawEpisode, schema: Schema, read: Callable[[Findings], dict[str, Rows]]) -> _WholeFile:
    global _last
    key = (root, schema.toml, raw.files, raw.clock_files)  # files with size and date
    if _last is None or _last.key != key:
        _last = None  # the memory of one file before that of the next
        findings = Findings(schema.checks.severity)
        streams = read(findings)
        forwards = frozenset(name for name, rows in streams.items() if (np.diff(rows.timestamp) >= 0).all())
        _last = _WholeFile(key=key, streams=streams, findings=list(findings), forwards=forwards)
    return _last


def _forget() -> None:
    global _last
    _last = None


def _take_over(found: list[Finding], rows: tuple[int, int], anchor: Rows | None, findings: Findings) -> None:
    """The findings of a whole file that concern one part: errors at its lines, and all else with the first part.

    Of an error that stands several times only the first line is known, so every part from there on has it.
    """
    for finding in found:
        if finding.severity != "error":
            if rows[0] == 0:
                findings.extend([finding])
            continue
        if isinstance(anchor, StreamRows) and finding.line is not None and finding.file == anchor.source.path:
            first, last = anchor.line_of(rows[0]), anchor.line_of(rows[1] - 1)
            if first is not None and last is not None:
                before = finding.line < first and finding.count == 1
                if before or finding.line > last:
                    continue
        findings.extend([finding])


def _cut(file: _WholeFile, anchor: str, rows: tuple[int, int], findings: Findings) -> dict[str, Rows]:
    """Cut the anchor to its rows, and every other stream to those within their time."""
    whole = file.streams[anchor]
    assert isinstance(whole, StreamRows)
    cut: dict[str, Rows] = {}
    for name, stream in file.streams.items():
        if name == anchor or (stream.source.path == whole.source.path and stream.num_rows == whole.num_rows):
            cut[name] = stream.cut(*rows)
        elif name not in file.forwards:
            cut[name] = stream  # the check of its clock says what is wrong
        elif anchor not in file.forwards and _shares_time(whole, rows):
            expected = f"times that go on from part to part, to share out {stream.source.path}"
            line, found = whole.line_of(rows[0]), "times that are in another part too"
            findings.add("clock.backwards", whole.source.path, line=line, expected=expected, found=found)
        else:
            start, stop = _rows_within(stream.timestamp, whole.timestamp[rows[0] : rows[1]])
            if start < stop:
                cut[name] = stream.cut(start, stop)
            else:
                first, last = seconds(whole.timestamp[[rows[0], rows[1] - 1]])
                expected = f"times within {first:.3f} to {last:.3f} s, as in this part of {whole.source.path}"
                findings.add("clock.no_overlap", stream.source.path, expected=expected, found="no row")
    return cut


def _shares_time(whole: StreamRows, rows: tuple[int, int]) -> bool:
    """Whether rows of other parts lie in the time of this one; the whole clock need not run forwards."""
    ours = whole.timestamp[rows[0] : rows[1]]
    others = np.concatenate([whole.timestamp[: rows[0]], whole.timestamp[rows[1] :]])
    return bool(((others >= ours.min()) & (others <= ours.max())).any())


def _rows_within(times: NDArray[Any], part: NDArray[Any]) -> tuple[int, int]:
    """The rows of a clock that runs forwards from the first to the last time of a part, both included."""
    if times.dtype != part.dtype:
        times, part = seconds(times), seconds(part)
    return int(np.searchsorted(times, part.min(), side="left")), int(np.searchsorted(times, part.max(), side="right"))

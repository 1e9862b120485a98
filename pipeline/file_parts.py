"""Reads an episode that is a part of a file: the file once for all its parts, each stream cut to the part's rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.discovery import RawEpisode
from vlapipe.pipeline.image_options import ImageOptions
from vlapipe.pipeline.readers.arrays import Rows, StreamRows
from vlapipe.pipeline.segments import is_cut, parts_of
from vlapipe.pipeline.shards.stamps import seconds
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import Schema

__all__ = ["read_part"]


@dataclass(frozen=True, kw_only=True)
class _WholeFile:
    """What a file of several episodes holds; ``forwards`` are the streams whose clock never runs back."""

    streams: dict[str, Rows]
    findings: list[Finding]
    forwards: frozenset[str]


class _Shelf:
    """Keeps the last files of several episodes, whose parts follow each other, so that each is read once for all.

    Several threads may ask: for the parts of one file the first reads and the others wait.
    """

    def __init__(self, num_files: int) -> None:
        self._num_files = num_files
        self._lock = Lock()
        self._files: list[_Slot] = []

    def slot(self, key: object) -> _Slot:
        """The place of a file, whose lock is to be held while it is read."""
        with self._lock:
            slot = next((slot for slot in self._files if slot.key == key), None)
            if slot is None:
                slot = _Slot(key)
                self._files = [*self._files[-self._num_files + 1 :], slot]
            return slot

    def done(self, slot: _Slot, rows: tuple[int, int], num_rows: int | None) -> None:
        """One part has been taken; with the last the file goes."""
        with self._lock:
            slot.num_taken += rows[1] - rows[0]
            if slot.num_taken == num_rows:
                self._files = [other for other in self._files if other is not slot]


class _Slot:
    def __init__(self, key: object) -> None:
        self.key = key
        self.lock = Lock()
        self.file: _WholeFile | None = None
        self.num_taken = 0


_shelf = _Shelf(2)  # where one file's parts end, another one's begin


def read_part(
    root: Path,
    raw: RawEpisode,
    schema: Schema,
    findings: Findings,
    read: Callable[[Findings], dict[str, Rows]],
    images: ImageOptions,
) -> dict[str, Rows]:
    """The streams of an episode, cut to its rows where its file holds several; ``read`` reads the whole files.

    ``images`` is how it keeps their images: files that were read for other options are not taken for these.
    """
    if not is_cut(schema):
        return read(findings)
    if raw.rows is None:
        streams = read(findings)
        _say_why_uncut(root, raw, schema, findings)
        return streams
    whole = _read_once(root, raw, raw.rows, schema, read, images)
    anchor = whole.streams.get(schema.anchor)
    _take_over(whole.findings, raw.rows, anchor, findings)
    if not isinstance(anchor, StreamRows):
        return whole.streams
    if anchor.num_rows != raw.num_rows:
        expected, counted = f"{raw.num_rows} rows, as it had before", f"{anchor.num_rows}"
        findings.add("file.unreadable", anchor.source.path, expected=expected, found=counted)
        return {}
    if raw.again_at is not None:
        line, column = anchor.line_of(raw.again_at), schema.episodes.split_column
        expected, again = f"all rows of {raw.id!r} together", f"more of them after {raw.again_at - raw.rows[1]} others"
        findings.add(
            "episode.interleaved", anchor.source.path, line=line, column=column, expected=expected, found=again
        )
    return _cut(whole, schema.anchor, raw.rows, findings)


def _say_why_uncut(root: Path, raw: RawEpisode, schema: Schema, findings: Findings) -> None:
    found = findings.fresh()
    parts, _ = parts_of(root, raw, schema, found)
    known = {(finding.code, finding.file, finding.column) for finding in findings}
    findings.extend(f for f in found.errors if (f.code, f.file, f.column) not in known)
    if parts and not findings.errors:
        findings.add("file.unreadable", raw.files[schema.anchor][0].path, found="it has changed meanwhile")


def _read_once(
    root: Path,
    raw: RawEpisode,
    rows: tuple[int, int],
    schema: Schema,
    read: Callable[[Findings], dict[str, Rows]],
    images: ImageOptions,
) -> _WholeFile:
    slot = _shelf.slot((root, schema.toml, raw.files, raw.clock_files, images))  # files with size and date
    with slot.lock:
        if slot.file is None:
            findings = Findings(schema.checks.severity)
            streams = read(findings)
            forwards = frozenset(name for name, r in streams.items() if (np.diff(r.timestamp) >= 0).all())
            slot.file = _WholeFile(streams=streams, findings=list(findings), forwards=forwards)
    _shelf.done(slot, rows, raw.num_rows)
    return slot.file


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

"""Reads an episode that is a part of a file. The file is read once for all its parts, then cut for each part."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.discover.discovery import RawEpisode
from vlapipe.pipeline.read.container_parts import has_parts, parts_of_container
from vlapipe.pipeline.read.containers.arrays import forget_sources
from vlapipe.pipeline.read.images.image_options import ImageOptions
from vlapipe.pipeline.read.segments import is_cut, parts_of
from vlapipe.pipeline.shards.derive.stamps import seconds
from vlapipe.pipeline.stream_rows import Rows, StreamRows
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import Schema

__all__ = ["files_kept", "let_go_of_files", "read_part"]


@dataclass(frozen=True, kw_only=True)
class _WholeFile:
    """The streams of a file of several episodes. ``forwards`` names the streams whose clock never runs backwards."""

    streams: dict[str, Rows]
    findings: list[Finding]
    forwards: frozenset[str]


class _Slot:
    """One file on the shelf. ``lock`` is exclusive while the file is read, so that one thread reads and others wait."""

    def __init__(self, raw: RawEpisode) -> None:
        self.raw = raw
        self.lock = Lock()
        self.file: _WholeFile | None = None
        self.num_expected = 0  # parts that shards being built have yet to read
        self.num_taken = 0  # rows of the parts that were read

    def holds(self, raw: RawEpisode) -> bool:
        """Returns whether the part's files are the files of this slot; files are compared with their size and date."""
        return self.raw.files == raw.files and self.raw.clock_files == raw.clock_files


class _Shelf:
    """Keeps files of several episodes in memory, so that each is read once for all its parts. Thread-safe.

    A file stays as long as a shard that is being built has yet to read a part of the file. A file is dropped after its
    last part. Parts may also belong to shards that this process may or may not build later: of such files the
    ``most_idle`` most recent ones stay.
    """

    def __init__(self, most_idle: int) -> None:
        self._most_idle = most_idle
        self._lock = Lock()
        # Idle slots (no part of them is expected) lie in the order in which they became idle.
        self._slots: dict[Hashable, _Slot] = {}

    def expect(self, key: Hashable, raw: RawEpisode) -> None:
        """Announces that ``slot`` will be called for a part of the file."""
        with self._lock:
            self._slot(key, raw).num_expected += 1

    def slot(self, key: Hashable, raw: RawEpisode) -> _Slot:
        """Returns the slot of a file; makes a new slot if the file is not kept or has changed."""
        with self._lock:
            return self._slot(key, raw)

    def _slot(self, key: Hashable, raw: RawEpisode) -> _Slot:
        slot = self._slots.get(key)
        if slot is None or not slot.holds(raw):
            slot = self._slots[key] = _Slot(raw)
        return slot

    def done(self, key: Hashable, slot: _Slot, rows: tuple[int, int], num_rows: int | None) -> None:
        """Counts one part as read. A file of which no part is expected is dropped or becomes idle.

        The file is dropped if all its rows were read. If too many files are idle, the oldest ones are dropped.
        """
        with self._lock:
            slot.num_taken += rows[1] - rows[0]
            slot.num_expected -= 1
            if slot.num_expected > 0 or self._slots.get(key) is not slot:
                return
            del self._slots[key]
            if slot.num_taken != num_rows and slot.file is not None:
                self._slots[key] = slot
                idle = [name for name, other in self._slots.items() if other.num_expected <= 0]
                for name in idle[: -self._most_idle]:
                    del self._slots[name]

    def drop(self, keys: Iterable[Hashable] | None = None) -> None:
        """Drops the files of ``keys``, whose parts will not be read. By default drops all idle files."""
        with self._lock:
            idle = [key for key, slot in self._slots.items() if slot.num_expected <= 0]
            for key in idle if keys is None else keys:
                self._slots.pop(key, None)


_shelf = _Shelf(4)  # a process builds up to 4 shards at a time, and each of them may end within a file


@contextlib.contextmanager
def files_kept(root: Path, episodes: Iterable[RawEpisode], schema: Schema, images: ImageOptions) -> Iterator[None]:
    """Keeps each file of several episodes until ``read_part`` has read all ``episodes``, the episodes of one shard."""
    cut = is_cut(schema) and not has_parts(schema)  # parts of containers are read on their own
    parts = [(_key(root, raw, schema, images), raw) for raw in episodes if cut and raw.rows is not None]
    for key, raw in parts:
        _shelf.expect(key, raw)
    try:
        yield
    except BaseException:
        _shelf.drop({key for key, _ in parts})
        raise


def let_go_of_files() -> None:
    """Drops the files that were kept for later shards. To be called when no shard is left to build."""
    _shelf.drop()
    forget_sources()


def _key(root: Path, raw: RawEpisode, schema: Schema, images: ImageOptions) -> Hashable:
    return root, schema.toml, raw.files[schema.anchor], images


def read_part(
    root: Path,
    raw: RawEpisode,
    schema: Schema,
    findings: Findings,
    read: Callable[[Findings], dict[str, Rows]],
    images: ImageOptions,
) -> dict[str, Rows]:
    """Returns the streams of an episode, cut to the episode's rows if its file holds several.

    Args:
        root: the dataset's folder.
        raw: the episode.
        schema: how the files are to be read.
        findings: collects the faults.
        read: reads the whole files.
        images: how images are to be stored; files that were read with other options are read again.
    """
    if not is_cut(schema) or (has_parts(schema) and _is_part(raw)):
        return read(findings)
    if has_parts(schema):
        found = findings.fresh()
        parts = parts_of_container(root, raw, schema, found)
        findings.extend(found)
        if not found.errors:
            streams = {} if parts else read(findings)
            if parts:
                findings.add("file.unreadable", raw.files[schema.anchor][0].path, found="it has changed meanwhile")
            return streams
        return {}
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
    return _cut(whole, raw, schema, raw.rows, findings)


def _is_part(raw: RawEpisode) -> bool:
    return raw.group is not None or raw.rows is not None or raw.numbers is not None


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
    key = _key(root, raw, schema, images)
    slot = _shelf.slot(key, raw)
    try:
        with slot.lock:
            if slot.file is None:
                findings = Findings(schema.checks.severity)
                streams = read(findings)
                forwards = frozenset(name for name, r in streams.items() if (np.diff(r.timestamp) >= 0).all())
                slot.file = _WholeFile(streams=streams, findings=list(findings), forwards=forwards)
        return slot.file
    finally:
        _shelf.done(key, slot, rows, raw.num_rows)


def _take_over(found: list[Finding], rows: tuple[int, int], anchor: Rows | None, findings: Findings) -> None:
    """Copies those findings of a whole file that concern one part.

    An error with a line in the anchor's file concerns the part that holds the line; other errors concern every part.
    Warnings and notes go with the first part. If an error was counted several times, only its first line is known, so
    the part of that line and all later parts get the error.
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


def _cut(
    file: _WholeFile, raw: RawEpisode, schema: Schema, rows: tuple[int, int], findings: Findings
) -> dict[str, Rows]:
    """Cuts the anchor to the part's rows, and every other stream to the rows within the part's time.

    An optional stream may have no row in that time: it is absent then.
    """
    anchor = schema.anchor
    whole = file.streams[anchor]
    assert isinstance(whole, StreamRows)
    optional = (stream.name for stream in schema.streams if stream.optional)
    may_lack = {name for stream in optional for name in raw.cameras.get(stream, (stream,))}
    cut: dict[str, Rows] = {}
    for name, stream in file.streams.items():
        if name == anchor or (stream.source.path == whole.source.path and stream.num_rows == whole.num_rows):
            cut[name] = stream.cut(*rows)
        elif name not in file.forwards:
            cut[name] = stream  # the check of this stream's clock reports the fault
        elif anchor not in file.forwards and _shares_time(whole, rows):
            expected = f"times that go on from part to part, to share out {stream.source.path}"
            line, found = whole.line_of(rows[0]), "times that are in another part too"
            findings.add("clock.backwards", whole.source.path, line=line, expected=expected, found=found)
        else:
            start, stop = _rows_within(stream.timestamp, whole.timestamp[rows[0] : rows[1]])
            if start < stop:
                cut[name] = stream.cut(start, stop)
            elif name not in may_lack:
                first, last = seconds(whole.timestamp[[rows[0], rows[1] - 1]])
                expected = f"times within {first:.3f} to {last:.3f} s, as in this part of {whole.source.path}"
                findings.add("clock.no_overlap", stream.source.path, expected=expected, found="no row")
    return {name: stream for name, stream in cut.items() if not _has_faults(stream, findings)}


def _has_faults(stream: Rows, findings: Findings) -> bool:
    """Returns whether a faulty row lies in this part of a stream, and reports such rows."""
    for fault in stream.faults:
        fault.report(findings)
    return any(len(fault.rows) for fault in stream.faults)


def _shares_time(whole: StreamRows, rows: tuple[int, int]) -> bool:
    """Returns whether rows of other parts lie in the time of this part; the clock need not run forwards."""
    ours = whole.timestamp[rows[0] : rows[1]]
    others = np.concatenate([whole.timestamp[: rows[0]], whole.timestamp[rows[1] :]])
    return bool(((others >= ours.min()) & (others <= ours.max())).any())


def _rows_within(times: NDArray[Any], part: NDArray[Any]) -> tuple[int, int]:
    """Returns the rows of ``times``, which runs forwards, from the first to the last time of ``part`` (inclusive)."""
    if times.dtype != part.dtype:
        times, part = seconds(times), seconds(part)
    return int(np.searchsorted(times, part.min(), side="left")), int(np.searchsorted(times, part.max(), side="right"))

"""Finds episode folders below a dataset and sorts their files into streams; opens no file.

The result depends on names and sizes alone, so that every later decision (shards, splits) can be repeated.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.schema import ImageStream, Schema, Stream

__all__ = ["Discovery", "RawEpisode", "RawFile", "discover"]

_NOT_WORD = re.compile(r"[^A-Za-z0-9_-]")
_IGNORED_NAMES = {"Thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class RawFile:
    """A file's path relative to the dataset (``/`` between parts), its size, and when it was last changed."""

    path: str
    num_bytes: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class RawEpisode:
    """One episode folder: ``files`` are those of each stream, in order of their names; a camera's view is a stream.

    ``clock_files`` are those that hold the clock of a stream, or of a view, whose schema names such a file.
    """

    id: str
    task: str
    folder: str  # relative to the dataset, "." for the dataset itself
    files: dict[str, tuple[RawFile, ...]]
    views: dict[str, tuple[str, ...]]  # the views of each image stream that has several
    metadata: RawFile | None
    instruction_file: RawFile | None
    clock_files: dict[str, tuple[RawFile, ...]] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Bytes of all its streams' files."""
        return sum(file.num_bytes for files in self.files.values() for file in files)


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """Every episode below ``root``, ordered by id."""

    root: Path
    episodes: tuple[RawEpisode, ...]
    num_files: int
    num_bytes: int
    num_ignored: int


def discover(root: Path, schema: Schema, *, single: bool = False) -> Discovery:
    """Find the episodes of a dataset; with ``single``, ``root`` itself is the one episode.

    Raises:
        UsageError: there is no such folder, or no episode in it.
    """
    option = "--dir" if single else "--dataset"
    if not root.exists():
        raise UsageError(f"{option} {root}: no such folder", "check the path")
    if not root.is_dir():
        raise UsageError(f"{option} {root}: not a folder", "give the folder that holds the recordings")
    root = root.resolve()
    ignored: list[str] = []
    folders = [(".", list(_walk(root, "", ignored)))] if single else list(_episode_folders(root, schema, ignored))
    episodes = [_sort_files(root, folder, files, schema) for folder, files in folders]
    if not episodes:
        looked_for = _looked_for(schema)
        raise UsageError(
            f"no episode in {root}: schema {schema.name!r} looks for {looked_for}",
            "check the path, or choose another --schema",
        )
    return Discovery(
        root=root,
        episodes=tuple(sorted(episodes, key=lambda episode: episode.id)),
        num_files=sum(len(files) for _, files in folders),
        num_bytes=sum(file.num_bytes for _, files in folders for file in files),
        num_ignored=len(ignored),
    )


def _looked_for(schema: Schema) -> str:
    if schema.episodes.folders:
        return "folders named " + " or ".join(schema.episodes.folders)
    return "folders that hold " + " or ".join(schema.anchor_stream.files)


def _is_ignored(name: str) -> bool:
    """What file managers and archivers leave behind."""
    return name.startswith(".") or name in _IGNORED_NAMES


def _walk(root: Path, folder: str, ignored: list[str]) -> Iterator[RawFile]:
    """Every file below ``folder``, sorted by name within each folder."""
    with os.scandir(root / folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = f"{folder}/{entry.name}" if folder else entry.name
        if _is_ignored(entry.name):
            ignored.append(path)
        elif entry.is_dir():
            yield from _walk(root, path, ignored)
        elif entry.is_file():
            status = entry.stat()
            yield RawFile(path, status.st_size, status.st_mtime_ns)


def _episode_folders(root: Path, schema: Schema, ignored: list[str]) -> Iterator[tuple[str, list[RawFile]]]:
    """Walk down until a folder is an episode; what lies below it belongs to it."""
    patterns = schema.episodes.folders
    pending = [""]
    while pending:
        folder = pending.pop()
        name = PurePosixPath(folder).name if folder else root.name
        with os.scandir(root / folder) as found:
            entries = sorted((e for e in found if not _is_ignored(e.name)), key=lambda entry: entry.name)
        if patterns:
            # The dataset's own folder is one episode only where --dir says so.
            is_episode = bool(folder) and any(fnmatchcase(name, pattern) for pattern in patterns)
        else:
            files = [entry.name for entry in entries if entry.is_file()]
            is_episode = any(fnmatchcase(file, pattern) for file in files for pattern in schema.anchor_stream.files)
        if is_episode:
            yield folder or ".", list(_walk(root, folder, ignored))
        else:
            pending += [f"{folder}/{e.name}" if folder else e.name for e in entries if e.is_dir()]


def _sort_files(root: Path, folder: str, files: list[RawFile], schema: Schema) -> RawEpisode:
    start = 0 if folder == "." else len(folder) + 1
    relative = {file.path[start:]: file for file in files}
    streams: dict[str, tuple[RawFile, ...]] = {}
    clocks: dict[str, tuple[RawFile, ...]] = {}
    views: dict[str, tuple[str, ...]] = {}
    for stream in schema.streams:
        found = _files_of(stream, stream.files, relative)
        if stream.time.file is not None:
            ours = _files_of(stream, (stream.time.file,), relative)
            # One file without {view} holds the clock of all views.
            clocks |= ours if "{view}" in stream.time.file else dict.fromkeys(found, ours.get(stream.name, ()))
        streams.update(found)
        if isinstance(stream, ImageStream) and stream.many_views:
            views[stream.name] = tuple(found)
    metadata = schema.episodes.metadata
    instruction = schema.instruction.file
    parts = PurePosixPath(folder).parts
    words = {
        "folder": parts[-1] if parts else root.name,
        "parent": parts[-2] if len(parts) > 1 else (root.name if parts else root.parent.name),
        "dataset": root.name,
    }
    return RawEpisode(
        id=folder if folder != "." else root.name,
        task=schema.episodes.task.format(**words),
        folder=folder,
        files=streams,
        views=views,
        metadata=relative.get(metadata) if metadata else None,
        instruction_file=relative.get(instruction) if instruction else None,
        clock_files=clocks,
    )


def _files_of(
    stream: Stream, patterns: tuple[str, ...], relative: dict[str, RawFile]
) -> dict[str, tuple[RawFile, ...]]:
    """The files of the first pattern that fits any, by stream name; with ``{view}`` each view is a stream."""
    for pattern in patterns:
        parts = pattern.replace("{view}", "*").split("/")
        view_part = pattern.split("/").index("{view}") if "{view}" in pattern else None
        found: dict[str, list[RawFile]] = {}
        for path, file in relative.items():
            names = path.split("/")
            if len(names) == len(parts) and all(map(fnmatchcase, names, parts)):
                name = stream.name if view_part is None else _NOT_WORD.sub("_", names[view_part])
                found.setdefault(name, []).append(file)
        if found:
            return {name: tuple(files) for name, files in sorted(found.items())}
    return {} if isinstance(stream, ImageStream) and stream.many_views else {stream.name: ()}

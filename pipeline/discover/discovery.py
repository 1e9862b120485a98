"""Finds the episodes of a dataset and sorts their files into streams; opens no file.

The result depends on names and sizes alone, so that every later decision (shards, splits) can be repeated.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path, PurePosixPath

from vlapipe.pipeline.discover.file_tree import FileTree, RawFile, match_end, walk
from vlapipe.schemas.errors import UsageError, printable
from vlapipe.schemas.schema import ImageStream, Schema, Stream

__all__ = ["Discovery", "RawEpisode", "RawFile", "discover"]

_NOT_WORD = re.compile(r"[^A-Za-z0-9_-]")
_PACKED = {".gz", ".bz2", ".xz", ".zst", ".zip"}
_TABLE = {".csv", ".tsv", ".txt", ".dat", ".log"}


@dataclass(frozen=True, kw_only=True)
class RawEpisode:
    """One episode: ``files`` are those of each stream, in order of their names; each camera is a stream.

    ``clock_files`` are those that hold the clock of a stream, or of a camera, whose schema names such a file. ``rows``
    are the anchor's rows ``rows[0] <= row < rows[1]`` of an episode that is a part of a file, as the reader counts
    them; ``num_rows`` is how many the whole file has.
    """

    id: str
    task: str
    folder: str  # relative to the dataset, "." for the dataset itself
    files: dict[str, tuple[RawFile, ...]]
    cameras: dict[str, tuple[str, ...]]  # of each image stream that has several
    metadata: RawFile | None
    instruction_file: RawFile | None
    clock_files: dict[str, tuple[RawFile, ...]] = field(default_factory=dict)
    stem: str | None = None  # what {stem} stands for where each file is an episode
    rows: tuple[int, int] | None = None
    num_rows: int | None = None
    again_at: int | None = None  # a later row with the same value of split_column, where others lie between

    @property
    def share(self) -> float:
        """How much of its files is this episode's: 1 unless they are cut into several."""
        return (self.rows[1] - self.rows[0]) / self.num_rows if self.rows and self.num_rows else 1.0

    @property
    def every_file(self) -> list[RawFile]:
        """All that is read: its streams', their clocks', its metadata and instruction."""
        groups = [*self.files.values(), *self.clock_files.values()]
        single = [file for file in (self.metadata, self.instruction_file) if file is not None]
        return [*(file for group in groups for file in group), *single]

    @property
    def num_bytes(self) -> int:
        """Bytes of all its streams' files, or its share of them."""
        return int(self.share * sum(file.num_bytes for files in self.files.values() for file in files))


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """Every episode below ``root``, ordered by id."""

    root: Path
    episodes: tuple[RawEpisode, ...]
    num_ignored: int
    unread: tuple[str, ...] = ()  # files of episodes that nothing in the schema asks for
    misnamed: tuple[str, ...] = ()  # left out because of their names, which are escaped here
    not_matched: tuple[str, ...] = ()  # folders that hold an episode's files, and are not called as the schema says


@dataclass(frozen=True)
class _Place:
    """Where an episode is: its folder, and the anchor's file if each file is an episode."""

    folder: str
    stem: str | None = None
    anchor: RawFile | None = None


def discover(root: Path, schema: Schema, *, single: bool = False) -> Discovery:
    """Find the episodes of a dataset; with ``single``, ``root`` itself (a folder, or a file) is the one episode.

    Raises:
        UsageError: there is no such folder, or no episode in it.
    """
    option = "--dir" if single else "--dataset"
    only = None
    if not root.exists():
        raise UsageError(f"{option} {root}: no such folder", "check the path")
    if not root.is_dir():
        if not (single and schema.episodes.per_file):
            raise UsageError(f"{option} {root}: not a folder", "give the folder that holds the recordings")
        root, only = _around(root, schema)
    root = root.resolve()
    tree = walk(root)
    if schema.episodes.per_file:
        places = _files(tree, schema, only)
        if single and len(places) > 1:
            raise UsageError(f"{option} {root}: holds {len(places)} episodes", "give one file, or --dataset")
    else:
        places = [_Place(folder) for folder in (["."] if single else _folders(tree, schema))]
    if not places:
        problem = f"no episode in {root}: schema {schema.name!r} looks for {_looked_for(schema)}"
        not_matched = () if single else _not_matched(tree, places, schema)
        if not_matched:
            problem += f"; {len(not_matched)} others hold an episode's files, such as {not_matched[0]}"
        if tree.misnamed:
            problem += f"; {len(tree.misnamed)} names there are no UTF-8 text or too long, such as {tree.misnamed[0]}"
        raise UsageError(problem, "check the path, or choose another --schema")
    described = _describe(tree, places, schema)
    return described if single else replace(described, not_matched=_not_matched(tree, places, schema))


def _describe(tree: FileTree, places: list[_Place], schema: Schema) -> Discovery:
    ids = _ids(tree.root, places)
    episodes = [_sort_files(tree, place, name, schema) for place, name in zip(places, ids, strict=True)]
    files = list(tree.files.values())
    if not schema.episodes.per_file:
        files = [file for place in places for file in tree.below(place.folder)]
    read = {file.path for episode in episodes for file in episode.every_file}
    return Discovery(
        unread=tuple(sorted(file.path for file in files if file.path not in read)),
        root=tree.root,
        episodes=tuple(sorted(episodes, key=lambda episode: episode.id)),
        num_ignored=tree.num_ignored,
        misnamed=tree.misnamed,
    )


def _looked_for(schema: Schema) -> str:
    if schema.episodes.folders:
        return "folders named " + " or ".join(schema.episodes.folders)
    what = "files named " if schema.episodes.per_file else "folders that hold "
    return what + " or ".join(schema.anchor_stream.files)


def _around(file: Path, schema: Schema) -> tuple[Path, str]:
    """The folder that the anchor's patterns are relative to, and the file's path in it."""
    for pattern in schema.anchor_stream.files:
        if match_end(file.as_posix(), pattern) is not None:
            folder = file.parents[pattern.count("/")]
            return folder, file.relative_to(folder).as_posix()
    raise UsageError(f"--dir {file}: schema {schema.name!r} looks for {_looked_for(schema)}", "choose another --schema")


def _folders(tree: FileTree, schema: Schema) -> list[str]:
    """Folders that are episodes; what lies below one belongs to it."""
    patterns = schema.episodes.folders
    if patterns:
        # The dataset's own folder is one episode only where --dir says so.
        fits = {f for f in tree.folders if any(fnmatchcase(PurePosixPath(f).name, pattern) for pattern in patterns)}
    else:
        fits = {place.folder for place in _anchor_files(tree, schema)}
    return sorted(folder for folder in fits if fits.isdisjoint(str(p) for p in PurePosixPath(folder).parents))


def _not_matched(tree: FileTree, places: list[_Place], schema: Schema) -> tuple[str, ...]:
    """Folders outside all episodes that hold the anchor's file, where the schema says how episodes are called.

    What lies below one belongs to it, as below an episode; but every folder lies below the dataset's own.
    """
    if schema.episodes.per_file or not schema.episodes.folders:
        return ()
    episodes = {place.folder for place in places}
    holding = {place.folder for place in _anchor_files(tree, schema)} - episodes
    above = (episodes | holding) - {"."}
    outside = (f for f in holding if above.isdisjoint(str(p) for p in PurePosixPath(f).parents))
    return tuple(sorted(tree.root.name if folder == "." else folder for folder in outside))


def _anchor_files(tree: FileTree, schema: Schema) -> list[_Place]:
    """Each file that fits one of the anchor's patterns, relative to the folder that the pattern begins in."""
    places = []
    for path, file in tree.files.items():
        for pattern in schema.anchor_stream.files:
            values = match_end(path, pattern)
            if values is not None:
                folder = str(PurePosixPath(path).parents[pattern.count("/")])
                places.append(_Place(folder, values.get("stem") or _without_extension(PurePosixPath(path).name), file))
                break
    return places


def _files(tree: FileTree, schema: Schema, only: str | None) -> list[_Place]:
    """The anchor's files, but for those that belong to another one: ``run1_force.csv`` where ``run1.csv`` has one."""
    places = _anchor_files(tree, schema)
    if only is not None:
        return [place for place in places if place.anchor and place.anchor.path == only]
    others = [pattern for s in schema.streams if s.name != schema.anchor for pattern in s.files if "{stem}" in pattern]
    taken = set()
    for place in places if others else ():
        for pattern in others:
            found = tree.find(place.folder, pattern, place.stem)
            if len(found) == 1 and found[0].file != place.anchor:
                taken.add(found[0].file)
    return [place for place in places if place.anchor not in taken]


def _without_extension(name: str) -> str:
    path = PurePosixPath(name)
    inner = PurePosixPath(path.stem)
    return inner.stem if path.suffix.lower() in _PACKED and inner.suffix.lower() in _TABLE else path.stem


def _ids(root: Path, places: list[_Place]) -> list[str]:
    """A folder's path, or a file's without its extension; with it where two would have the same id.

    What cannot be printed on one line is escaped.
    """
    full = [place.anchor.path if place.anchor else place.folder for place in places]
    full = [root.name if path == "." else path for path in full]
    ids = [
        str(PurePosixPath(path).with_name(_without_extension(PurePosixPath(path).name))) if place.anchor else path
        for place, path in zip(places, full, strict=True)
    ]
    while True:
        counts = Counter(ids)
        if len(counts) == len(ids):
            break
        ids = [path if counts[name] > 1 else name for name, path in zip(ids, full, strict=True)]
    shown = [printable(name) for name in ids]
    counts = Counter(shown)
    return [
        text if counts[text] == 1 else f"{text}~{sha256(os.fsencode(name)).hexdigest()[:6]}"
        for text, name in zip(shown, ids, strict=True)
    ]


def _sort_files(tree: FileTree, place: _Place, name: str, schema: Schema) -> RawEpisode:
    streams: dict[str, tuple[RawFile, ...]] = {}
    clocks: dict[str, tuple[RawFile, ...]] = {}
    cameras: dict[str, tuple[str, ...]] = {}
    for stream in schema.streams:
        if place.anchor and stream.name == schema.anchor:
            found: dict[str, tuple[RawFile, ...]] = {stream.name: (place.anchor,)}
        else:
            found = _files_of(tree, place, stream, stream.files)
        if stream.time.file is not None:
            ours = _files_of(tree, place, stream, (stream.time.file,))
            # One file without {camera} holds the clock of all cameras.
            clocks |= ours if "{camera}" in stream.time.file else dict.fromkeys(found, ours.get(stream.name, ()))
        streams.update(found)
        if isinstance(stream, ImageStream) and stream.many_cameras:
            cameras[stream.name] = tuple(found)
    # An episode that is a file has the folder that holds it for its folder and its parent.
    parts = PurePosixPath(place.folder).parts
    folder = parts[-1] if parts else tree.root.name
    above = parts[-2] if len(parts) > 1 else (tree.root.name if parts else tree.root.parent.name)
    words = {"folder": folder, "parent": folder if place.anchor else above, "dataset": tree.root.name}
    return RawEpisode(
        id=name,
        task=printable(schema.episodes.task.format(**words, stem=place.stem)),
        folder=place.folder,
        files=streams,
        cameras=cameras,
        metadata=_one_file(tree, place, schema.episodes.metadata),
        instruction_file=_one_file(tree, place, schema.instruction.file),
        clock_files=clocks,
        stem=place.stem,
    )


def _one_file(tree: FileTree, place: _Place, name: str | None) -> RawFile | None:
    """A file with that very name, which may hold ``{stem}``."""
    if not name:
        return None
    name = name.replace("{stem}", place.stem or "{stem}")
    return tree.files.get(name if place.folder == "." else f"{place.folder}/{name}")


def _files_of(
    tree: FileTree, place: _Place, stream: Stream, patterns: tuple[str, ...]
) -> dict[str, tuple[RawFile, ...]]:
    """The files of the first pattern that fits any, by stream name; with ``{camera}`` each camera is a stream."""
    for pattern in patterns:
        found = tree.find(place.folder, pattern, place.stem)
        if not found:
            continue
        by_camera: dict[str, list[RawFile]] = {}
        for one in found:
            by_camera.setdefault(one.camera or "", []).append(one.file)
        files: dict[str, tuple[RawFile, ...]] = {}
        cameras: dict[str, str] = {}
        for camera, ours in by_camera.items():
            name = _stream_name(camera) if camera else stream.name
            if name in files:
                where = f"cameras {cameras[name]!r} and {camera!r} in {place.folder}"
                raise UsageError(f"{where} would have the same name, {name!r}", "rename one of the folders")
            files[name], cameras[name] = tuple(ours), camera
        return dict(sorted(files.items()))
    return {} if isinstance(stream, ImageStream) and stream.many_cameras else {stream.name: ()}


def _stream_name(camera: str) -> str:
    """A camera's name as its arrays are called; what such a name cannot hold leaves a trace, so that none is lost."""
    name = _NOT_WORD.sub("_", camera)
    return name if camera.isascii() else f"{name}_{sha256(camera.encode()).hexdigest()[:6]}"

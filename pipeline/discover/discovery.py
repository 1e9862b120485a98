"""Finds the episodes of a dataset and sorts their files into streams. No file is opened.

The result depends only on names and sizes, so that every later decision (shards, splits) can be repeated.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from vlapipe.pipeline.discover.file_tree import FileTree, RawFile, excluded_by, match_end, walk
from vlapipe.schemas.errors import UsageError, printable
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import ImageStream, Schema, Stream
from vlapipe.schemas.templates import fill_template

__all__ = [
    "Discovery",
    "MetadataSays",
    "RawEpisode",
    "RawFile",
    "discover",
    "links_outside",
    "stream_name",
    "without_excluded",
]

_NOT_WORD = re.compile(r"[^A-Za-z0-9_-]")
_PACKED = {".gz", ".bz2", ".xz", ".zst", ".zip"}
_INSIDE = {".csv", ".tsv", ".txt", ".dat", ".log", ".zarr"}  # kinds of files that lie packed in others


@dataclass(frozen=True, kw_only=True)
class MetadataSays:
    """What a dataset's own metadata says about the rows of an episode. Reading the rows compares them with it.

    ``first_row`` counts in the whole dataset. ``tasks`` are the episode's texts by their numbers, ``dtypes`` those of
    columns by name.
    """

    episode_index: int
    length: int
    first_row: int | None
    rate_hz: float
    tasks: tuple[tuple[int, str], ...]
    dtypes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class RawEpisode:
    """One episode. ``files`` holds the files of each stream, sorted by name; each camera is a stream.

    ``clock_files`` holds the clock's files of each stream or camera whose schema names such a file. If the episode is a
    part of a file, its anchor rows are ``rows[0] <= row < rows[1]``, counted as the reader returns them, and
    ``num_rows`` is the number of rows of the whole file.
    """

    id: str
    task: str
    folder: str  # relative to the dataset; "." for the dataset's own folder
    files: dict[str, tuple[RawFile, ...]]
    cameras: dict[str, tuple[str, ...]]  # by image stream, for streams with several cameras
    metadata: RawFile | None
    instruction_file: RawFile | None
    clock_files: dict[str, tuple[RawFile, ...]] = field(default_factory=dict)
    stem: str | None = None  # the value of {stem} if each file is an episode
    rows: tuple[int, int] | None = None
    num_rows: int | None = None
    again_at: int | None = None  # a later row with the same value of split_column, after rows with other values
    entry: dict[str, Any] = field(default_factory=dict)  # of the dataset's table of metadata
    group: str | None = None  # the episode's group in its container
    times: dict[str, tuple[float, float]] = field(default_factory=dict)  # seconds of a video that are the episode's
    shares: dict[str, float] = field(default_factory=dict)  # of a stream's files; else ``share`` of each
    missing: dict[str, str] = field(default_factory=dict)  # by stream: a file that metadata names and that is not there
    says: MetadataSays | None = None
    container: RawFile | None = None  # the anchor's container; its attributes are metadata
    reads_part: bool = False  # only ``rows`` are read, not the whole file
    num_groups: int = 1  # episodes in the container, each a group
    ranges: RawFile | None = None  # the file with the numbers of each episode's files
    numbers: tuple[int, int] | None = None  # the first and the last number of the episode's files

    @property
    def share(self) -> float:
        """Returns the fraction of the files that belongs to this episode: 1 unless the files are cut into several."""
        rows = (self.rows[1] - self.rows[0]) / self.num_rows if self.rows and self.num_rows else 1.0
        return rows / self.num_groups

    def share_of(self, stream: str) -> float:
        """Returns the fraction of a stream's files that belongs to this episode."""
        return self.shares.get(stream, self.share)

    @property
    def every_file(self) -> list[RawFile]:
        """Returns all files that are read: those of streams and clocks, the metadata and the instruction."""
        groups = [*self.files.values(), *self.clock_files.values()]
        single = [file for file in (self.metadata, self.instruction_file, self.ranges) if file is not None]
        return [*(file for group in groups for file in group), *single]

    @property
    def num_bytes(self) -> int:
        """Returns the bytes of the streams' files that are this episode's; a file of several streams counts once."""
        sizes = {
            file.path: self.share_of(name) * file.num_bytes for name, files in self.files.items() for file in files
        }
        return int(sum(sizes.values()))


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """Every episode below ``root``, sorted by id."""

    root: Path
    episodes: tuple[RawEpisode, ...]
    num_ignored: int
    unread: tuple[str, ...] = ()  # files in episodes that the schema does not ask for
    misnamed: tuple[str, ...] = ()  # files and folders left out because of their names, which are escaped here
    not_matched: tuple[str, ...] = ()  # folders that hold an episode's files, but do not match the schema's folders
    left_out: dict[str, tuple[str, ...]] = field(default_factory=dict)  # ids of episodes left out, by what leaves out
    findings: tuple[Finding, ...] = ()  # faults of the dataset's own metadata


@dataclass(frozen=True)
class _Place:
    """The location of an episode: its folder and, if each file is an episode, the anchor's file."""

    folder: str
    stem: str | None = None
    anchor: RawFile | None = None


def discover(root: Path, schema: Schema, *, single: bool = False, tree: FileTree | None = None) -> Discovery:
    """Finds the episodes of a dataset. With ``single``, ``root`` itself (a folder or a file) is the one episode.

    ``tree`` holds the files below ``root`` if they have been listed before.

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
    tree = walk(root) if tree is None else tree
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
    if not described.episodes:
        problem = f"exclude in schema {schema.name!r} leaves out all {len(places)} episodes, such as"
        raise UsageError(f"{root}: {problem} {_ids(tree.root, places)[0]}", "correct exclude, or the path")
    return described if single else replace(described, not_matched=_not_matched(tree, places, schema))


def _describe(tree: FileTree, places: list[_Place], schema: Schema) -> Discovery:
    ids = _ids(tree.root, places)
    every = [_sort_files(tree, place, name, schema) for place, name in zip(places, ids, strict=True)]
    episodes, left_out = without_excluded(every, schema)
    files = list(tree.files.values())
    if not schema.episodes.per_file:
        files = [file for episode in episodes for file in tree.below(episode.folder)]
    read = {file.path for episode in every for file in episode.every_file}
    return Discovery(
        unread=tuple(sorted(file.path for file in files if file.path not in read)),
        root=tree.root,
        episodes=tuple(sorted(episodes, key=lambda episode: episode.id)),
        num_ignored=tree.num_ignored,
        misnamed=tree.misnamed,
        left_out=left_out,
        findings=tuple(links_outside(tree, schema)),
    )


def links_outside(tree: FileTree, schema: Schema) -> Findings:
    """Returns a finding if links lead out of the dataset's folder: a downloaded dataset may name any file so."""
    findings = Findings(schema.checks.severity)
    if tree.outside:
        first = tree.outside[0]
        found = f"a link to {os.path.realpath(tree.root / first)}"
        findings.add("file.outside", first, expected="files of the dataset", found=found, count=len(tree.outside))
    return findings


def without_excluded(every: list[RawEpisode], schema: Schema) -> tuple[list[RawEpisode], dict[str, tuple[str, ...]]]:
    """Returns the episodes that ``exclude`` leaves in, and the ids of the others by the pattern that leaves out."""
    left_out: dict[str, tuple[str, ...]] = {}
    episodes = []
    for episode in every:
        rule = excluded_by(episode.id, schema.episodes.exclude)
        if rule is None:
            episodes.append(episode)
        else:
            left_out[f"exclude {rule}"] = (*left_out.get(f"exclude {rule}", ()), episode.id)
    return episodes, left_out


def _looked_for(schema: Schema) -> str:
    if schema.episodes.folders:
        return "folders named " + " or ".join(schema.episodes.folders)
    what = "files named " if schema.episodes.per_file else "folders that hold "
    return what + " or ".join(schema.anchor_stream.files)


def _around(file: Path, schema: Schema) -> tuple[Path, str]:
    """Returns the folder that the anchor's patterns are relative to, and the file's path in that folder."""
    for pattern in schema.anchor_stream.files:
        if match_end(file.as_posix(), pattern) is not None:
            folder = file.parents[pattern.count("/")]
            return folder, file.relative_to(folder).as_posix()
    raise UsageError(f"--dir {file}: schema {schema.name!r} looks for {_looked_for(schema)}", "choose another --schema")


def _folders(tree: FileTree, schema: Schema) -> list[str]:
    """Returns the folders that are episodes. Everything below such a folder belongs to the episode."""
    patterns = schema.episodes.folders
    if patterns:
        # The dataset's own folder is an episode only if --dir says so.
        fits = {f for f in tree.folders if any(fnmatchcase(PurePosixPath(f).name, pattern) for pattern in patterns)}
    else:
        fits = {place.folder for place in _anchor_files(tree, schema)}
    return sorted(folder for folder in fits if fits.isdisjoint(str(p) for p in PurePosixPath(folder).parents))


def _not_matched(tree: FileTree, places: list[_Place], schema: Schema) -> tuple[str, ...]:
    """Returns folders outside all episodes that hold the anchor's file, if the schema says how episodes are named.

    What lies below such a folder belongs to it, as with an episode. The dataset's own folder is an exception, because
    every folder lies below it.
    """
    if schema.episodes.per_file or not schema.episodes.folders:
        return ()
    episodes = {place.folder for place in places}
    holding = {place.folder for place in _anchor_files(tree, schema)} - episodes
    above = (episodes | holding) - {"."}
    outside = (f for f in holding if above.isdisjoint(str(p) for p in PurePosixPath(f).parents))
    outside = (f for f in outside if excluded_by(f, schema.episodes.exclude) is None)
    return tuple(sorted(tree.root.name if folder == "." else folder for folder in outside))


def _anchor_files(tree: FileTree, schema: Schema) -> list[_Place]:
    """Returns each file that fits one of the anchor's patterns, with the folder in which the pattern begins."""
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
    """Returns the anchor's files, except files of another one: ``run1_force.csv`` may belong to ``run1.csv``."""
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
    return inner.stem if path.suffix.lower() in _PACKED and inner.suffix.lower() in _INSIDE else path.stem


def _ids(root: Path, places: list[_Place]) -> list[str]:
    """Returns ids: a folder's path, or a file's path without its extension.

    If two episodes would have the same id, the extension is kept. Characters that cannot be printed on one line are
    escaped.
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
        if place.anchor and stream.files == schema.anchor_stream.files:  # the anchor, or a stream of the same container
            # Only of a bag's topics do the schema's cameras say the names; of arrays the container says them.
            of_topics = isinstance(stream, ImageStream) and stream.many_cameras and not stream.array
            names = stream.cameras if isinstance(stream, ImageStream) and of_topics else (stream.name,)
            found: dict[str, tuple[RawFile, ...]] = dict.fromkeys(names, (place.anchor,))
        else:
            found = _files_of(tree, place, stream, stream.files)
        if stream.time.file is not None:
            clocks |= _clocks_of(tree, place, stream, stream.time.file, found)
        streams.update(found)
        if isinstance(stream, ImageStream) and stream.many_cameras:
            cameras[stream.name] = tuple(name for name in found if name != stream.name or not stream.array)
    # If an episode is a file, the folder that holds the file is both its folder and its parent.
    parts = PurePosixPath(place.folder).parts
    folder = parts[-1] if parts else tree.root.name
    above = parts[-2] if len(parts) > 1 else (tree.root.name if parts else tree.root.parent.name)
    words = {"folder": folder, "parent": folder if place.anchor else above, "dataset": tree.root.name}
    anchor = streams[schema.anchor]
    has_attributes = schema.anchor_stream.kind in ("hdf5", "zarr") and len(anchor) == 1
    return RawEpisode(
        container=anchor[0] if has_attributes else None,
        ranges=_one_file(tree, place, schema.episodes.ranges),
        id=name,
        task=printable(fill_template(schema.episodes.task, {**words, "stem": place.stem})),
        folder=place.folder,
        files=streams,
        cameras=cameras,
        metadata=_one_file(tree, place, schema.episodes.metadata),
        instruction_file=_one_file(tree, place, schema.instruction.file),
        clock_files=clocks,
        stem=place.stem,
    )


def _one_file(tree: FileTree, place: _Place, name: str | None) -> RawFile | None:
    """Returns the file that fits the pattern ``name``, which may contain ``{stem}``; ``None`` if there is none.

    Raises:
        UsageError: several files fit the pattern.
    """
    found = tree.find(place.folder, name, place.stem) if name else []
    if len(found) > 1:
        problem = f"{place.folder}: {len(found)} files fit {name!r}, such as {found[0].file.path}"
        raise UsageError(problem, "make the name in the schema narrower")
    return found[0].file if found else None


def _clocks_of(
    tree: FileTree, place: _Place, stream: Stream, pattern: str, names: Iterable[str]
) -> dict[str, tuple[RawFile, ...]]:
    """Returns the clock's files of each stream or camera; a pattern without ``{camera}`` names the clock of all."""
    if "{camera}" in pattern:
        return _files_of(tree, place, stream, (pattern,))
    return dict.fromkeys(names, tuple(one.file for one in tree.find(place.folder, pattern, place.stem)))


def _files_of(
    tree: FileTree, place: _Place, stream: Stream, patterns: tuple[str, ...]
) -> dict[str, tuple[RawFile, ...]]:
    """Returns the files of the first pattern that fits any, by stream; with ``{camera}``, each camera is a stream."""
    for pattern in patterns:
        found = tree.find(place.folder, pattern, place.stem)
        if not found:
            continue
        if isinstance(stream, ImageStream) and any("{camera}" in name for name in stream.array):
            return {stream.name: tuple(one.file for one in found)}  # until the container says which cameras it has
        if isinstance(stream, ImageStream) and stream.many_cameras and "{camera}" not in pattern:
            return {camera: tuple(one.file for one in found) for camera in stream.cameras}  # all in one container
        by_camera: dict[str, list[RawFile]] = {}
        for one in found:
            by_camera.setdefault(one.camera or "", []).append(one.file)
        files: dict[str, tuple[RawFile, ...]] = {}
        cameras: dict[str, str] = {}
        for camera, ours in by_camera.items():
            name = stream_name(camera) if camera else stream.name
            if name in files:
                where = f"cameras {cameras[name]!r} and {camera!r} in {place.folder}"
                raise UsageError(f"{where} would have the same name, {name!r}", "rename one of the folders")
            files[name], cameras[name] = tuple(ours), camera
        return dict(sorted(files.items()))
    return {} if isinstance(stream, ImageStream) and stream.many_cameras else {stream.name: ()}


def stream_name(camera: str) -> str:
    """Returns a camera's name as its arrays have it. If characters are replaced, a digest keeps the name unique."""
    name = _NOT_WORD.sub("_", camera)
    return name if camera.isascii() else f"{name}_{sha256(camera.encode()).hexdigest()[:6]}"

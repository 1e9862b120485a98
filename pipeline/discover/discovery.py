"""Finds the episodes of a dataset and sorts their files into streams. No file is opened.

The result depends only on names and sizes, so that every later decision (shards, splits) can be repeated. An episode
that has been found keeps no names of many files, so that a year of recordings fits into memory.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path, PurePosixPath

from vlapipe.pipeline.discover.file_tree import FileTree, Walk, excluded_by, join, match_end
from vlapipe.pipeline.discover.listing import Listing, RawFile
from vlapipe.pipeline.discover.many_files import ManyFiles
from vlapipe.pipeline.discover.packed import Packed
from vlapipe.pipeline.discover.raw_episode import MetadataSays, RawEpisode, digest_of
from vlapipe.pipeline.discover.unread import Unread, merged, unread_of
from vlapipe.schemas.errors import UsageError, printable
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import ImageStream, Schema, Stream
from vlapipe.schemas.templates import fill_template

__all__ = [
    "Discovery",
    "MetadataSays",
    "RawEpisode",
    "called",
    "discover",
    "links_outside",
    "stream_name",
    "without_excluded",
]

_NOT_WORD = re.compile(r"[^A-Za-z0-9_-]")
_FEW = 4  # files of a stream whose names are kept
_PACKED = {".gz", ".bz2", ".xz", ".zst", ".zip"}
_INSIDE = {".csv", ".tsv", ".txt", ".dat", ".log", ".zarr"}  # kinds of files that lie packed in others


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """Every episode below ``root``, sorted by id."""

    root: Path
    episodes: Sequence[RawEpisode]
    num_ignored: int
    beside: tuple[Unread, ...] = ()  # files that the schema does not ask for, where each episode is a file
    misnamed: tuple[str, ...] = ()  # files and folders left out because of their names, which are escaped here
    not_matched: tuple[str, ...] = ()  # folders that hold an episode's files, but do not match the schema's folders
    left_out: dict[str, tuple[str, ...]] = field(default_factory=dict)  # ids of episodes left out, by what leaves out
    findings: tuple[Finding, ...] = ()  # faults of the dataset's own metadata

    @property
    def unread(self) -> tuple[Unread, ...]:
        """Returns the files that the schema does not ask for, by their kind."""
        of_folders = {episode.folder: episode.unread for episode in self.episodes}  # parts of one folder share it
        return merged([self.beside, *of_folders.values()])


@dataclass(frozen=True)
class _Place:
    """The location of an episode: its folder and, if each file is an episode, the anchor's file."""

    folder: str
    stem: str | None = None
    anchor: RawFile | None = None

    @property
    def path(self) -> str:
        return self.anchor.path if self.anchor else self.folder


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
    tree = tree or FileTree(root.resolve())
    walked = Walk(tree)
    not_matched: list[str] = []
    num_files: dict[str, int] = {}
    if schema.episodes.per_file:
        found = Packed(_in_files(walked, schema, only, num_files, single=single))
    else:
        folders = iter(["."]) if single else _folders(walked, schema, not_matched)
        found = Packed(_in_folder(walked, _Place(folder), schema) for folder in folders)
    if not found:
        problem = f"no episode in {tree.root}: schema {schema.name!r} looks for {_looked_for(schema)}"
        if not_matched:
            problem += f"; {len(not_matched)} others hold an episode's files, such as {min(not_matched)}"
        if walked.misnamed:
            names = walked.misnamed
            problem += f"; {len(names)} names there are no UTF-8 text or too long, such as {min(names)}"
        raise UsageError(problem, "check the path, or choose another --schema")
    beside = _beside(tree, num_files, found, schema)
    ids = _ids(tree.root, found, schema)
    chosen, left_out = without_excluded(ids, schema)
    if not chosen:
        problem = f"exclude in schema {schema.name!r} leaves out all {len(ids)} episodes, such as"
        raise UsageError(f"{tree.root}: {problem} {min(ids)}", "correct exclude, or the path")
    return Discovery(
        root=tree.root,
        episodes=called(found, ids, set(chosen)),
        num_ignored=walked.num_ignored,
        beside=beside,
        misnamed=tuple(sorted(walked.misnamed)),
        not_matched=tuple(sorted(not_matched)),
        left_out=left_out,
        findings=tuple(links_outside(tree.root, walked.outside, schema)),
    )


def called(episodes: Sequence[RawEpisode], ids: list[str], chosen: Container[str]) -> Packed:
    """Returns the chosen episodes under these ids, sorted by id. ``ids`` has an id for each episode."""
    order = sorted((i for i, name in enumerate(ids) if name in chosen), key=ids.__getitem__)
    return Packed(replace(episodes[i], id=ids[i]) for i in order)


def links_outside(root: Path, links: Sequence[str], schema: Schema) -> Findings:
    """Returns a finding if links lead out of the dataset's folder: a downloaded dataset may name any file so."""
    findings = Findings(schema.checks.severity)
    if links:
        first = min(links)
        found = f"a link to {os.path.realpath(root / first)}"
        findings.add("file.outside", first, expected="files of the dataset", found=found, count=len(links))
    return findings


def without_excluded(ids: Iterable[str], schema: Schema) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """Returns the episodes that ``exclude`` leaves in, and those it leaves out by the pattern that does so."""
    left_out: dict[str, list[str]] = {}
    chosen: list[str] = []
    for name in ids:
        rule = excluded_by(name, schema.episodes.exclude)
        (chosen if rule is None else left_out.setdefault(f"exclude {rule}", [])).append(name)
    return chosen, {rule: tuple(names) for rule, names in left_out.items()}


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


def _folders(walked: Walk, schema: Schema, not_matched: list[str]) -> Iterator[str]:
    """Yields the folders that are episodes. Everything below such a folder belongs to the episode.

    ``not_matched`` takes the folders outside all episodes that hold the anchor's file, if the schema says how episodes
    are named. What lies below such a folder belongs to it, too. The dataset's own folder is an exception, because every
    folder lies below it.
    """
    patterns, tree = schema.episodes.folders, walked.tree
    pending = [(".", False)]  # a folder, and whether it lies in one that is not matched
    while pending:
        folder, is_within = pending.pop()
        name = PurePosixPath(folder).name
        # Whatever its name, the dataset's own folder is an episode only if --dir says so.
        if any(fnmatchcase(name, pattern) for pattern in patterns) and folder != ".":
            yield folder
            continue
        if not is_within and _holds_anchor(tree, folder, schema):
            if not patterns:
                yield folder
                continue
            if excluded_by(folder, schema.episodes.exclude) is None:
                not_matched.append(tree.root.name if folder == "." else folder)
            is_within = folder != "."
        pending += [(join(folder, name), is_within) for name in reversed(walked.visit(folder).folders)]


def _holds_anchor(tree: FileTree, folder: str, schema: Schema) -> bool:
    """Returns whether one of the anchor's patterns fits a file in this folder, and no earlier one in a folder below."""
    patterns = schema.anchor_stream.files
    return any(
        not any(match_end(found.file.path, earlier) for earlier in patterns[:i])
        for i, pattern in enumerate(patterns)
        for found in tree.find(folder, pattern)
    )


def _in_folder(walked: Walk, place: _Place, schema: Schema) -> RawEpisode:
    """Returns the episode of a folder. All files below it are listed, and the names of many are then forgotten."""
    files = [file for _, listing in walked.below(place.folder) for file in listing.files.values()]
    episode, read = _sort_files(walked.tree, place, schema)
    return replace(episode, unread=unread_of(file.path for file in files if file.path not in read))


def _in_files(
    walked: Walk, schema: Schema, only: str | None, num_files: dict[str, int], *, single: bool
) -> Iterator[RawEpisode]:
    """Yields an episode for each of the anchor's files. ``num_files`` takes the number of files in each folder."""
    places: list[_Place] = []
    for folder, listing in walked.below("."):
        num_files[folder] = len(listing.files)
        places += _anchor_files(listing, schema)
    walked.tree.kept_files = max(walked.tree.kept_files, 4 * len(places))
    places = _without_others(walked.tree, sorted(places, key=lambda place: place.path), schema, only)
    if single and len(places) > 1:
        raise UsageError(f"--dir {walked.tree.root}: holds {len(places)} episodes", "give one file, or --dataset")
    yield from (_sort_files(walked.tree, place, schema)[0] for place in places)


def _anchor_files(listing: Listing, schema: Schema) -> Iterator[_Place]:
    """Yields each file that fits one of the anchor's patterns, with the folder in which the pattern begins."""
    for file in listing.files.values():
        for pattern in schema.anchor_stream.files:
            values = match_end(file.path, pattern)
            if values is not None:
                path = PurePosixPath(file.path)
                folder = str(path.parents[pattern.count("/")])
                yield _Place(folder, values.get("stem") or _without_extension(path.name), file)
                break


def _without_others(tree: FileTree, places: list[_Place], schema: Schema, only: str | None) -> list[_Place]:
    """Returns the anchor's files, except files of another one: ``run1_force.csv`` may belong to ``run1.csv``."""
    if only is not None:
        return [place for place in places if place.path == only]
    others = [pattern for s in schema.streams if s.name != schema.anchor for pattern in s.files if "{stem}" in pattern]
    taken = set()
    for place in places if others else ():
        for pattern in others:
            found = tree.find(place.folder, pattern, place.stem)
            if len(found) == 1 and found[0].file != place.anchor:
                taken.add(found[0].file)
    return [place for place in places if place.anchor not in taken]


def _beside(
    tree: FileTree, num_files: Mapping[str, int], episodes: Iterable[RawEpisode], schema: Schema
) -> tuple[Unread, ...]:
    """Returns the files in these folders that belong to no episode, where each episode is a file."""
    if not num_files:
        return ()
    read = {schema.episodes.metadata_table}
    of_folder: dict[str, list[ManyFiles]] = {}
    for episode in episodes:
        for files in (*episode.files.values(), *episode.clock_files.values()):
            folder = files.only_folder if isinstance(files, ManyFiles) else None
            if isinstance(files, ManyFiles) and folder is not None:
                of_folder.setdefault(folder, []).append(files)
            else:
                read.update(file.path for file in files)
        read.update(file.path for file in (episode.metadata, episode.instruction_file, episode.ranges) if file)
    found = []
    for folder, count in num_files.items():
        ours = of_folder.get(folder, [])
        listing = None if len(ours) == 1 and len(ours[0]) == count else tree.listing(folder)
        if listing is None:
            continue
        many = {file.path for files in ours for file in files}
        found.append(unread_of(f.path for f in listing.files.values() if f.path not in read and f.path not in many))
    return merged(found)


def _without_extension(name: str) -> str:
    path = PurePosixPath(name)
    inner = PurePosixPath(path.stem)
    return inner.stem if path.suffix.lower() in _PACKED and inner.suffix.lower() in _INSIDE else path.stem


def _ids(root: Path, episodes: Iterable[RawEpisode], schema: Schema) -> list[str]:
    """Returns ids of episodes that are called by their path: a folder's path, or a file's path without its extension.

    If two episodes would have the same id, the extension is kept. Characters that cannot be printed on one line are
    escaped.
    """
    full = [root.name if episode.id == "." else episode.id for episode in episodes]
    is_file = schema.episodes.per_file
    ids = [
        str(PurePosixPath(path).with_name(_without_extension(PurePosixPath(path).name))) if is_file else path
        for path in full
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


@dataclass(frozen=True)
class _Matched:
    """The files of a stream, all names of them, and how they were found."""

    files: tuple[RawFile, ...]
    pattern: str = ""
    camera: str | None = None

    def kept(self, tree: FileTree, place: _Place) -> Sequence[RawFile]:
        """Returns the files as an episode keeps them."""
        if len(self.files) <= _FEW:
            return self.files
        return ManyFiles.of(tree.root, place.folder, self.pattern, place.stem, self.camera, self.files)


def _sort_files(tree: FileTree, place: _Place, schema: Schema) -> tuple[RawEpisode, set[str]]:
    """Returns the episode of a place, with its path as its id, and the paths of all its files."""
    streams: dict[str, _Matched] = {}
    clocks: dict[str, _Matched] = {}
    cameras: dict[str, tuple[str, ...]] = {}
    for stream in schema.streams:
        if place.anchor and stream.files == schema.anchor_stream.files:  # the anchor, or a stream of the same container
            # Only of a bag's topics do the schema's cameras say the names; of arrays the container says them.
            of_topics = isinstance(stream, ImageStream) and stream.many_cameras and not stream.array
            names = stream.cameras if isinstance(stream, ImageStream) and of_topics else (stream.name,)
            found = dict.fromkeys(names, _Matched((place.anchor,)))
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
    anchor = streams[schema.anchor].files
    has_attributes = schema.anchor_stream.kind in ("hdf5", "zarr") and len(anchor) == 1
    whole = RawEpisode(
        container=anchor[0] if has_attributes else None,
        ranges=_one_file(tree, place, schema.episodes.ranges),
        id=place.path,
        task=printable(fill_template(schema.episodes.task, {**words, "stem": place.stem})),
        folder=place.folder,
        files={name: each.files for name, each in streams.items()},
        cameras=cameras,
        metadata=_one_file(tree, place, schema.episodes.metadata),
        instruction_file=_one_file(tree, place, schema.instruction.file),
        clock_files={name: each.files for name, each in clocks.items()},
        stem=place.stem,
    )
    every = whole.every_file
    files, clock_files = ({name: m.kept(tree, place) for name, m in of.items()} for of in (streams, clocks))
    kept = replace(whole, files=files, clock_files=clock_files, digest=digest_of(every))
    return kept, {file.path for file in every}


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
) -> dict[str, _Matched]:
    """Returns the clock's files of each stream or camera; a pattern without ``{camera}`` names the clock of all."""
    if "{camera}" in pattern:
        return _files_of(tree, place, stream, (pattern,))
    found = tuple(one.file for one in tree.find(place.folder, pattern, place.stem))
    return dict.fromkeys(names, _Matched(found, pattern))


def _files_of(tree: FileTree, place: _Place, stream: Stream, patterns: tuple[str, ...]) -> dict[str, _Matched]:
    """Returns the files of the first pattern that fits any, by stream; with ``{camera}``, each camera is a stream."""
    for pattern in patterns:
        found = tree.find(place.folder, pattern, place.stem)
        if not found:
            continue
        if isinstance(stream, ImageStream) and any("{camera}" in name for name in stream.array):
            every = _Matched(tuple(one.file for one in found), pattern)
            return {stream.name: every}  # until the container says which cameras it has
        if isinstance(stream, ImageStream) and stream.many_cameras and "{camera}" not in pattern:
            every = _Matched(tuple(one.file for one in found), pattern)
            return dict.fromkeys(stream.cameras, every)  # all in one container
        by_camera: dict[str, list[RawFile]] = {}
        for one in found:
            by_camera.setdefault(one.camera or "", []).append(one.file)
        files: dict[str, _Matched] = {}
        for camera, ours in by_camera.items():
            name = stream_name(camera) if camera else stream.name
            if name in files:
                where = f"cameras {files[name].camera!r} and {camera!r} in {place.folder}"
                raise UsageError(f"{where} would have the same name, {name!r}", "rename one of the folders")
            files[name] = _Matched(tuple(ours), pattern, camera or None)
        return dict(sorted(files.items()))
    return {} if isinstance(stream, ImageStream) and stream.many_cameras else {stream.name: _Matched(())}


def stream_name(camera: str) -> str:
    """Returns a camera's name as its arrays have it. If characters are replaced, a digest keeps the name unique."""
    name = _NOT_WORD.sub("_", camera)
    return name if camera.isascii() else f"{name}_{sha256(camera.encode()).hexdigest()[:6]}"

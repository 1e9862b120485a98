"""Adds the episodes of other datasets to a dataset as its next generation. Shards are linked, or else copied.

The datasets must be equal in what they store. An episode that several have is taken once; what the dataset says of it
stands. Statistics are merged from the sums that the datasets keep.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from vlapipe.pipeline.build.made_from import MadeFrom
from vlapipe.pipeline.change.append import given_by
from vlapipe.pipeline.change.commit import Said, commit
from vlapipe.pipeline.change.comparison import known_recordings, unit_of
from vlapipe.pipeline.change.contents import Contents
from vlapipe.pipeline.change.statistics import taken_of
from vlapipe.pipeline.change.work_folder import UNTIDY, work_folder
from vlapipe.pipeline.read.images.image_options import JPEG_QUALITY
from vlapipe.pipeline.shards.dataset import Dataset, open_dataset
from vlapipe.pipeline.shards.format.atomic import fsync_folder, whole_file
from vlapipe.pipeline.shards.format.digest import file_sha256, require_digest
from vlapipe.pipeline.shards.manifest.manifest import SHARD_FOLDER, Manifest
from vlapipe.pipeline.shards.manifest.metadata_columns import PREFIX
from vlapipe.pipeline.shards.stores.copies import copy_at, one_look
from vlapipe.pipeline.shards.verify.verify import missing_or_cut
from vlapipe.schemas.errors import DamageError, UsageError

__all__ = ["Merge", "merge"]

_NAME = re.compile(r"(shards/shard-)(\d+)(-.*)")
_OF_VALUES = {"storage", "psnr_db"}  # entries of a stream that follow from the recordings
_COMPUTED = ("anchor", "action", "sample")  # parts of a schema that decide what is computed from stored arrays
_MOST_NAMED = 3


@dataclass(kw_only=True)
class Merge:
    """What a merge did or would do. ``changes`` has names of episodes by kind, ``already there`` a number.

    ``shards`` has numbers: ``linked``, ``copied``, and ``already there``; ``copied_bytes`` is what was copied.
    """

    generation: int
    changes: dict[str, Any] = field(default_factory=dict)
    shards: dict[str, int] = field(default_factory=dict)
    copied_bytes: int = 0

    @property
    def is_nothing(self) -> bool:
        """Returns whether the dataset had everything."""
        return not any(value for value in self.changes.values() if isinstance(value, list))


@dataclass(frozen=True, kw_only=True)
class _Shard:
    """A shard that is taken: from which dataset, its entry there, and its name here."""

    dataset: Dataset
    entry: Mapping[str, Any]
    file: str

    @property
    def num_bytes(self) -> int:
        """Bytes of the file."""
        return int(self.entry["bytes"])


@one_look()
def merge(path: Path, others: Sequence[Path], *, note: str | None = None, dry_run: bool = False) -> Merge:
    """Add what other datasets hold. A dry run says what would be done, and writes nothing.

    Raises:
        UsageError: the datasets differ in what they store, or two have different recordings of one name.
        DamageError: a file that the merge needs is missing or damaged.
    """
    base = open_dataset(path)
    opened = [open_dataset(other) for other in others]
    for other in opened:
        if other.path.resolve() == base.path.resolve():
            raise UsageError(f"{other.path}: is the dataset itself", "name other datasets after it")
        _require_same(base, other)
    for dataset in (base, *opened):
        damage = missing_or_cut(dataset.path, dataset.manifest)
        if damage:
            raise DamageError(f"{dataset.path}: {damage[0]}", "vlapipe repair makes it again; then run this again")
    known = [known_recordings(other) for other in opened]
    done = Merge(generation=base.generation)
    if dry_run:
        done.changes, shards, _ = _taken_by(Contents(base), opened, known, None)
        is_here = [_can_be_linked(shard, base.path) for shard in shards]
        _count(done, shards, is_here)
        return done
    told = json.dumps([[str(other.path.resolve()), other.generation] for other in opened])
    name = hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()[:8]
    placed: dict[str, bool | None] = {}
    with work_folder(path, f"merge-{name}") as work:

        def change(contents: Contents) -> Said | None:
            done.changes, shards, read = _taken_by(contents, opened, known, work / "cache")
            if done.is_nothing:
                return None
            (work.parent / UNTIDY).touch()  # until the commit no generation lists what is linked now
            for shard in shards:
                if shard.file not in placed:  # else by a try that another command was faster than
                    placed[shard.file] = _is_linked(path, shard, work)
            _count(done, shards, [placed[shard.file] for shard in shards])
            if not copy_at(path):
                fsync_folder(path / SHARD_FOLDER)
            merged = [{"dataset": str(other.path.resolve()), "generation": other.generation} for other in opened]
            return Said(what="merge", note=note, changes=done.changes, read={"merged": merged, "episodes": read})

        made = commit(path, work, change)
    done.generation = made[0].generation if made is not None else open_dataset(path).generation
    return done


def _count(done: Merge, shards: Sequence[_Shard], are_linked: Sequence[bool | None]) -> None:
    names = {True: "linked", False: "copied", None: "already there"}
    done.shards = {name: sum(each is kind for each in are_linked) for kind, name in names.items()}
    done.copied_bytes = sum(s.num_bytes for s, each in zip(shards, are_linked, strict=True) if each is False)


def _taken_by(
    contents: Contents, others: Sequence[Dataset], known: Sequence[Any], cache: Path | None
) -> tuple[dict[str, Any], list[_Shard], dict[str, str]]:
    """Take what is new from each dataset. Returns what changed, the shards, and which recordings were read.

    ``known`` are the records of what the others were made from. Without a cache no statistics are counted.
    """
    path = contents.base.path
    changes: dict[str, Any] = {"added": [], "added as dropped": [], "set aside": []}
    num_there = 0
    shards: dict[str, _Shard] = {}
    read: dict[str, str] = {}
    taken = set(contents.base.manifest.shard_files)
    for other, made_from in zip(others, known, strict=True):
        theirs = Contents(other)
        theirs.load_all()
        listed, dropped = set(theirs.table["id"].to_pylist()), theirs.dropped_ids
        aside = {reject["episode"] for reject in theirs.rejects}
        there = contents.present(listed | dropped | aside)
        _require_same_recordings(contents, theirs, listed & there)
        num_there += len(listed & (there | contents.dropped_ids))
        rejects = {reject["episode"] for reject in contents.rejects}
        theirs.forget(there | contents.dropped_ids | (rejects - listed - dropped))
        listed, dropped = set(theirs.table["id"].to_pylist()), theirs.dropped_ids
        aside = {reject["episode"] for reject in theirs.rejects}
        if not listed | dropped | aside:
            continue
        contents.remove(rejects & (listed | dropped))
        edited = listed & contents.edits.keys()
        of_files = theirs.files_of_episodes()
        files: dict[str, str] = {}
        for file, entry in theirs.shards.items():
            if file in of_files:
                name = files[file] = _name_here(path, entry, taken)
                taken.add(name)
                shards[name] = _Shard(dataset=other, entry=entry, file=name)
        contents.take(theirs, files)
        if cache is not None:
            ids = {file: names - edited for file, names in of_files.items()}
            contents.count(taken_of(Dataset(other.path, other.manifest, cache), files, ids))
        if made_from is not None:
            units = {unit_of(name, made_from.episodes) for name in listed | dropped | aside}
            read |= {unit: made_from.episodes[unit] for unit in sorted(units & made_from.episodes.keys())}
        for kind, names in (("added", listed), ("added as dropped", dropped), ("set aside", aside)):
            changes[kind] += sorted(names)
    return {**changes, "already there": num_there}, [*shards.values()], read


def _require_same_recordings(contents: Contents, theirs: Contents, ids: set[str]) -> None:
    ours, others = contents.recordings(ids), theirs.recordings(ids)
    differing = sorted(name for name in ids if ours[name] != others[name])
    if differing:
        such = ", ".join(differing[:_MOST_NAMED]) + (", ..." if len(differing) > _MOST_NAMED else "")
        count = f"{len(differing)} episode{'' if len(differing) == 1 else 's'}"
        problem = f"{theirs.base.path}: {count} of the same name, but from another recording: {such}"
        raise UsageError(problem, f"leave one out: vlapipe edit {theirs.base.path} --drop {differing[0]}")


def _name_here(path: Path, entry: Mapping[str, Any], taken: Set[str]) -> str:
    """Return the name of a shard in the dataset: its own, or with the next number that is free.

    A file of the same bytes that no generation lists, as a killed merge leaves it, is free. One that is listed is not,
    even if its bytes are the same: two recordings may be equal, and each is an episode.
    """
    file = str(entry["file"])
    match = _NAME.fullmatch(file)
    assert match is not None
    number = int(match[2])
    while file in taken or not _is_free(path / file, entry):
        number += 1
        file = f"{match[1]}{number:05d}{match[3]}"
    return file


def _can_be_linked(shard: _Shard, path: Path) -> bool:
    if shard.dataset.is_in_store or copy_at(path):
        return False
    with shard.dataset.shard_file(shard.entry) as source:
        return source.stat().st_dev == path.stat().st_dev


def _is_free(target: Path, entry: Mapping[str, Any]) -> bool:
    copy = copy_at(target.parent.parent)
    if copy:
        name = f"{SHARD_FOLDER}/{target.name}"
        size = copy.store.size(name)
        return size is None or (size == entry["bytes"] and copy.store.sha256(name, size) == str(entry["sha256"]))
    if not target.exists():
        return True
    return target.stat().st_size == entry["bytes"] and file_sha256(target) == str(entry["sha256"])


def _is_linked(path: Path, shard: _Shard, work: Path) -> bool | None:
    """Give a shard its place. Returns whether it was linked, not copied, or ``None`` if it was there."""
    target, copy = path / shard.file, copy_at(path)
    if copy and copy.store.size(shard.file) == shard.num_bytes:
        return None
    with shard.dataset.shard_file(shard.entry) as source:
        if copy:
            require_digest(source, file_sha256(source), shard.entry["sha256"])
            copy.store.put(shard.file, source)
            return False
        if target.exists():
            return None
        if not shard.dataset.is_in_store:  # else the file is the cache's
            with contextlib.suppress(OSError):  # no hard links here, or not between these folders
                os.link(source, target)
                return True
        with whole_file(target, folder=work) as temporary:
            _copy(source, temporary, shard.entry["sha256"])
            temporary.chmod(0o444)
        return False


def _copy(source: Path, target: Path, sha256: str) -> None:
    """Copy a file, and compare its digest.

    Raises:
        DamageError: it has another one.
    """
    sha = hashlib.sha256()
    with source.open("rb") as read, target.open("wb") as written:
        while block := read.read(1 << 20):
            sha.update(block)
            written.write(block)
    require_digest(source, sha.hexdigest(), sha256)


def _require_same(base: Dataset, other: Dataset) -> None:
    """Compare what the datasets store.

    Raises:
        UsageError: they differ. The error names the first difference.
    """
    for name, ours, theirs in _facts(base, other):
        if ours != theirs:
            problem = f"{other.path}: {name}: expected {ours}, as {base.path} has it, found {theirs}"
            raise UsageError(problem, "ingest its recordings with the schema and options of the dataset")
    missing = {name for name in base.episode_fields.names if not name.startswith(PREFIX)}
    missing -= set(other.episode_fields.names)
    has_gaps = [all(part.gaps is not None for part in each.manifest.all_parts) for each in (base, other)]
    lacks = sorted(missing)[0] if missing else "table of gaps" if has_gaps == [True, False] else None
    if lacks is not None and lacks != "instructions":
        raise UsageError(f"{other.path}: an older vlapipe made it: it has no {lacks}", "ingest its recordings again")


def _facts(base: Dataset, other: Dataset) -> Iterator[tuple[str, Any, Any]]:
    """Yield what must be equal: its name, and its value in both."""
    a, b = base.manifest, other.manifest
    yield from _differences("streams", *({name: _described(m, name) for name in m.streams} for m in (a, b)))
    for name in _COMPUTED:
        yield from _differences(name, getattr(base.recorded, name), getattr(other.recorded, name))
    yield "--format", a.shard_format, b.shard_format
    yield "--codec", a.codec, b.codec
    for name in ("image_storage", "image_size", "image_quality"):
        yield f"--{name.replace('_', '-')}", _image_option(base, name), _image_option(other, name)
    sizes_a, sizes_b = (dict(given_by(each).camera_sizes) for each in (base, other))
    for camera in sizes_a.keys() & sizes_b.keys():
        yield f"size of the pixels of {camera}", sizes_a[camera], sizes_b[camera]


def _described(manifest: Manifest, name: str) -> dict[str, Any]:
    """Return what a manifest says of a stream, also of what older ones leave out."""
    stream = {key: value for key, value in manifest.streams[name].items() if value is not None}
    return {**stream, "channels": manifest.image_channels(name)} if name in manifest.cameras else stream


def _image_option(dataset: Dataset, name: str) -> Any:
    """Return an option of the ingest; an older vlapipe called what is "recorded" now "jpeg" in the manifest."""
    stated = dataset.manifest.made_with.get(name)
    if name == "image_storage":
        made_from = MadeFrom.read(dataset.path, only=())
        return (made_from.options.get("--image-storage") if made_from else stated) or "recorded"
    return stated or (JPEG_QUALITY if name == "image_quality" else None)


def _differences(name: str, a: Any, b: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the innermost parts of two values that differ, with their names."""
    if is_dataclass(a) and type(a) is type(b):
        a, b = ({each.name: getattr(value, each.name) for each in fields(value)} for value in (a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in [*a, *(key for key in b if key not in a)]:
            if key not in _OF_VALUES:
                yield from _differences(f"{name}.{key}", a.get(key, "nothing"), b.get(key, "nothing"))
    elif a != b:
        yield name, a, b

"""Joins neighbouring small shards into full ones, without the recordings. No episode changes, and none is lost.

An append makes at least one shard, so many small appends make many small shards. Shards that are half full stay as they
are. The new shards take the place of the old ones in one commit; the old files stay until ``vlapipe gc``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlapipe.pipeline.build.build import RecordFile
from vlapipe.pipeline.build.made_from import MadeFrom
from vlapipe.pipeline.build.space import no_room
from vlapipe.pipeline.change.commit import Said, commit, place_shards
from vlapipe.pipeline.change.contents import Contents, Joined
from vlapipe.pipeline.change.joined_shard import (
    Held,
    Streams,
    first_rows,
    held_bytes,
    kinds_of,
    write_joined_shard,
)
from vlapipe.pipeline.change.work_folder import UNTIDY, work_folder
from vlapipe.pipeline.shards.dataset import Dataset, open_dataset
from vlapipe.pipeline.shards.format.atomic import sweep_temporaries, write_bytes
from vlapipe.pipeline.shards.format.codec import parse_codec
from vlapipe.pipeline.shards.manifest.generations import publish
from vlapipe.pipeline.shards.manifest.history import sweep_entries
from vlapipe.pipeline.shards.manifest.manifest import SHARD_FOLDER, Manifest
from vlapipe.pipeline.shards.manifest.shards_table import ShardTables
from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.pipeline.shards.stores.copies import one_look
from vlapipe.schemas.errors import UsageError

__all__ = ["Compacted", "compact", "joined_between"]

_SHARD_BYTES = 256_000_000  # as vlapipe ingest makes them, if nobody knows what was asked for
_NUMBER = re.compile(rf"{SHARD_FOLDER}/shard-(\d+)-")
_SURE = 0.8  # of the bytes of the shards that are joined: a table of contents and a little more is written once
Entry = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What compaction did, or what a dry run would do: ``num_joined`` shards became ``num_made``.

    ``num_shards`` are those of the dataset before; bytes are those of the shards' files. ``generation`` is ``None`` if
    nothing was done, and ``bytes_made`` in a dry run.
    """

    generation: int | None = None
    num_shards: int
    num_joined: int = 0
    num_made: int = 0
    bytes_joined: int = 0
    bytes_made: int | None = None

    def require_room(self, dataset: Path) -> None:
        """Refuse what surely does not fit on the disk.

        Raises:
            StoppedError: there is too little space.
        """
        _require_room(dataset, self.bytes_joined)


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Neighbouring shards that one shard takes the place of, and of each the episodes that it takes."""

    shards: list[tuple[Entry, list[Held]]]

    @property
    def num_bytes(self) -> int:
        """Bytes of the shards' files."""
        return sum(int(entry["bytes"]) for entry, _ in self.shards)

    @property
    def index(self) -> int:
        """The number in the new shard's name: that of the first one."""
        match = _NUMBER.match(self.shards[0][0]["file"])
        return int(match[1]) if match else 0

    @property
    def key(self) -> str:
        """A digest of all that the new shard's bytes depend on, but for the codec."""
        told = [[entry["sha256"], [each.id for each in episodes]] for entry, episodes in self.shards]
        return hashlib.sha256(json.dumps([self.index, told]).encode(errors="surrogateescape")).hexdigest()[:16]

    def joined(self, stored: Mapping[str, Any]) -> Joined:
        """Describe the new shard, which is written."""
        starts = first_rows([episodes for _, episodes in self.shards])
        return Joined(
            entry={
                "file": f"{SHARD_FOLDER}/{stored['file']}",
                "bytes": stored["num_bytes"],
                "sha256": stored["sha256"],
                "episodes": sum(len(episodes) for _, episodes in self.shards),
                "arrays": stored["arrays"],
            },
            starts={
                entry["file"]: {each.id: rows for each, rows in zip(episodes, own, strict=True)}
                for (entry, episodes), own in zip(self.shards, starts, strict=True)
            },
        )


@one_look()
def compact(
    path: Path,
    *,
    shard_bytes: int | None = None,
    workers: int | None = None,
    note: str | None = None,
    dry_run: bool = False,
) -> Compacted:
    """Join shards that are less than half full with their neighbours, and commit that as the next generation.

    Args:
        path: the dataset.
        shard_bytes: about how large a shard is. Images count as they are stored, numbers before they are compressed.
            By default what the ingest was asked for.
        workers: threads that compress and compare. What is written does not depend on them.
        note: a remark for the history.
        dry_run: say what would be done, and write nothing.

    Raises:
        UsageError: an option cannot be used, or the same command is at work.
        DamageError: a shard is missing or altered; then nothing is changed.
        StoppedError: disk, memory or a limit failed. The same call then goes on.
    """
    for name, number in (("--shard-size", shard_bytes), ("--workers", workers)):
        if number is not None and number < 1:
            raise UsageError(f"{name} {number}: expected 1 or more")
    dataset = open_dataset(path)
    shard_bytes = shard_bytes or _recorded_size(path)
    groups = _plan(dataset, shard_bytes)
    if dry_run:
        return _compacted(dataset, groups)
    done: list[Joined] = []
    with work_folder(path, f"compact-{shard_bytes}", resumes=True) as work:
        if not groups:  # a command that was killed after its commit may have left something
            publish(path, work)
            sweep_entries(path)
            return _compacted(dataset, [])
        made = _build(dataset, groups, work, workers or os.cpu_count() or 1)
        place_shards(path, work / "shards")

        def change(contents: Contents) -> Said | None:
            done[:] = contents.join(made)
            if len(done) < len(made):  # another command has changed these shards meanwhile
                (work.parent / UNTIDY).touch()
            counts = {"shards joined": sum(len(each.starts) for each in done), "shards made": len(done)}
            return Said(what="compact", note=note, changes=counts) if done else None

        committed = commit(path, work, change)
    if committed is None:
        return _compacted(open_dataset(path), [])
    files = {file for each in done for file in each.starts}
    return replace(
        _compacted(dataset, [group for group in groups if group.shards[0][0]["file"] in files]),
        generation=committed[0].generation,
        bytes_made=sum(int(each.entry["bytes"]) for each in done),
    )


def joined_between(before: Dataset, after: Manifest) -> list[Joined]:
    """Return the shards by which a generation that ``compact`` made differs from the one before. Reads no shard."""
    old = [dict(entry) for entries in _entries_of_parts(before) for entry in entries]
    new = [dict(entry) for entry in after.shards]
    files, kept = {entry["file"] for entry in old}, {entry["file"] for entry in new}
    held = Contents(before).held([entry["file"] for entry in old if entry["file"] not in kept])
    gone = iter([entry for entry in old if entry["file"] not in kept])
    made = []
    for entry in new:
        if entry["file"] in files:
            continue
        missing = entry.get("stored", entry["episodes"])
        group: list[tuple[Entry, list[Held]]] = []
        while missing > 0 and (source := next(gone, None)):
            group.append((source, held[source["file"]]))
            missing -= len(held[source["file"]])
        stored = {"file": Path(entry["file"]).name, "num_bytes": entry["bytes"]}
        if group:
            made.append(_Group(shards=group).joined({**stored, "sha256": entry["sha256"], "arrays": entry["arrays"]}))
    return made


def _compacted(dataset: Dataset, groups: Sequence[_Group]) -> Compacted:
    return Compacted(
        num_shards=len(dataset.manifest.shards),
        num_joined=sum(len(group.shards) for group in groups),
        num_made=len(groups),
        bytes_joined=sum(group.num_bytes for group in groups),
    )


def _recorded_size(path: Path) -> int:
    """Return the size that the ingest was asked for, if that is known."""
    made_from = MadeFrom.read(path, only=())
    text = made_from.options.get("--shard-size", "") if made_from is not None else ""
    return int(text.removesuffix(" bytes")) if text.removesuffix(" bytes").isdigit() else _SHARD_BYTES


def _require_room(path: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(path).free
    if _SURE * num_bytes > free:
        raise no_room(path, num_bytes, free, "free some space there")


def _plan(dataset: Dataset, shard_bytes: int) -> list[_Group]:
    """Return the groups of neighbours to be joined: each part's shards in order, as many as fit.

    A new shard is at least half full, or has no small neighbour. So the same command finds nothing to do afterwards.
    """
    contents = Contents(dataset)
    found = [
        group
        for entries in _entries_of_parts(dataset)
        for group in _groups(dataset, contents, entries, shard_bytes)
        if len(group) > 1
    ]
    held = contents.held([entry["file"] for group in found for entry in group])
    return [_Group(shards=[(entry, held[entry["file"]]) for entry in group]) for group in found]


def _entries_of_parts(dataset: Dataset) -> Iterator[list[Entry]]:
    shards = dataset.manifest.shards
    for place in range(len(dataset.manifest.all_parts)):
        yield [*shards.of_part(place)] if isinstance(shards, ShardTables) else [*shards]


def _groups(dataset: Dataset, contents: Contents, entries: Sequence[Entry], shard_bytes: int) -> Iterator[list[Entry]]:
    """Divide the shards of a part into runs, each of one large shard, or of small ones that fit into one shard."""
    streams = _streams(dataset)
    held = contents.held([entry["file"] for entry in entries if "stored" in entry])
    run: list[Entry] = []
    filled = 0
    kinds: dict[str, Any] = {}
    for entry in entries:
        num_bytes, own = held_bytes(dataset, entry, held.get(entry["file"]), streams), kinds_of(entry, streams)
        is_small = 2 * num_bytes < shard_bytes
        if run and not (is_small and filled + num_bytes <= shard_bytes and _are_alike(kinds, own, streams)):
            yield run
            run, filled, kinds = [], 0, {}
        if is_small:
            run, filled, kinds = [*run, entry], filled + num_bytes, kinds | own
    if run:
        yield run


def _are_alike(one: Mapping[str, Any], other: Mapping[str, Any], streams: Streams) -> bool:
    """Return whether shards of these kinds can be joined. A camera may have images in one of them alone."""
    cameras = {*streams.cameras}
    shared = one.keys() & other.keys()
    return one.keys() - cameras == other.keys() - cameras and all(one[name] == other[name] for name in shared)


def _streams(dataset: Dataset) -> Streams:
    return Streams(anchor=dataset.recorded.anchor, cameras=dataset.manifest.cameras)


def _build(dataset: Dataset, groups: Sequence[_Group], work: Path, num_threads: int) -> list[Joined]:
    """Write the new shards into the work folder, but those that an earlier try has finished. Returns all."""
    place = RecordFile(shards=work / "shards", records=work / "records")
    for folder in (place.shards, place.records):
        folder.mkdir(exist_ok=True)
        sweep_temporaries(folder)
    finished = [_finished(place, group) for group in groups]
    _require_room(dataset.path, sum(g.num_bytes for g, stored in zip(groups, finished, strict=True) if stored is None))
    codec = parse_codec(dataset.manifest.codec, dataset.manifest.shard_format)
    made = []
    with Progress("compact", sum(len(group.shards) for group in groups), "shard") as progress:
        for group, known in zip(groups, finished, strict=True):
            stored = known or vars(
                write_joined_shard(
                    dataset,
                    place.shards,
                    group.index,
                    group.shards,
                    _streams(dataset),
                    codec=codec,
                    num_threads=num_threads,
                )
            )
            if known is None:
                write_bytes(place.records / f"{group.key}.json", json.dumps(stored).encode())
            made.append(group.joined(stored))
            progress.advance(len(group.shards))
    ours = {Path(each.entry["file"]).name for each in made}
    for shard in place.shards.iterdir():
        if shard.name not in ours:  # of an earlier try that found other shards
            shard.unlink()
    return made


def _finished(place: RecordFile, group: _Group) -> dict[str, Any] | None:
    """Return what an earlier try that was killed recorded of the new shard, if it has finished it."""
    record = place.records / f"{group.key}.json"
    if not record.is_file():
        return None
    stored: dict[str, Any] = json.loads(record.read_bytes())
    shard = place.shards / stored["file"]
    return stored if shard.is_file() and shard.stat().st_size == stored["num_bytes"] else None

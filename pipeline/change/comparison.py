"""Compares the recordings with those that a dataset was made from: which are new, changed, gone, or the same.

Sizes and dates of files decide where they are known and the same. Where not, the bytes of the files are compared with
the digests in the episodes table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlapipe.pipeline.build.made_from import MadeFrom
from vlapipe.pipeline.change.contents import dropped_ids, read_edits
from vlapipe.pipeline.discover.discovery import Discovery, RawEpisode
from vlapipe.pipeline.discover.many_files import bytes_of
from vlapipe.pipeline.plan.chosen_episodes import metadata_and_instruction
from vlapipe.pipeline.read.segments import is_cut
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.manifest.history import entries
from vlapipe.pipeline.shards.manifest.metadata_columns import PREFIX, metadata_text
from vlapipe.schemas.schema import Schema

__all__ = ["Comparison", "compare", "known_recordings", "unit_of", "units_of"]

_THREADS = 4  # episodes whose files are hashed at the same time
_READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Recordings by id, as they were discovered: a file that is cut into several episodes is one recording.

    ``same_bytes`` are among ``same``: their dates are others than those that are known.
    """

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gone: pa.Array  # there may be a million, if a few recordings come from a folder of their own
    same: list[str] = field(default_factory=list)
    same_bytes: list[str] = field(default_factory=list)

    @property
    def to_read(self) -> set[str]:
        """The recordings that must be read."""
        return {*self.new, *self.changed}


def known_recordings(dataset: Dataset, only: Collection[str] | None = None) -> MadeFrom | None:
    """Return what a generation was made from: the first ingest's record, and what later ingests have read since.

    ``None`` if there is no such record, as in a copy without hidden files. ``only`` are the recordings that matter; by
    default all do.
    """
    made_from = MadeFrom.read(dataset.path, only)
    if made_from is None:
        return None
    episodes = dict(made_from.episodes)
    for entry in entries(dataset.path):
        if made_from.generation < entry.generation <= dataset.generation:
            told = entry.read.get("episodes", {})
            episodes |= {name: told[name] for name in told if only is None or name in only}
            for name in entry.read.get("gone", []):
                episodes.pop(name, None)
    return replace(made_from, episodes=episodes, generation=dataset.generation)


def unit_of(name: str, recordings: Mapping[str, Any] | Set[str]) -> str:
    """Return the recording that an episode is a part of. Parts are called ``file/part`` or ``file/part@row``."""
    unit = name
    while unit not in recordings and "/" in unit:
        unit = unit.rpartition("/")[0]
    return unit if unit in recordings else name


def units_of(names: pa.Array, recordings: Collection[str], *, are_cut: bool) -> pa.Array:
    """Return the recording that each episode is a part of, null if it is none of these; see ``unit_of``.

    ``are_cut`` says whether recordings are cut into parts; else an episode has the name of its recording.
    """
    known = pa.array(sorted(recordings), pa.string())
    found = pc.if_else(pc.is_in(names, value_set=known), names, None)
    while are_cut and found.null_count:
        shorter = pc.replace_substring_regex(names, r"(^|/)[^/]*$", "")
        if not pc.any(pc.not_equal(shorter, "")).as_py():
            break
        names = shorter
        found = pc.if_else(pc.and_(pc.is_null(found), pc.is_in(names, value_set=known)), names, found)
    return found


def compare(dataset: Dataset, found: Discovery, made_from: MadeFrom, known: MadeFrom, schema: Schema) -> Comparison:
    """Compare the recordings that were found with a generation of the dataset.

    Args:
        dataset: the newest generation.
        found: the recordings.
        made_from: what a dataset of these recordings is made from.
        known: what the generation was made from.
        schema: the dataset's schema.
    """
    ids = {raw.id for raw in found.episodes}
    rejects = dataset.manifest.read_rejects(dataset.path)
    aside = pa.array([reject["episode"] for reject in rejects], pa.string())
    names = pa.concat_arrays([*dataset.episode_column("id").chunks, aside])
    units = units_of(names, ids, are_cut=is_cut(schema))
    there = set(units.unique().to_pylist())
    left_out = {unit_of(name, ids) for name in dropped_ids(dataset)} - there
    same: list[str] = []
    doubtful: list[RawEpisode] = []
    new: list[str] = []
    for raw in found.episodes:
        if raw.id in left_out:
            continue
        if raw.id not in there:
            new.append(raw.id)
        elif raw.id in known.episodes and made_from.has_same(raw, known.episodes[raw.id]):
            same.append(raw.id)
        else:
            doubtful.append(raw)
    edits = read_edits(dataset)
    with ThreadPoolExecutor(_THREADS) as threads:
        same_as = partial(_has_same_bytes, dataset, found, schema)
        are_same = list(threads.map(lambda raw: same_as(raw, edits.get(raw.id, {})), doubtful))
    same_bytes = [raw.id for raw, is_same in zip(doubtful, are_same, strict=True) if is_same]
    changed = [raw.id for raw, is_same in zip(doubtful, are_same, strict=True) if not is_same]
    gone = names.filter(units.is_null())
    gone = gone.take(pc.sort_indices(gone))
    return Comparison(new=new, changed=changed, gone=gone, same=[*same, *same_bytes], same_bytes=same_bytes)


def _has_same_bytes(
    dataset: Dataset, found: Discovery, schema: Schema, raw: RawEpisode, edits: Mapping[str, Any]
) -> bool:
    """Return whether an episode that is stored was surely made from these bytes.

    In doubt it was not: the episode is then read again, which costs time and no truth.
    """
    if is_cut(schema) or raw.clock_files or raw.ranges is not None or raw.says is not None or raw.container is not None:
        return False
    index = pc.index(dataset.episode_column("id"), raw.id).as_py()
    if index < 0:
        return False
    row = dataset.row(index)
    for stream, source in zip(dataset.manifest.streams, row["sources"], strict=True):
        files = raw.files.get(stream, ())
        if source["num_files"] != len(files) or source["num_bytes"] != bytes_of(files):
            return False
    metadata, instruction = metadata_and_instruction(found, schema, raw)
    told = {"task": raw.task, "instruction": instruction}
    if any(row[name] != text for name, text in told.items() if name not in edits):
        return False
    if not _is_same_metadata(row, metadata, edits):
        return False
    return all(
        source["sha256"] == _digest(found.root / file.path for file in raw.files.get(stream, ()))
        for stream, source in zip(dataset.manifest.streams, row["sources"], strict=True)
        if source["num_files"]
    )


def _is_same_metadata(row: Mapping[str, Any], metadata: Mapping[str, Any], edits: Mapping[str, Any]) -> bool:
    names = {PREFIX + key for key, value in metadata.items() if value is not None}
    stored = {name for name, value in row.items() if name.startswith(PREFIX) and value is not None}
    if any(name not in edits for name in names ^ stored):
        return False
    for name in (names & stored) - edits.keys():
        value = metadata[name.removeprefix(PREFIX)]
        if row[name] not in (value, metadata_text(value), metadata_text(value, quoted=True)):
            return False
    return True


def _digest(files: Iterable[Path]) -> str:
    """Return the digest of files end to end, as readers compute it."""
    sha = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                while block := file.read(_READ_BYTES):
                    sha.update(block)
        except OSError:
            return ""  # reading the episode reports why
    return sha.hexdigest()

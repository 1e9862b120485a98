"""Compares the recordings with those that a dataset was made from: which are new, changed, gone, or the same.

Sizes and dates of files decide where they are known and the same. Where not, the bytes of the files are compared with
the digests in the episodes table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from vlapipe.pipeline.build.made_from import MadeFrom
from vlapipe.pipeline.change.contents import dropped_ids, read_edits
from vlapipe.pipeline.discover.discovery import Discovery, RawEpisode
from vlapipe.pipeline.plan.chosen_episodes import metadata_and_instruction
from vlapipe.pipeline.read.segments import is_cut
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.manifest.history import entries
from vlapipe.pipeline.shards.manifest.metadata_columns import PREFIX, metadata_text
from vlapipe.schemas.schema import Schema

__all__ = ["Comparison", "compare", "known_recordings", "unit_of"]

_THREADS = 4  # episodes whose files are hashed at the same time
_READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Recordings by id, as they were discovered: a file that is cut into several episodes is one recording.

    ``same_bytes`` are among ``same``: their dates are others than those that are known.
    """

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    same_bytes: list[str] = field(default_factory=list)

    @property
    def to_read(self) -> set[str]:
        """The recordings that must be read."""
        return {*self.new, *self.changed}


def known_recordings(dataset: Dataset) -> MadeFrom | None:
    """Return what a generation was made from: the first ingest's record, and what later ingests have read since.

    ``None`` if there is no such record, as in a copy without hidden files.
    """
    made_from = MadeFrom.read(dataset.path)
    if made_from is None:
        return None
    episodes = dict(made_from.episodes)
    for entry in entries(dataset.path):
        if made_from.generation < entry.generation <= dataset.generation:
            episodes |= entry.read.get("episodes", {})
            for name in entry.read.get("gone", []):
                episodes.pop(name, None)
    return replace(made_from, episodes=episodes, generation=dataset.generation)


def unit_of(name: str, recordings: Mapping[str, Any] | set[str]) -> str:
    """Return the recording that an episode is a part of. Parts are called ``file/part`` or ``file/part@row``."""
    unit = name
    while unit not in recordings and "/" in unit:
        unit = unit.rpartition("/")[0]
    return unit if unit in recordings else name


def compare(dataset: Dataset, found: Discovery, made_from: MadeFrom, known: MadeFrom, schema: Schema) -> Comparison:
    """Compare the recordings that were found with a generation of the dataset.

    Args:
        dataset: the newest generation.
        found: the recordings.
        made_from: what a dataset of these recordings is made from.
        known: what the generation was made from.
        schema: the dataset's schema.
    """
    of_unit = {*made_from.episodes, *known.episodes}
    there: dict[str, list[str]] = {}
    rejects = dataset.manifest.read_rejects(dataset.path)
    for name in [*dataset.column("id").tolist(), *(reject["episode"] for reject in rejects)]:
        there.setdefault(unit_of(name, of_unit), []).append(name)
    left_out = {unit_of(name, of_unit) for name in dropped_ids(dataset)} - there.keys()
    same: list[str] = []
    doubtful: list[RawEpisode] = []
    new: list[str] = []
    for raw in found.episodes:
        if raw.id in left_out:
            continue
        if raw.id not in there:
            new.append(raw.id)
        elif made_from.episodes[raw.id] == known.episodes.get(raw.id):
            same.append(raw.id)
        else:
            doubtful.append(raw)
    edits = read_edits(dataset)
    with ThreadPoolExecutor(_THREADS) as threads:
        same_as = partial(_has_same_bytes, dataset, found, schema)
        are_same = list(threads.map(lambda raw: same_as(raw, edits.get(raw.id, {})), doubtful))
    same_bytes = [raw.id for raw, is_same in zip(doubtful, are_same, strict=True) if is_same]
    changed = [raw.id for raw, is_same in zip(doubtful, are_same, strict=True) if not is_same]
    ids = {raw.id for raw in found.episodes}
    gone = sorted(name for unit, names in there.items() if unit not in ids for name in names)
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
        if source["num_files"] != len(files) or source["num_bytes"] != sum(file.num_bytes for file in files):
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

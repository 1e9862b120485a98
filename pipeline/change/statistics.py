"""The statistics of the next generation, merged from sums; only shards whose training episodes change are read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlapipe.pipeline.build.commit import with_actions
from vlapipe.pipeline.build.statistics import FieldStatistics
from vlapipe.pipeline.change.sums import PartMoments, PartSums, Sums, statistics_of, still_of
from vlapipe.pipeline.check.flicker import Flicker, FlickerSums
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.manifest.manifest import Manifest
from vlapipe.pipeline.shards.manifest.parts import Part
from vlapipe.schemas.schema import Schema

__all__ = [
    "Changed",
    "Merged",
    "Taken",
    "carried_statistics",
    "key_of",
    "merged_statistics",
    "summaries",
    "sums_of",
    "taken_of",
]

Training = dict[str, dict[str, int]]  # the indices of training episodes, by shard's file and id


@dataclass(frozen=True, kw_only=True)
class Changed:
    """A part that a change writes: its shards' files, and its episodes table, in order."""

    files: list[str]
    table: pa.Table


@dataclass(kw_only=True)
class Taken:
    """What is known of shards that come from other datasets, as if they had been here before.

    ``rows`` are the ids of the training episodes by shard's file; ``moments`` those of these episodes.
    """

    rows: dict[str, list[str]] = field(default_factory=dict)
    moments: PartMoments = field(default_factory=PartMoments)
    histograms: list[dict[str, FieldStatistics]] = field(default_factory=list)


@dataclass(kw_only=True)
class Merged:
    """The sums and statistics of a generation, and the moments of the parts whose table must be written, by place.

    ``sums`` are ``None`` if they are not known, and only then.
    """

    sums: Sums | None
    statistics: dict[str, dict[str, Any]] = field(default_factory=dict)
    moments: dict[int, PartMoments] = field(default_factory=dict)


def key_of(part: Part) -> str:
    """Return the key of a part in the sums. No two parts have the same episodes."""
    return str(part.episodes["sha256"])[:16]


def merged_statistics(
    base: Dataset,
    manifest: Manifest,
    cache: Path,
    written: Mapping[int, Changed],
    loaded: Mapping[int, pa.Table],
    new: Mapping[str, Mapping[str, FieldStatistics]],
    still: Mapping[str, Flicker],
    taken: Taken,
) -> Merged:
    """Return the sums and the statistics of a generation.

    Args:
        base: the generation before it.
        manifest: its manifest, whose tables are written.
        cache: a folder for unpacked shards.
        written: the parts that are not as before, by their place in ``manifest``.
        loaded: the episodes tables of the parts that these take the place of, by their place in ``base``.
        new: the statistics of new shards by file, whose episodes are all in the dataset.
        still: the columns that hardly move, by new episode.
        taken: what is known of shards of other datasets.
    """
    before, after = Dataset(base.path, base.manifest, cache), Dataset(base.path, manifest, cache)
    parts = manifest.all_parts
    sums, computed = sums_of(before)
    old = _joined([computed.get(place) or _moments_of(before, place) for place in loaded])
    old_rows: Training = {}
    ids_before: set[str] = set()
    for place, table in loaded.items():
        old_rows |= _training(table, base.manifest.all_parts[place], base.manifest.shard_files)
        ids_before |= set(table["id"].to_pylist())
    done = Merged(sums=sums)
    for histograms in taken.histograms:
        sums.count(histograms)
    old = _joined([old, taken.moments])
    unread = {**old_rows, **{file: dict.fromkeys(names, -1) for file, names in taken.rows.items()}}
    for place, piece in written.items():
        moments = PartMoments()
        rows = _training(piece.table, parts[place], manifest.shard_files)
        for file in piece.files:
            gone_from = unread.pop(file, {})
            if file in new:
                added = new[file]
                moments.shards[file] = {path: each.moments for path, each in added.items()}
                sums.count(added)
                continue
            now = rows.get(file, {})
            gone, come = gone_from.keys() - now.keys(), now.keys() - gone_from.keys()
            sums.count(statistics_of(before, [gone_from[name] for name in sorted(gone)]), times=-1)
            sums.count(statistics_of(after, [now[name] for name in sorted(come)]))
            same = old.shards.get(file, {})
            found = {p: e.moments for p, e in statistics_of(after, now.values()).items()} if gone or come else same
            if found:
                moments.shards[file] = found
        names = piece.table["id"].to_pylist()
        known = {**old.still, **still}
        for index, name in enumerate(names, parts[place].first_episode):
            if name not in ids_before and name not in known:
                known[name] = still_of(after, index)
        moments.still = {name: known[name] for name in names if known.get(name)}
        done.moments[place] = moments
        sums.parts[key_of(parts[place])] = _sums_of_part(moments, piece.files, piece.table, after)
    for rows_of_file in unread.values():  # of shards that are listed no more
        sums.count(statistics_of(before, rows_of_file.values()), times=-1)
    kept = {key_of(part): place for place, part in enumerate(base.manifest.all_parts)}
    for place, part in enumerate(parts):
        if place not in written and kept[key_of(part)] in computed:
            done.moments[place] = computed[kept[key_of(part)]]
    keys = [key_of(part) for part in parts]
    sums.parts = {key: sums.parts[key] for key in keys}
    done.statistics = summaries(sums, keys, after.recorded)
    return done


def carried_statistics(
    base: Dataset,
    manifest: Manifest,
    written: Mapping[int, Changed],
    loaded: Collection[int],
    joined: Mapping[str, Sequence[str]],
) -> Merged:
    """Return the sums and the statistics of a generation that has the episodes of the one before, in other shards.

    The statistics are those of the generation before, to the last bit. No shard is read.

    Args:
        base: the generation before it.
        manifest: its manifest, whose tables are written.
        written: the parts that are not as before, by their place in ``manifest``.
        loaded: the parts that these take the place of, by their place in ``base``.
        joined: the shards whose place a new one takes, by its file.
    """
    done = Merged(sums=None, statistics=base.manifest.statistics)
    before, parts = base.manifest.all_parts, manifest.all_parts
    if base.manifest.sums is None or any(part.moments is None for part in before):
        return done  # the next change that needs sums computes them
    sums = done.sums = Sums.read(base.path, base.manifest.sums)
    old = _joined([_moments_of(base, place) for place in loaded])
    same = {(part.first_episode, part.num_episodes): key_of(part) for part in before}
    for place, piece in written.items():
        moments = done.moments[place] = PartMoments()
        for file in piece.files:
            found = old.merged(joined[file]) if file in joined else old.shards.get(file)
            if found:
                moments.shards[file] = found
        names = piece.table["id"].to_pylist()
        moments.still = {name: old.still[name] for name in names if name in old.still}
        part = parts[place]
        known = same.get((part.first_episode, part.num_episodes))
        of_part = sums.parts[known] if known else _sums_of_part(moments, piece.files, piece.table, base)
        sums.parts[key_of(part)] = of_part
    sums.parts = {key_of(part): sums.parts[key_of(part)] for part in parts}
    return done


def summaries(sums: Sums, keys: Sequence[str], schema: Schema) -> dict[str, dict[str, Any]]:
    """Return the statistics of these parts together, as the manifest has them."""
    found = {path: each.summary() for path, each in sums.statistics(keys).items()}
    flickering = FlickerSums.merged(sums.parts[key].flicker for key in keys).columns(schema)
    for path, columns in with_actions(flickering, schema).items():
        if path in found:
            found[path]["flicker"] = [column in columns for column in range(len(found[path]["mean"]))]
    return found


def sums_of(dataset: Dataset) -> tuple[Sums, dict[int, PartMoments]]:
    """Read the sums of a dataset, or compute them from its shards; then also return the moments of each part."""
    manifest = dataset.manifest
    if manifest.sums is not None and all(part.moments is not None for part in manifest.all_parts):
        return Sums.read(dataset.path, manifest.sums), {}
    sums = Sums()
    computed: dict[int, PartMoments] = {}
    for place, part in enumerate(manifest.all_parts):
        table, moments = dataset.episodes_of_part(place), PartMoments()
        for file, episodes in _training(table, part, manifest.shard_files).items():
            found = statistics_of(dataset, episodes.values())
            moments.shards[file] = {path: each.moments for path, each in found.items()}
            sums.count(found)
        for index, name in enumerate(table["id"].to_pylist(), part.first_episode):
            if still := still_of(dataset, index):
                moments.still[name] = still
        files = manifest.shard_files[part.first_shard : part.first_shard + part.num_shards]
        sums.parts[key_of(part)] = _sums_of_part(moments, files, table, dataset)
        computed[place] = moments
    return sums, computed


def taken_of(dataset: Dataset, files: Mapping[str, str], ids: Mapping[str, Set[str]]) -> Taken:
    """Return what is known of the shards that another dataset takes from this one.

    Shards are read only if ``dataset`` has no sums, or some training episodes of a shard are not taken; then those that
    are fewer: the taken ones or the others.

    Args:
        dataset: the other dataset, with a cache for unpacked shards.
        files: the names that shards get there, by their file.
        ids: the episodes that are taken, by their shard's file.
    """
    sums, computed = sums_of(dataset)
    parts = dataset.manifest.all_parts
    moments = _joined([computed.get(place) or _moments_of(dataset, place) for place in range(len(parts))])
    rows: Training = {}
    names: list[str] = []
    for place, part in enumerate(parts):
        table = dataset.episodes_of_part(place)
        rows |= _training(table, part, dataset.manifest.shard_files)
        names += table["id"].to_pylist()
    whole = {file for file in rows if file in files and rows[file].keys() <= ids.get(file, set())}
    taken = Taken(rows={files[file]: list(rows[file]) for file in rows if file in whole})
    taken.moments.shards = {files[file]: moments.shards[file] for file in rows if file in whole}
    taken.moments.still = {name: moments.still.get(name, {}) for name in names}
    rest = rows.keys() - whole
    if sum(len(rows[file]) for file in whole) < sum(len(rows[file]) for file in rest):
        sums.histograms = {}
        for file in sorted(whole):
            sums.count(statistics_of(dataset, rows[file].values()))
    else:
        for file in sorted(rest):
            sums.count(statistics_of(dataset, rows[file].values()), times=-1)
    taken.histograms.append(sums.histograms)
    return taken


def _sums_of_part(moments: PartMoments, files: Sequence[str], table: pa.Table, dataset: Dataset) -> PartSums:
    still = [moments.still[name] for name in table["id"].to_pylist() if name in moments.still]
    statistics = table["statistics"].combine_chunks()
    flicker = FlickerSums.of_table(statistics, still, dataset.recorded)
    return PartSums(moments=moments.merged(files), flicker=flicker)


def _moments_of(dataset: Dataset, place: int) -> PartMoments:
    named = dataset.manifest.all_parts[place].moments
    assert named is not None
    return PartMoments.read(dataset.path, named)


def _joined(parts: Sequence[PartMoments]) -> PartMoments:
    joined = PartMoments()
    for part in parts:
        joined.shards |= part.shards
        joined.still |= part.still
    return joined


def _training(table: pa.Table, part: Part, files: Sequence[str]) -> Training:
    """Return the training episodes of a part. Shards are numbered as in the dataset."""
    found: Training = {}
    columns = (table[name].to_pylist() for name in ("id", "shard", "split"))
    for index, (name, shard, split) in enumerate(zip(*columns, strict=True), part.first_episode):
        if split == "train":
            found.setdefault(files[shard], {})[name] = index
    return found

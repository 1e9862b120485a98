"""The statistics of the next generation, merged from sums; only shards whose training episodes change are read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vlapipe.pipeline.build.commit import with_actions
from vlapipe.pipeline.build.statistics import FieldStatistics
from vlapipe.pipeline.change.sums import Sums, statistics_of, still_of, training_episodes
from vlapipe.pipeline.check.flicker import Flicker, flickering_columns
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.manifest.manifest import Manifest

__all__ = ["merged_statistics"]


def merged_statistics(
    base: Dataset,
    manifest: Manifest,
    cache: Path,
    new: Mapping[str, Mapping[str, FieldStatistics]],
    still: Mapping[str, Flicker],
) -> tuple[Sums, dict[str, dict[str, Any]]]:
    """Return the sums and the statistics of a generation.

    Args:
        base: the generation before it.
        manifest: its manifest, whose tables are written.
        cache: a folder for unpacked shards.
        new: the statistics of new shards by file, whose episodes are all in the dataset.
        still: the columns that hardly move, by new episode.
    """
    before, after = Dataset(base.path, base.manifest, cache), Dataset(base.path, manifest, cache)
    sums = Sums.of_dataset(before)
    old_rows, new_rows = training_episodes(before), training_episodes(after)
    files = [shard["file"] for shard in manifest.shards]
    for file in dict.fromkeys([*old_rows, *files]):
        if file in new:
            sums.add(file, new[file])
            continue
        old, now = old_rows.get(file, {}), new_rows.get(file, {})
        gone, come = old.keys() - now.keys(), now.keys() - old.keys()
        if gone or come:
            sums.count(statistics_of(before, [old[name] for name in sorted(gone)]), times=-1)
            sums.count(statistics_of(after, [now[name] for name in sorted(come)]))
            sums.replace_moments(file, statistics_of(after, now.values()))
    sums.still = _still({**sums.still, **still}, before, after, known=still.keys())
    statistics = {path: each.summary() for path, each in sums.statistics(files).items()}
    rows = _rows_with_statistics(after) if sums.still else []
    flickering = flickering_columns(((row, sums.still.get(row["id"], {})) for row in rows), after.recorded)
    for path, columns in with_actions(flickering, after.recorded).items():
        if path in statistics:
            statistics[path]["flicker"] = [column in columns for column in range(len(statistics[path]["mean"]))]
    return sums, statistics


def _still(found: dict[str, Flicker], before: Dataset, after: Dataset, *, known: Collection[str]) -> dict[str, Flicker]:
    """Return the columns that hardly move of the episodes of ``after``; episodes that came back are read for it."""
    ids = dict.fromkeys(after.column("id").tolist())
    for name in ids.keys() - set(before.column("id").tolist()) - set(known):
        found[name] = still_of(after, after.index_of(name))
    return {name: found[name] for name in ids if found.get(name)}


def _rows_with_statistics(dataset: Dataset) -> list[dict[str, Any]]:
    lists = dataset.episode_column("statistics").to_pylist()
    known = [{path: values for path, values in each.items() if values is not None} for each in lists]
    return [{"id": name, "statistics": each} for name, each in zip(dataset.column("id"), known, strict=True)]

"""Reports what a dataset holds, as plain data. Reads the manifest, episodes table and rejects, never a shard."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlapipe.pipeline.shards.arrow_numpy import as_mask, as_numpy, counts_of
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.manifest.manifest import Manifest
from vlapipe.pipeline.shards.manifest.metadata_columns import PREFIX, holds_json, metadata_text
from vlapipe.pipeline.shards.manifest.where import Where, masks
from vlapipe.pipeline.shards.verify.verify import verify_opened

__all__ = ["inspect_dataset", "inspect_episode", "rejects_of"]

_OF_EPISODE = ("id", "task", "instruction", "split", "num_frames", "seconds")  # columns of the list of episodes
_OF_STREAM = ("rows", "first_s", "last_s", "jitter_s", "max_gap_s", "width", "height")  # columns that are summed up
_PAIR = ("task", "instruction")
_MOST_VALUES = 8  # values of a metadata key that the report has
_BINS = 24  # of the lengths of episodes
_TYPES = {"string": "text", "bool": "true or false", "int64": "number", "double": "number"}


def inspect_dataset(dataset: Dataset, *, where: str | None = None, list_episodes: bool = False) -> dict[str, Any]:
    """Return the report of ``vlapipe inspect``, which ``--json`` prints and the terminal shows as tables.

    ``damage`` lists the faults that a quick look finds, as ``vlapipe verify --quick`` does. Rates are measured: steps
    divided by the time that they span. Jitter is the standard deviation of the time between rows.

    With ``where``, episodes, frames, time, splits, streams, tasks and metadata are those of the episodes of which the
    expression is true. Sizes, statistics, findings and rejects are always those of the whole dataset. ``listed`` has an
    entry for each episode if ``list_episodes`` is set.

    Raises:
        UsageError: the expression cannot be used, or fits no episode.
    """
    manifest = dataset.manifest
    totals = manifest.totals
    dataset.read_columns([name for name in dataset.column_names if _is_shown(name, manifest)])
    chosen = np.ones(len(dataset), dtype=bool) if where is None else masks(Where.parse(where, "--where"), [dataset])[0]
    seconds = float(dataset.column("seconds")[chosen].sum()) if where is not None else totals["seconds"]
    return {
        "path": str(dataset.place),
        "vlapipe_version": manifest.vlapipe_version,
        "schema": {"name": manifest.schema["name"], "sha256": manifest.schema["sha256"]},
        "format": manifest.shard_format,
        "codec": manifest.codec,
        "made_with": manifest.made_with,
        "shards": len(manifest.shards),
        "damage": [fault.to_json() for fault in verify_opened(dataset.path, manifest).faults],
        "where": where,
        "of_episodes": totals["episodes"],
        "episodes": int(chosen.sum()),
        "frames": int(dataset.column("num_frames")[chosen].sum()),
        "seconds": seconds,
        "hours": seconds / 3600,
        "lengths": _lengths(dataset.column("seconds")[chosen]),
        "splits": _by_split(dataset, chosen),
        "streams": {name: _describe_stream(dataset, name, chosen) for name in manifest.streams},
        "tasks": _tasks(dataset, chosen),
        "metadata": _metadata(dataset, chosen),
        "sizes": _sizes(dataset),
        "statistics": manifest.statistics,
        "findings": totals["findings"],
        "rejects": rejects_of(dataset),
        **({"listed": _listed(dataset, chosen)} if list_episodes else {}),
    }


def _is_shown(column: str, manifest: Manifest) -> bool:
    """Return whether the report reads a column of the episodes table."""
    if column in _OF_EPISODE[1:] or column.startswith(PREFIX):
        return True
    stream, _, name = column.rpartition("/")
    return stream in manifest.streams and name in _OF_STREAM


def inspect_episode(dataset: Dataset, which: int | str) -> dict[str, Any]:
    """Return the report of ``vlapipe inspect --episode``: one row of the episodes table, stream by stream."""
    episode = dataset.episode(which)
    row = episode.row
    streams = {}
    for name, stream in dataset.manifest.streams.items():
        own = {key.partition("/")[2]: value for key, value in row.items() if key.startswith(f"{name}/")}
        # NaN means that there is nothing to measure, and JSON has no word for NaN.
        own = {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in own.items()}
        span = own["last_s"] - own["first_s"] if own["rows"] else 0.0
        streams[name] = {"kind": stream["kind"], "rate_hz": (own["rows"] - 1) / span if span > 0 else None, **own}
    general = {key: value for key, value in row.items() if "/" not in key}
    general["shard_file"] = dataset.manifest.shards[row["shard"]]["file"]
    general["metadata"] = {key.removeprefix(PREFIX): value for key, value in row.items() if key.startswith(PREFIX)}
    arrays = {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in episode.items()}
    return {"path": str(dataset.place), **general, "streams": streams, "arrays": arrays}


def _lengths(seconds: NDArray[np.float64]) -> dict[str, Any]:
    """Count the episodes by their length in seconds, in bins of equal width between the shortest and the longest."""
    low, high = float(seconds.min()), float(seconds.max())
    counts = np.histogram(seconds, bins=_BINS, range=(low, high))[0].tolist() if high > low else [len(seconds)]
    return {"min_s": low, "max_s": high, "counts": counts}


def _by_split(dataset: Dataset, chosen: NDArray[np.bool_]) -> dict[str, dict[str, Any]]:
    splits = np.where(chosen, dataset.column("split"), "")
    report = {}
    for split in sorted(set(splits.tolist()) - {""}, key=lambda name: (name != "train", name)):
        here = splits == split
        report[split] = {
            "episodes": int(here.sum()),
            "frames": int(dataset.column("num_frames")[here].sum()),
            "seconds": float(dataset.column("seconds")[here].sum()),
        }
    return report


def _describe_stream(dataset: Dataset, name: str, chosen: NDArray[np.bool_]) -> dict[str, Any]:
    stream = dataset.manifest.streams[name]

    def column(of: str) -> NDArray[Any]:
        values: NDArray[Any] = dataset.column(f"{name}/{of}")[chosen]
        return values

    rows = column("rows")
    here = rows > 0  # an optional stream has no rows in an episode that lacks it
    span = float((column("last_s") - column("first_s"))[here].sum())
    steps = int((rows[here] - 1).sum())
    jitter = column("jitter_s")
    report: dict[str, Any] = {
        "kind": stream["kind"],
        "rows": int(rows.sum()),
        "absent_in": int((~here).sum()),
        "declared_rate_hz": stream["rate_hz"],
        "rate_hz": steps / span if span > 0 else None,
        "jitter_s": float(np.sqrt(np.average(jitter**2, weights=np.maximum(rows - 1, 1)))),
        "max_gap_s": float(column("max_gap_s").max()),
        "time": stream["time"],
    }
    if stream["kind"] == "images":
        both = np.stack([column(side)[here].astype(np.int64) for side in ("width", "height")], axis=1)
        distinct, first, counts = np.unique(both, axis=0, return_index=True, return_counts=True)
        order = np.argsort(first)
        sizes = zip(distinct[order].tolist(), counts[order].tolist(), strict=True)
        report["storage"] = dataset.manifest.image_storage(name)
        report["psnr_db"] = stream.get("psnr_db")
        report["depth_unit"] = dataset.manifest.depth_unit(name)
        report["channels"] = dataset.manifest.image_channels(name)
        report["sizes"] = {f"{width}x{height}": count for (width, height), count in sizes}
    else:
        report["fields"] = stream["fields"]
    return report


def _tasks(dataset: Dataset, chosen: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return one entry for each pair of task and instruction, the most frequent pair first."""
    (tasks, of_task), (instructions, of_instruction) = (_coded(dataset.episode_column(n)) for n in _PAIR)
    pairs, which = np.unique((of_task * len(instructions) + of_instruction)[chosen], return_inverse=True)
    num_frames = np.bincount(which, weights=dataset.column("num_frames")[chosen], minlength=len(pairs))
    counts: dict[tuple[str, str], int] = {}
    frames: dict[tuple[str, str], int] = {}
    for pair, count, total in zip(pairs.tolist(), np.bincount(which, minlength=len(pairs)), num_frames, strict=True):
        key = (tasks[pair // len(instructions)], instructions[pair % len(instructions)])
        counts[key], frames[key] = int(count), int(total)
    return [
        {"task": task, "instruction": instruction, "episodes": count, "frames": frames[task, instruction]}
        for (task, instruction), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def _coded(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """Return the distinct texts of a column, and each row's place among them. Arrow's own grouping imports pandas."""
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    coded = coded.unify_dictionaries()
    texts: list[str] = coded.chunk(0).dictionary.to_pylist() if coded.num_chunks else []
    codes = [as_numpy(chunk.indices).astype(np.int64) for chunk in coded.chunks]
    return texts, np.concatenate([np.empty(0, np.int64), *codes])


def _rows(dataset: Dataset, names: list[str], chosen: NDArray[np.bool_]) -> list[dict[str, Any]]:
    columns = [dataset.episode_column(name).to_pylist() for name in names]
    return [
        dict(zip(names, row, strict=True)) for row, kept in zip(zip(*columns, strict=True), chosen, strict=True) if kept
    ]


def _metadata(dataset: Dataset, chosen: NDArray[np.bool_]) -> dict[str, dict[str, Any]]:
    """Return, by metadata key, the type, the number of episodes that have the key, and the most frequent values."""
    report = {}
    for field in dataset.episode_fields:
        if not field.name.startswith(PREFIX):
            continue
        counts = Counter[str]()
        for value, count in counts_of(dataset.episode_column(field.name).filter(as_mask(chosen))).items():
            counts[metadata_text(value)] += count
        common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        report[field.name.removeprefix(PREFIX)] = {
            "type": "json" if holds_json(field) else _TYPES.get(str(field.type), str(field.type)),
            "episodes": counts.total(),
            "distinct": len(counts),
            "values": dict(common[:_MOST_VALUES]),
        }
    return report


def _listed(dataset: Dataset, chosen: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return one entry for each chosen episode."""
    names = [name for name in dataset.episode_fields.names if name.startswith(PREFIX)]
    rows = _rows(dataset, ["episode_index", *_OF_EPISODE, *names], chosen)
    return [
        {
            **{name: row[name] for name in ("episode_index", *_OF_EPISODE)},
            "metadata": {name.removeprefix(PREFIX): row[name] for name in names if row[name] is not None},
        }
        for row in rows
    ]


def _sizes(dataset: Dataset) -> dict[str, Any]:
    totals = dataset.manifest.totals
    raw, stored = totals["raw_bytes"], totals["stored_bytes"]
    streams = {
        name: {
            "raw_bytes": raw.get(name),
            "stored_bytes": stored.get(name, 0),
            "stored_share": stored.get(name, 0) / raw[name] if raw.get(name) else None,
        }
        for name in [*raw, *(n for n in stored if n not in raw)]
    }
    return {"raw_bytes": sum(raw.values()), "stored_bytes": totals["shard_bytes"], "streams": streams}


def rejects_of(dataset: Dataset) -> dict[str, Any]:
    """Report the episodes that were set aside, with counts by error code. An episode counts once for each code."""
    rejects = dataset.manifest.read_rejects(dataset.path)
    by_code: Counter[str] = Counter()
    for reject in rejects:
        by_code.update({reason["code"] for reason in reject["reasons"] if reason["severity"] == "error"})
    return {"count": len(rejects), "by_code": dict(sorted(by_code.items())), "episodes": rejects}

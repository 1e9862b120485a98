"""Reports what a dataset holds, as plain data. Reads the manifest, episodes table and rejects, never a shard."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import DamageError
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["inspect_dataset", "inspect_episode"]


def inspect_dataset(dataset: Dataset) -> dict[str, Any]:
    """Return the report of ``vlapipe inspect``, which ``--json`` prints and the terminal shows as tables.

    ``damage`` lists missing files, and shards whose size is not the written size, as ``Manifest.damage`` does. Rates
    are measured: steps divided by the time that they span. Jitter is the standard deviation of the time between rows.
    """
    manifest = dataset.manifest
    totals = manifest.totals
    return {
        "path": str(dataset.path),
        "vlapipe_version": manifest.vlapipe_version,
        "schema": {"name": manifest.schema["name"], "sha256": manifest.schema["sha256"]},
        "format": manifest.shard_format,
        "codec": manifest.codec,
        "made_with": manifest.made_with,
        "shards": len(manifest.shards),
        "damage": manifest.damage(dataset.path),
        "episodes": totals["episodes"],
        "frames": totals["frames"],
        "seconds": totals["seconds"],
        "hours": totals["seconds"] / 3600,
        "splits": _by_split(dataset),
        "streams": {name: _describe_stream(dataset, name) for name in manifest.streams},
        "tasks": _tasks(dataset),
        "sizes": _sizes(dataset),
        "statistics": manifest.statistics,
        "findings": totals["findings"],
        "rejects": _rejects(dataset),
    }


def inspect_episode(dataset: Dataset, which: int | str) -> dict[str, Any]:
    """Return the report of ``vlapipe inspect --episode``: one row of the episodes table, stream by stream."""
    episode = dataset.episode(which)
    row = episode.row
    streams = {}
    for name, stream in dataset.manifest.streams.items():
        own = {key.partition("/")[2]: value for key, value in row.items() if key.startswith(f"{name}/")}
        if not own["rows"]:
            own |= {"first_s": None, "last_s": None}
        span = own["last_s"] - own["first_s"] if own["rows"] else 0.0
        streams[name] = {"kind": stream["kind"], "rate_hz": (own["rows"] - 1) / span if span > 0 else None, **own}
    general = {key: value for key, value in row.items() if "/" not in key}
    general["shard_file"] = dataset.manifest.shards[row["shard"]]["file"]
    arrays = {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in episode.items()}
    return {"path": str(dataset.path), **general, "streams": streams, "arrays": arrays}


def _by_split(dataset: Dataset) -> dict[str, dict[str, Any]]:
    splits = dataset.column("split")
    report = {}
    for split in sorted(set(splits.tolist()), key=lambda name: (name != "train", name)):
        here = splits == split
        report[split] = {
            "episodes": int(here.sum()),
            "frames": int(dataset.column("num_frames")[here].sum()),
            "seconds": float(dataset.column("seconds")[here].sum()),
        }
    return report


def _describe_stream(dataset: Dataset, name: str) -> dict[str, Any]:
    stream = dataset.manifest.streams[name]
    rows = dataset.column(f"{name}/rows")
    here = rows > 0  # an optional stream has no rows in an episode that lacks it
    span = float((dataset.column(f"{name}/last_s") - dataset.column(f"{name}/first_s"))[here].sum())
    steps = int((rows[here] - 1).sum())
    jitter = dataset.column(f"{name}/jitter_s")
    report: dict[str, Any] = {
        "kind": stream["kind"],
        "rows": int(rows.sum()),
        "absent_in": int((~here).sum()),
        "declared_rate_hz": stream["rate_hz"],
        "rate_hz": steps / span if span > 0 else None,
        "jitter_s": float(np.sqrt(np.average(jitter**2, weights=np.maximum(rows - 1, 1)))),
        "max_gap_s": float(dataset.column(f"{name}/max_gap_s").max()),
        "time": stream["time"],
    }
    if stream["kind"] == "images":
        both = (dataset.column(f"{name}/{side}")[here].tolist() for side in ("width", "height"))
        sizes = zip(*both, strict=True)
        report["storage"] = dataset.manifest.image_storage(name)
        report["sizes"] = {f"{width}x{height}": count for (width, height), count in Counter(sizes).items()}
    else:
        report["fields"] = stream["fields"]
    return report


def _tasks(dataset: Dataset) -> list[dict[str, Any]]:
    """Return one entry for each pair of task and instruction, the most frequent pair first."""
    columns = dataset.episodes.select(["task", "instruction", "num_frames"]).to_pylist()
    counts: Counter[tuple[str, str]] = Counter()
    frames: Counter[tuple[str, str]] = Counter()
    for row in columns:
        key = (row["task"], row["instruction"])
        counts[key] += 1
        frames[key] += row["num_frames"]
    return [
        {"task": task, "instruction": instruction, "episodes": count, "frames": frames[task, instruction]}
        for (task, instruction), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
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


def _rejects(dataset: Dataset) -> dict[str, Any]:
    """Report the episodes that were set aside, with counts by error code. An episode counts once for each code."""
    path = dataset.path / dataset.manifest.rejects["file"]
    try:
        rejects = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise_if_stopped(error, path)
        raise DamageError(f"{path}: cannot be read: {error}", "ingest again") from None
    by_code: Counter[str] = Counter()
    for reject in rejects:
        by_code.update({reason["code"] for reason in reject["reasons"] if reason["severity"] == "error"})
    return {"count": len(rejects), "by_code": dict(sorted(by_code.items())), "episodes": rejects}

"""Combines the records of all shards into the manifest's entries. Writes no file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import vlapipe
from vlapipe.pipeline.build.record import STORED, Record
from vlapipe.pipeline.build.statistics import FieldStatistics
from vlapipe.pipeline.check.episode_rows import EVIDENCE
from vlapipe.pipeline.check.flicker import flickering_columns
from vlapipe.pipeline.plan.plan import Plan
from vlapipe.pipeline.shards.derive.actions import ACTION_VALUE
from vlapipe.pipeline.shards.manifest.manifest import SHARD_FOLDER
from vlapipe.schemas.schema import ArrayStream, CsvStream, ImageStream, Schema, Stream

__all__ = ["manifest_of", "shard_entry", "storage_and_losses", "summaries_of", "totals", "with_actions"]

_NO_LOSS_DB = 99.0  # what is written of images that lost nothing


def manifest_of(
    plan: Plan, rows: Iterable[Record], *, shard_format: str, codec: str, where: str | None = None
) -> dict[str, Any]:
    """Return the manifest's entries that do not depend on how shards and episodes are put into tables.

    Args:
        plan: the plan that the shards were built from.
        rows: the rows of all episodes, in order.
        shard_format: the kind of shard.
        codec: the codec that was asked for.
        where: the command's expression for the episodes that were to be kept.
    """
    schema = plan.schema
    return {
        "vlapipe_version": vlapipe.__version__,
        "schema": {
            "name": schema.name,
            "sha256": hashlib.sha256(schema.toml.encode()).hexdigest(),
            "toml": schema.toml,
        },
        "shard_format": shard_format,
        "codec": codec,
        "streams": _describe_streams(plan, *storage_and_losses(rows)),
        "made_with": {
            "num_planned_shards": len(plan.shards),
            "val_fraction": schema.val_fraction,
            **plan.images.described(),
            **({"where": where} if where is not None else {}),
        },
    }


def shard_entry(record: Record) -> dict[str, Any]:
    """Return the entry of a shard in the manifest's list of shards."""
    shard = record["shard"]
    return {
        "file": f"{SHARD_FOLDER}/{shard['file']}",
        "bytes": shard["num_bytes"],
        "sha256": shard["sha256"],
        "episodes": len(record["episodes"]),
        "arrays": shard["arrays"],
    }


def storage_and_losses(rows: Iterable[Record]) -> tuple[dict[str, str], dict[str, float]]:
    """Return what each camera's images are stored as, and the PSNR of those that became JPEG files, in dB.

    Images are stored as ``jpeg``, ``png`` if any file is PNG, ``raw``, or ``mixed``. The PSNR is that of the episode
    that lost most.
    """
    kinds: dict[str, set[str]] = {}
    losses: dict[str, float] = {}
    for row in rows:
        for camera, stored in row[STORED].items():
            if stored["images"]:
                kinds.setdefault(camera, set()).update(stored["as"].split(" and "))
            if stored["psnr_db"] is not None:
                losses[camera] = round(min(losses.get(camera, _NO_LOSS_DB), stored["psnr_db"]), 1)
    storage = {
        camera: "png" if each == {"jpeg", "png"} else "mixed" if len(each) > 1 else next(iter(each))
        for camera, each in kinds.items()
    }
    return storage, losses


def _describe_streams(plan: Plan, storage: Mapping[str, str], losses: Mapping[str, float]) -> dict[str, Any]:
    described: dict[str, Any] = {}
    for stream in plan.schema.streams:
        if isinstance(stream, ImageStream):
            for camera in plan.cameras[stream.name]:
                stored = storage.get(camera) or plan.images.made_from("jpeg", is_depth=stream.unit is not None)
                channels = "rgb" if stored == "raw" else stream.channels  # pixels are stored in true RGB
                entry = {**_describe_stream(stream), "kind": "images", "storage": stored, "channels": channels}
                unit = {"unit": stream.unit} if stream.unit is not None else {}
                loss = {"psnr_db": losses[camera]} if camera in losses else {}
                described[camera] = {**entry, **unit, **loss}
        else:
            described[stream.name] = {**_describe_stream(stream), "fields": _describe_fields(stream)}
    return described


def _describe_fields(stream: CsvStream | ArrayStream) -> dict[str, Any]:
    """Describe every array of a stream: first the stored fields and their masks, then the fields derived from them."""
    fields: dict[str, Any] = {}
    for field in stream.fields:
        for spec in (field, field.mask):
            if spec is not None:
                entry = {"dtype": spec.dtype, "shape": list(spec.shape), "unit": list(spec.unit)}
                entry |= {"names": list(spec.names)} if spec.names else {}
                fields[spec.name] = {**entry, **({"text": True} if spec.text else {})}
    for derived in stream.derived:
        made = {"kind": derived.kind, "of": derived.of}
        fields[derived.name] = {"dtype": "float32", "shape": [6], "unit": [], "derived": made}
    return fields


def _describe_stream(stream: Stream) -> dict[str, Any]:
    time_unit = "ns" if stream.time.dtype == "int64" else "s"
    return {
        "kind": stream.kind,
        "rate_hz": stream.rate_hz,
        "max_gap_s": stream.max_gap_s,
        "time": {"dtype": stream.time.dtype, "unit": time_unit},
        **({"optional": True} if stream.optional else {}),
    }


def totals(
    streams: Iterable[str], rows: Iterable[Record], shards: list[dict[str, Any]], findings: Counter[str]
) -> dict[str, Any]:
    """Return the totals of a manifest. ``rows`` are the episodes, with ``sources``, ``num_frames`` and ``seconds``."""
    raw: dict[str, dict[str, int]] = {name: {} for name in streams}
    episodes = frames = 0
    seconds = 0.0
    for row in rows:
        episodes, frames, seconds = episodes + 1, frames + row["num_frames"], seconds + row["seconds"]
        seen: set[str] = set()
        for sizes, source in zip(raw.values(), row["sources"], strict=True):
            if source["path"] not in seen:  # several streams may lie in one file, which counts for the first of them
                sizes[source["path"]] = source["num_bytes"]  # so may several episodes: it counts once
            seen.add(source["path"])
    stored: Counter[str] = Counter()
    for shard in shards:
        for path, array in shard["arrays"].items():
            stored[path.split("/")[0]] += array["bytes"]
    return {
        "episodes": episodes,
        "frames": frames,
        "seconds": seconds,
        "raw_bytes": {name: sum(sizes.values()) for name, sizes in raw.items()},
        "stored_bytes": dict(stored),
        "shard_bytes": sum(shard["bytes"] for shard in shards),
        "findings": dict(sorted(findings.items())),
    }


def summaries_of(
    statistics: Mapping[str, FieldStatistics], rows: Iterable[Record], schema: Schema
) -> dict[str, dict[str, Any]]:
    """Return the statistics by field as the manifest has them. ``rows`` tell which columns flicker."""
    merged = {path: each.summary() for path, each in statistics.items()}
    flickering = flickering_columns(((row, row[EVIDENCE]["still"]) for row in rows), schema)
    for path, columns in with_actions(flickering, schema).items():
        if path in merged:
            merged[path]["flicker"] = [column in columns for column in range(len(merged[path]["mean"]))]
    return merged


def with_actions(columns: Mapping[str, Collection[int]], schema: Schema) -> dict[str, set[int]]:
    """Add the columns of ``action/value`` that follow from these columns; ``of`` comes first, then ``append``."""
    found = {path: set(each) for path, each in columns.items()}
    first = 0
    for path in (*schema.action.of, *(constant.field for constant in schema.action.append)):
        for column in found.get(path or "", ()):
            found.setdefault(ACTION_VALUE, set()).add(first + column)
        first += schema.field(path).num_columns if path else 1
    return found

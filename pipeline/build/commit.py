"""Combines the records of all shards into the manifest's entries and the episodes table. Writes no file."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pyarrow as pa

import vlapipe
from vlapipe.pipeline.build.record import GAPS, INSTRUCTIONS, METADATA, STORED, Record
from vlapipe.pipeline.build.statistics import FieldStatistics
from vlapipe.pipeline.check.evidence import EVIDENCE
from vlapipe.pipeline.check.flicker import flickering_columns
from vlapipe.pipeline.plan.plan import Plan
from vlapipe.pipeline.shards.derive.actions import ACTION_VALUE
from vlapipe.pipeline.shards.manifest.gaps_table import gaps_table
from vlapipe.pipeline.shards.manifest.manifest import SHARD_FOLDER
from vlapipe.pipeline.shards.manifest.metadata_columns import metadata_columns
from vlapipe.schemas.schema import ArrayStream, CsvStream, ImageStream, Schema, Stream

__all__ = ["assemble", "episodes_table", "merge_statistics", "storage_and_losses", "totals", "with_actions"]

_SOURCE = pa.struct(
    [("path", pa.string()), ("num_files", pa.int64()), ("num_bytes", pa.int64()), ("sha256", pa.string())]
)
_NO_LOSS_DB = 99.0  # what is written of images that lost nothing
_LISTS = {"sources": pa.list_(_SOURCE), INSTRUCTIONS: pa.list_(pa.string())}


def assemble(
    plan: Plan,
    records: list[Record],
    findings: list[Record],
    *,
    shard_format: str,
    codec: str,
    where: str | None = None,
    statistics: Mapping[str, FieldStatistics] | None = None,
) -> tuple[dict[str, Any], pa.Table, pa.Table, list[Record]]:
    """Return the manifest's entries, the episodes table, the table of gaps, and the rejects.

    Args:
        plan: the plan that the shards were built from.
        records: one record a shard, in the plan's order.
        findings: findings of kept episodes; the manifest counts them by code.
        shard_format: the kind of shard.
        codec: the codec that was asked for.
        where: the command's expression for the episodes that were to be kept.
        statistics: those of all shards, if the caller has merged them.
    """
    written = [record for record in records if record["shard"]]
    shards = [
        {
            "file": f"{SHARD_FOLDER}/{record['shard']['file']}",
            "bytes": record["shard"]["num_bytes"],
            "sha256": record["shard"]["sha256"],
            "episodes": len(record["episodes"]),
            "arrays": record["shard"]["arrays"],
        }
        for record in written
    ]
    rows = [{"shard": i, **row} for i, record in enumerate(written) for row in record["episodes"]]
    rejects = [reject for record in records for reject in record["rejects"]]
    histograms = merge_statistics(written) if statistics is None else statistics
    schema = plan.schema
    streams = _describe_streams(plan, *storage_and_losses(rows))
    manifest = {
        "vlapipe_version": vlapipe.__version__,
        "schema": {
            "name": schema.name,
            "sha256": hashlib.sha256(schema.toml.encode()).hexdigest(),
            "toml": schema.toml,
        },
        "shard_format": shard_format,
        "codec": codec,
        "streams": streams,
        "shards": shards,
        "totals": totals(streams, rows, shards, Counter(finding["code"] for finding in findings)),
        "statistics": _summaries(histograms, rows, schema),
        "made_with": {
            "num_planned_shards": len(plan.shards),
            "val_fraction": schema.val_fraction,
            **plan.images.described(),
            **({"where": where} if where is not None else {}),
        },
    }
    gaps = gaps_table((i, gap) for i, row in enumerate(rows) for gap in row[GAPS])
    return manifest, episodes_table(rows), gaps, rejects


def storage_and_losses(rows: list[Record]) -> tuple[dict[str, str], dict[str, float]]:
    """Return what each camera's images are stored as, and the PSNR of those that became JPEG files, in dB."""
    return _storage(rows), _losses(rows)


def _storage(rows: list[Record]) -> dict[str, str]:
    """Return what each camera's images are stored as: ``jpeg``, ``png`` if any file is PNG, ``raw``, or ``mixed``."""
    kinds: dict[str, set[str]] = {}
    for row in rows:
        for camera, stored in row[STORED].items():
            if stored["images"]:
                kinds.setdefault(camera, set()).update(stored["as"].split(" and "))
    return {
        camera: "png" if each == {"jpeg", "png"} else "mixed" if len(each) > 1 else next(iter(each))
        for camera, each in kinds.items()
    }


def _losses(rows: list[Record]) -> dict[str, float]:
    """Return the PSNR of each camera's images that became JPEG files, in dB, of the episode that lost most."""
    losses: dict[str, float] = {}
    for row in rows:
        for camera, stored in row[STORED].items():
            if stored["psnr_db"] is not None:
                losses[camera] = round(min(losses.get(camera, _NO_LOSS_DB), stored["psnr_db"]), 1)
    return losses


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
    streams: Iterable[str], rows: list[Record], shards: list[dict[str, Any]], findings: Counter[str]
) -> dict[str, Any]:
    """Return the totals of a manifest. ``rows`` are the episodes, with ``sources``, ``num_frames`` and ``seconds``."""
    raw: dict[str, dict[str, int]] = {name: {} for name in streams}
    for row in rows:
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
        "episodes": len(rows),
        "frames": sum(row["num_frames"] for row in rows),
        "seconds": sum(row["seconds"] for row in rows),
        "raw_bytes": {name: sum(sizes.values()) for name, sizes in raw.items()},
        "stored_bytes": dict(stored),
        "shard_bytes": sum(shard["bytes"] for shard in shards),
        "findings": dict(sorted(findings.items())),
    }


def merge_statistics(records: list[Record]) -> dict[str, FieldStatistics]:
    """Merge the statistics of all shards, by field."""
    parts: dict[str, list[FieldStatistics]] = {}
    for record in records:
        for path, values in record["statistics"].items():
            parts.setdefault(path, []).append(FieldStatistics.from_dict(values))
    return {path: FieldStatistics.merged(each) for path, each in parts.items()}


def _summaries(
    statistics: Mapping[str, FieldStatistics], rows: list[Record], schema: Schema
) -> dict[str, dict[str, Any]]:
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


def _type_of(column: str) -> pa.DataType | None:
    """Return the type of a column, or ``None`` if Arrow infers it. It infers none from lists that are all empty."""
    if column in _LISTS:
        return _LISTS[column]
    if column.endswith("/gaps"):
        return pa.list_(pa.int32())
    return pa.int32() if column.endswith("/begin") else None


def episodes_table(rows: list[Record]) -> pa.Table:
    """Return the episodes table of these rows, one or more."""
    columns: dict[str, pa.Array] = {"episode_index": pa.array(range(len(rows)), pa.int64())}
    for name in rows[0]:
        if name in (GAPS, METADATA, EVIDENCE, STORED) or (
            name == INSTRUCTIONS and not any(len(row[name]) > 1 for row in rows)
        ):
            continue
        values = [row[name] for row in rows]
        columns[name] = pa.array(values, _type_of(name))
    table = pa.table(columns)
    for field, values in metadata_columns([row[METADATA] for row in rows], table.column_names):
        table = table.append_column(field, values)
    return table

"""The sums from which a dataset's statistics are merged again when episodes come or go.

Each part of the dataset has a table of moments: those of the training episodes of each shard, by field, and the columns
that hardly move, by episode. The dataset has one table of sums: a histogram for each field, and what the parts' tables
sum up to, so that a change reads the tables of the parts that it touches and no others.

Moments cannot be subtracted without loss, so those of a shard that loses an episode are computed again from that shard.
Counts of a histogram can. So the result is that of one ingest of the same episodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlapipe.pipeline.build.statistics import FieldStatistics, Moments
from vlapipe.pipeline.check.flicker import Flicker, FlickerSums, still_columns_of
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.derive.actions import ACTION_ROW, ACTION_VALUE
from vlapipe.pipeline.shards.format.digest import damage_or_bug, file_sha256, require_digest
from vlapipe.pipeline.shards.format.parquet import parquet_bytes
from vlapipe.pipeline.stream_rows import SourceFile, StreamRows
from vlapipe.schemas.schema import ImageStream, Schema

__all__ = ["PartMoments", "PartSums", "Sums", "statistics_of", "still_of"]

_MOMENTS = [
    ("path", pa.string()),  # the field; empty for what is not of a field
    ("count", pa.list_(pa.int64())),  # one number if it is the same for each column
    *((name, pa.list_(pa.float64())) for name in ("mean", "m2", "min", "max")),
]
_OF_PART = pa.schema(
    [
        ("shard", pa.string()),  # the shard's file; empty for the columns that hardly move, by episode
        *_MOMENTS,
        ("still", pa.string()),
    ]
)
_OF_DATASET = pa.schema(
    [
        ("part", pa.string()),  # the digest of the part's table of moments; empty for histograms
        *_MOMENTS,
        ("bits", pa.int32()),
        ("buckets", pa.list_(pa.binary())),
        ("counts", pa.list_(pa.binary())),
        ("flicker", pa.string()),
    ]
)
_NO_SOURCE = SourceFile(path="", num_files=0, num_bytes=0, sha256="")


@dataclass(kw_only=True)
class PartMoments:
    """The moments of one part, by shard's file and field, and the columns that are still, by episode.

    Of a shard without training episodes there are no moments.
    """

    shards: dict[str, dict[str, Moments]] = field(default_factory=dict)
    still: dict[str, Flicker] = field(default_factory=dict)

    def to_bytes(self) -> tuple[bytes, int]:
        """Return the table as a Parquet file, and its number of rows. Equal moments give equal bytes."""
        rows: list[dict[str, Any]] = []
        for shard, fields in self.shards.items():
            rows += [{"shard": shard, "path": path, **_moments_row(each)} for path, each in fields.items()]
        if self.still:
            rows.append({"shard": "", "path": "", "still": json.dumps(self.still, sort_keys=True)})
        return parquet_bytes(pa.Table.from_pylist(rows, schema=_OF_PART)), len(rows)

    @classmethod
    def read(cls, folder: Path, named: Mapping[str, Any]) -> PartMoments:
        """Read the table that a part names."""
        found = cls()
        for row in _rows_of(folder, named):
            if row["still"] is not None:
                found.still = json.loads(row["still"])
            else:
                found.shards.setdefault(row["shard"], {})[row["path"]] = _moments_of(row)
        return found

    def merged(self, files: Iterable[str]) -> dict[str, Moments]:
        """Merge the moments of these shards, in this order, by field."""
        parts: dict[str, list[Moments]] = {}
        for file in files:
            for path, each in self.shards.get(file, {}).items():
                parts.setdefault(path, []).append(each)
        return {path: Moments.merged(each) for path, each in parts.items()}


@dataclass(frozen=True, kw_only=True)
class PartSums:
    """What a part's moments sum up to, by field; and what tells which columns flicker."""

    moments: dict[str, Moments]
    flicker: FlickerSums


@dataclass(kw_only=True)
class Sums:
    """``histograms`` of the whole dataset by field, and sums of its parts by the digest of their table of moments."""

    histograms: dict[str, FieldStatistics] = field(default_factory=dict)  # their moments mean nothing
    parts: dict[str, PartSums] = field(default_factory=dict)

    def count(self, statistics: Mapping[str, FieldStatistics], *, times: int = 1) -> None:
        """Add the histograms of some episodes, or with ``times=-1`` subtract them."""
        for path, each in statistics.items():
            signed = _times(each, times)
            there = self.histograms.get(path)
            merged = signed if there is None else FieldStatistics.merged([there, signed])
            kept = [counts != 0 for counts in merged.counts]
            self.histograms[path] = FieldStatistics(
                moments=_no_moments(len(merged.buckets)),
                buckets=[keys[some] for keys, some in zip(merged.buckets, kept, strict=True)],
                counts=[counts[some] for counts, some in zip(merged.counts, kept, strict=True)],
                bits=merged.bits,
            )

    def statistics(self, parts: Iterable[str]) -> dict[str, FieldStatistics]:
        """Merge the statistics of these parts, in this order, by field."""
        found: dict[str, list[Moments]] = {}
        for part in parts:
            for path, each in self.parts[part].moments.items():
                found.setdefault(path, []).append(each)
        return {
            path: FieldStatistics(
                moments=Moments.merged(each),
                buckets=self.histograms[path].buckets,
                counts=self.histograms[path].counts,
                bits=self.histograms[path].bits,
            )
            for path, each in found.items()
        }

    def to_bytes(self) -> tuple[bytes, int]:
        """Return the table as a Parquet file, and its number of rows. Equal sums give equal bytes."""
        rows: list[dict[str, Any]] = []
        for part, sums in self.parts.items():
            rows += [{"part": part, "path": path, **_moments_row(each)} for path, each in sums.moments.items()]
            rows.append({"part": part, "path": "", "flicker": json.dumps(sums.flicker.to_json(), sort_keys=True)})
        for path, each in self.histograms.items():
            buckets = [keys.astype("<i4").tobytes() for keys in each.buckets]
            counts = [numbers.astype("<i8").tobytes() for numbers in each.counts]
            rows.append({"part": "", "path": path, "bits": each.bits, "buckets": buckets, "counts": counts})
        return parquet_bytes(pa.Table.from_pylist(rows, schema=_OF_DATASET)), len(rows)

    @classmethod
    def read(cls, folder: Path, named: Mapping[str, Any]) -> Sums:
        """Read the table that a manifest names."""
        sums = cls()
        moments: dict[str, dict[str, Moments]] = {}
        for row in _rows_of(folder, named):
            if not row["part"]:
                sums.histograms[row["path"]] = FieldStatistics(
                    moments=_no_moments(len(row["buckets"])),
                    buckets=[np.frombuffer(keys, dtype="<i4") for keys in row["buckets"]],
                    counts=[np.frombuffer(counts, dtype="<i8") for counts in row["counts"]],
                    bits=row["bits"],
                )
            elif row["path"]:
                moments.setdefault(row["part"], {})[row["path"]] = _moments_of(row)
            else:
                flicker = FlickerSums.of_json(json.loads(row["flicker"]))
                sums.parts[row["part"]] = PartSums(moments=moments.get(row["part"], {}), flicker=flicker)
        return sums


def _rows_of(folder: Path, named: Mapping[str, Any]) -> list[dict[str, Any]]:
    path = folder / named["file"]
    require_digest(path, file_sha256(path), named["sha256"])
    with damage_or_bug(path, named["sha256"]):
        rows: list[dict[str, Any]] = pq.read_table(path, use_threads=False, partitioning=None).to_pylist()
    return rows


def statistics_of(dataset: Dataset, episodes: Iterable[int]) -> dict[str, FieldStatistics]:
    """Compute the statistics of these episodes of one shard, by field, from the shard, as ingest does."""
    parts: dict[str, list[NDArray[Any]]] = {}
    for index in episodes:
        for path, values in _numbers_of(dataset, index).items():
            parts.setdefault(path, []).append(values)
    return {path: FieldStatistics.of(*each) for path, each in parts.items()}


def still_of(dataset: Dataset, index: int) -> Flicker:
    """Find the columns of one episode that hardly move, as ingest does."""
    episode = dataset.episode(index)
    streams = {
        stream.name: StreamRows(
            timestamp=episode[f"{stream.name}/timestamp"],
            fields={
                spec.name: episode[f"{stream.name}/{spec.name}"]
                for each in stream.fields
                for spec in (each, each.mask)
                if spec is not None
            },
            source=_NO_SOURCE,
        )
        for stream in dataset.recorded.streams
        if not isinstance(stream, ImageStream) and episode.row[f"{stream.name}/rows"]
    }
    known = {path: values for path, values in episode.row["statistics"].items() if values is not None}
    return still_columns_of(streams, dataset.recorded, known)


def _numbers_of(dataset: Dataset, index: int) -> dict[str, NDArray[Any]]:
    episode = dataset.episode(index)
    numbers = {path: episode[path] for path in _paths(dataset.recorded) if path in episode}
    valid = episode[ACTION_ROW] >= 0
    count = int(np.count_nonzero(valid))
    actions = episode[ACTION_VALUE]
    numbers[ACTION_VALUE] = actions[:count] if valid[:count].all() else actions[valid]
    return numbers


def _paths(schema: Schema) -> list[str]:
    """Return the fields of numbers: stored ones with their masks, and derived ones."""
    paths = []
    for stream in schema.streams:
        if isinstance(stream, ImageStream):
            continue
        specs = [spec for each in stream.fields for spec in (each, each.mask) if spec is not None and not spec.text]
        paths += [f"{stream.name}/{spec.name}" for spec in specs]
        paths += [f"{stream.name}/{derived.name}" for derived in stream.derived]
    return paths


def _times(statistics: FieldStatistics, times: int) -> FieldStatistics:
    counts = [times * each for each in statistics.counts]
    return FieldStatistics(
        moments=_no_moments(len(counts)), buckets=statistics.buckets, counts=counts, bits=statistics.bits
    )


def _no_moments(num_columns: int) -> Moments:
    none = np.zeros(num_columns)
    return Moments(count=0, mean=none, m2=none, min=none, max=none)


def _moments_row(moments: Moments) -> dict[str, Any]:
    count = [moments.count] if isinstance(moments.count, int) else moments.count.tolist()
    arrays = {name: getattr(moments, name).tolist() for name in ("mean", "m2", "min", "max")}
    return {"count": count, **arrays}


def _moments_of(row: Mapping[str, Any]) -> Moments:
    count = row["count"]
    arrays = {name: np.array(row[name], dtype=np.float64) for name in ("mean", "m2", "min", "max")}
    return Moments(count=count[0] if len(count) == 1 else np.array(count, dtype=np.int64), **arrays)

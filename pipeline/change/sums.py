"""The sums from which a dataset's statistics are merged again when episodes come or go.

A table has, for each shard and field, the moments of the shard's training episodes, and for the whole dataset one
histogram a field. Moments cannot be subtracted without loss, so those of a shard that loses an episode are computed
again from that shard. Counts of a histogram can. So the result is that of one ingest of the same episodes.
"""

from __future__ import annotations

import io
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
from vlapipe.pipeline.check.flicker import Flicker, still_columns_of
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.derive.actions import ACTION_ROW, ACTION_VALUE
from vlapipe.pipeline.shards.format.digest import file_sha256, require_digest
from vlapipe.pipeline.stream_rows import SourceFile, StreamRows
from vlapipe.schemas.schema import ImageStream, Schema

__all__ = ["Sums", "statistics_of", "still_of", "training_episodes"]

_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),  # the shard's file; empty for the whole dataset
        ("path", pa.string()),  # the field; empty for the columns that hardly move, by episode
        ("bits", pa.int32()),
        ("count", pa.list_(pa.int64())),  # one number if it is the same for each column
        *((name, pa.list_(pa.float64())) for name in ("mean", "m2", "min", "max")),
        ("buckets", pa.list_(pa.binary())),
        ("counts", pa.list_(pa.binary())),
        ("still", pa.string()),
    ]
)
_NO_SOURCE = SourceFile(path="", num_files=0, num_bytes=0, sha256="")


@dataclass(kw_only=True)
class Sums:
    """``moments`` by shard's file and field, ``histograms`` by field, and the columns that are ``still``, by episode.

    Of a shard without training episodes there are no moments.
    """

    moments: dict[str, dict[str, Moments]] = field(default_factory=dict)
    histograms: dict[str, FieldStatistics] = field(default_factory=dict)  # their moments mean nothing
    still: dict[str, Flicker] = field(default_factory=dict)

    @classmethod
    def of_dataset(cls, dataset: Dataset) -> Sums:
        """Read the sums of a dataset, or compute them from its shards if it has none."""
        named = dataset.manifest.sums
        if named is not None:
            return cls._read(dataset.path / named["file"], named["sha256"])
        sums = cls()
        for file, episodes in training_episodes(dataset).items():
            sums.add(file, statistics_of(dataset, episodes.values()))
        for index in range(len(dataset)):
            still = still_of(dataset, index)
            if still:
                sums.still[str(dataset.row(index)["id"])] = still
        return sums

    def add(self, shard: str, statistics: Mapping[str, FieldStatistics]) -> None:
        """Add the training episodes of a new shard."""
        self.replace_moments(shard, statistics)
        self.count(statistics)

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

    def replace_moments(self, shard: str, statistics: Mapping[str, FieldStatistics]) -> None:
        """Replace the moments of a shard whose training episodes are others than before."""
        self.moments.pop(shard, None)
        if statistics:
            self.moments[shard] = {path: each.moments for path, each in statistics.items()}

    def statistics(self, shards: Iterable[str]) -> dict[str, FieldStatistics]:
        """Merge the statistics of these shards, in this order, by field."""
        parts: dict[str, list[Moments]] = {}
        for shard in shards:
            for path, each in self.moments.get(shard, {}).items():
                parts.setdefault(path, []).append(each)
        return {
            path: FieldStatistics(
                moments=Moments.merged(each),
                buckets=self.histograms[path].buckets,
                counts=self.histograms[path].counts,
                bits=self.histograms[path].bits,
            )
            for path, each in parts.items()
        }

    def to_bytes(self) -> tuple[bytes, int]:
        """Return the table as a Parquet file, and its number of rows. Equal sums give equal bytes."""
        rows: list[dict[str, Any]] = []
        for shard, fields in self.moments.items():
            rows += [{"shard": shard, "path": path, **_moments_row(each)} for path, each in fields.items()]
        for path, each in self.histograms.items():
            buckets = [keys.astype("<i4").tobytes() for keys in each.buckets]
            counts = [numbers.astype("<i8").tobytes() for numbers in each.counts]
            rows.append({"shard": "", "path": path, "bits": each.bits, "buckets": buckets, "counts": counts})
        if self.still:
            rows.append({"shard": "", "path": "", "still": json.dumps(self.still, sort_keys=True)})
        table = pa.Table.from_pylist(rows, schema=_SCHEMA)
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        return buffer.getvalue(), len(rows)

    @classmethod
    def _read(cls, path: Path, sha256: str) -> Sums:
        require_digest(path, file_sha256(path), sha256)
        sums = cls()
        for row in pq.read_table(path, use_threads=False, partitioning=None).to_pylist():
            if row["still"] is not None:
                sums.still = json.loads(row["still"])
            elif row["shard"]:
                sums.moments.setdefault(row["shard"], {})[row["path"]] = _moments_of(row)
            else:
                sums.histograms[row["path"]] = FieldStatistics(
                    moments=_no_moments(len(row["buckets"])),
                    buckets=[np.frombuffer(keys, dtype="<i4") for keys in row["buckets"]],
                    counts=[np.frombuffer(counts, dtype="<i8") for counts in row["counts"]],
                    bits=row["bits"],
                )
        return sums


def training_episodes(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Return the indices of the training episodes, by shard's file and id."""
    found: dict[str, dict[str, int]] = {}
    columns = zip(dataset.column("id"), dataset.column("shard").tolist(), dataset.column("split"), strict=True)
    for index, (name, shard, split) in enumerate(columns):
        if split == "train":
            found.setdefault(dataset.manifest.shards[shard]["file"], {})[name] = index
    return found


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

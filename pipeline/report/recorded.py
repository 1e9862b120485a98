"""Reads single episodes out of packed shards for a report: only the rows that are asked for, and nothing is cached.

A report looks at a few episodes of each of many shards. Unpacking those shards, as training does, would take minutes
and fill a disk. Rows are not verified against a shard's digest unless they cannot be decoded.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.derive.episode_sample import EpisodeSample, within_episode
from vlapipe.pipeline.shards.format.digest import damage_or_bug
from vlapipe.pipeline.shards.format.image_decode import decode_depth, decode_rgb, is_deep
from vlapipe.pipeline.shards.format.shard_file import map_arrays, read_into, shard_format_of
from vlapipe.pipeline.shards.format.zarr_rows import ZarrRows

__all__ = ["PackedShard", "RecordedEpisode"]

_MOST_WHOLE = 1 << 28  # bytes of an array that is decoded whole, because its codec has no rows


class PackedShard:
    """One shard, whose arrays are decoded row by row where its codec allows it."""

    def __init__(self, dataset: Dataset, shard: int) -> None:
        self._entry = dataset.manifest.shards[shard]
        self.path = dataset.path / self._entry["file"]
        self._format = shard_format_of(self._entry["file"])
        with damage_or_bug(self.path, self._entry["sha256"]):
            whole, self._mapped = map_arrays(self.path, self._format)
            self._rows = ZarrRows(self.path, whole) if self._format == "zarr" else None
        self._decoded: dict[str, NDArray[Any]] = {}

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Returns rows of an array. An array too large to decode whole has no rows: its part is empty."""
        with damage_or_bug(self.path, self._entry["sha256"]):
            if name in self._mapped:
                return self._mapped[name][start:stop]
            if self._rows is not None and name in self._rows:
                return self._rows.read(name, start, stop)
            if name not in self._decoded:
                about = self._entry["arrays"][name]
                dtype, shape = np.dtype(about["dtype"]), tuple(about["shape"])
                if math.prod(shape) * dtype.itemsize > _MOST_WHOLE:
                    return np.empty((0, *shape[1:]), dtype=dtype)
                self._decoded[name] = np.empty(shape, dtype=dtype)
                read_into(self.path, {name: self._decoded[name]}, self._format)
            return self._decoded[name][start:stop]

    @property
    def names(self) -> list[str]:
        """Names of the shard's arrays."""
        return list(self._entry["arrays"])


class RecordedEpisode:
    """The rows of one episode. ``row`` is its row of the episodes table."""

    def __init__(self, dataset: Dataset, index: int, shard: PackedShard) -> None:
        self.dataset, self.index, self._shard = dataset, index, shard
        self.row = dataset.row(index)
        self.num_rows = {name: int(self.row[f"{name}/rows"]) for name in dataset.manifest.streams}
        begins = {name: int(self.row[f"{name}/start"]) for name in dataset.manifest.streams}
        self._begins = begins
        self.read = within_episode(dataset.recorded, begins, shard.read)
        self._sample = EpisodeSample(dataset.recorded, self.read, self.num_rows, chosen=False)

    def times(self, stream: str) -> NDArray[np.float64]:
        """Returns the times of a stream in seconds since the first anchor row."""
        return self._sample.times(stream)

    def actions(self) -> NDArray[np.float32]:
        """Returns the actions ``(rows, A)``; NaN where a row has none."""
        count = self.num_rows[self.dataset.recorded.anchor]
        actions = np.array(self._sample.actions(0, count), dtype=np.float32)
        actions[self._sample.action_rows() < 0] = np.nan
        return actions

    @cached_property
    def fields(self) -> list[str]:
        """Numeric fields that the shard holds, as ``<stream>/<field>``, without masks."""
        found = []
        for name, stream in self.dataset.manifest.streams.items():
            for field in stream.get("fields", {}):
                path = f"{name}/{field}"
                if path in self._shard.names and not self.dataset.recorded.field(path).text:
                    found.append(path)
        return found

    def field(self, path: str, *, most_rows: int | None = None, first_rows: int | None = None) -> NDArray[Any]:
        """Returns a field ``(rows, columns)``: all rows, or the first, or ``most_rows`` in four runs."""
        count = min(self.num_rows[path.partition("/")[0]], first_rows or self.num_rows[path.partition("/")[0]])
        if most_rows is None or count <= most_rows:
            rows = self.read(path, 0, count)
            return rows.reshape(len(rows), -1)
        length = max(most_rows // 4, 1)
        runs = [self.read(path, start, start + length) for start in np.linspace(0, count - length, 4).astype(int)]
        return np.concatenate([run.reshape(len(run), -1) for run in runs])

    def image_marks(self, camera: str) -> NDArray[np.int64]:
        """Returns one number for each image; equal numbers in a row mean equal images. Few images are read.

        Compressed images that differ have different sizes nearly always, so only images as long as
        a neighbour are read. Of stored pixels, one in sixteen is read.
        """
        count, start = self.num_rows[camera], self._begins[camera]
        if f"{camera}/bytes" not in self._shard.names:
            return np.array([hash(self._stored_image(camera, i).reshape(-1)[::16].tobytes()) for i in range(count)])
        marks = np.diff(self._shard.read(f"{camera}/offset", start, start + count + 1)).astype(np.int64)
        same = np.flatnonzero(marks[1:] == marks[:-1])
        for i in sorted({*same.tolist(), *(same + 1).tolist()}):
            marks[i] = hash(self._stored_image(camera, i).tobytes())
        return marks

    def image(self, camera: str, row: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Returns an image as RGB, decoded at the smallest scale with both sides at least ``size`` (height, width).

        Depth becomes gray: near is dark, and white is the farthest of the image.

        Raises:
            ValueError: the image cannot be decoded.
        """
        stored = self._stored_image(camera, row)
        if stored.ndim > 1:
            return _gray(stored) if stored.dtype == np.uint16 or stored.ndim == 2 else np.asarray(stored)
        if is_deep(stored):
            return _gray(decode_depth(stored, lambda height, width: np.empty((height, width), dtype=np.uint16)))
        channels = self.dataset.manifest.image_channels(camera)
        return decode_rgb(
            stored, size, lambda h, w: np.empty((h, w, 3), dtype=np.uint8), channels, pass_over=lambda _: None
        )

    def _stored_image(self, camera: str, row: int) -> NDArray[Any]:
        start = self._begins[camera] + row
        if f"{camera}/bytes" not in self._shard.names:
            return np.asarray(self._shard.read(f"{camera}/pixels", start, start + 1)[0])
        offset = self._shard.read(f"{camera}/offset", start, start + 2)
        return np.asarray(self._shard.read(f"{camera}/bytes", int(offset[0]), int(offset[1])))


def _gray(depth: NDArray[Any]) -> NDArray[np.uint8]:
    depth = depth.reshape(depth.shape[:2])
    scaled = (depth / max(float(depth.max()), 1.0) * 255).astype(np.uint8)
    return np.repeat(scaled[..., None], 3, axis=2)

"""Reads rows of ``sample_arrays`` from a packed shard: decodes only the requested rows.

A batch of a shuffled epoch has samples in most shards of a dataset, so without this reader the first batch would wait
until all shards are unpacked. The rows are not verified against the shard's digest. Unpacking verifies the digest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.actions import ACTION_ROW, ACTION_STRIDE_ORDER, ACTION_VALUE, in_stride_order
from vlapipe.pipeline.shards.derive.conversion import Conversion
from vlapipe.pipeline.shards.derive.derived_fields import derived_specs, rotation_6d
from vlapipe.pipeline.shards.derive.episode_sample import EpisodeSample, within_episode
from vlapipe.pipeline.shards.format.digest import damage_or_bug
from vlapipe.pipeline.shards.format.zarr_rows import ZarrRows
from vlapipe.pipeline.shards.mapped.decode_shard import sample_sources
from vlapipe.pipeline.shards.mapped.layout import STATE, STATE_IS_MISSING, TIME, Layout, is_aligned, sample_fields
from vlapipe.schemas.schema import Schema

__all__ = ["PackedRows"]


class PackedRows:
    """Reads rows of one shard's ``sample_arrays``, by the same names. Thread-safe."""

    def __init__(
        self,
        path: Path,
        sha256: str,
        schema: Schema,
        arrays: Mapping[str, Mapping[str, Any]],
        whole: NDArray[np.uint8],
        mapped: Mapping[str, NDArray[Any]],
        layout: Layout,
        episodes: Mapping[str, NDArray[np.int64]],
        *,
        chosen: bool,
        conversions: Mapping[str, Conversion],
        padded: Mapping[str, int],
    ) -> None:
        """Read the directory of a Zarr shard.

        Args:
            path: the shard.
            sha256: the shard's digest in the manifest.
            schema: the schema, which describes derived fields, actions and the fields of a sample.
            arrays: the manifest's description of the shard's arrays.
            whole: a map of the shard.
            mapped: the arrays that are uncompressed in the shard, mapped.
            layout: the layout of the cache entry that the shard would be unpacked into.
            episodes: for each stream, start and number of rows of each of the shard's episodes, ``(episodes, 2)``.
            chosen: whether the sample was chosen when training; see ``lay_out``.
            conversions: how stored fields are converted; none of these fields is in ``mapped``.
            padded: the number of columns of the state or the action by batch entry; see ``lay_out``.

        Raises:
            DamageError: the shard's bytes have changed since they were written.
        """
        self._path, self._sha256, self._schema, self._arrays, self._mapped = path, sha256, schema, arrays, mapped
        self._entries, self._derived = sample_fields(schema), derived_specs(schema)
        self._layout, self._episodes, self._chosen, self._conversions = layout, episodes, chosen, conversions
        self._padded = {**padded, ACTION_STRIDE_ORDER: padded["action"]} if "action" in padded else padded
        self._samples: dict[int, EpisodeSample] = {}
        with damage_or_bug(path, sha256):
            self._stored = ZarrRows(path, whole)

    @property
    def are_quick(self) -> bool:
        """Whether rows can be decoded without decoding the whole array."""
        stored = {*sample_sources(self._schema, self._layout)}
        stored |= {text for text in [self._schema.instruction.column] if text is not None}
        stored |= {name for name in self._arrays if name.startswith("align/") or name.endswith("/offset")}
        return all(name in self._mapped or name in self._stored for name in stored)

    def num_rows(self, name: str) -> int:
        """Returns the number of rows of the whole array ``name``."""
        if name.startswith(f"{TIME}/"):
            return int(self._arrays[f"{name.removeprefix(f'{TIME}/')}/timestamp"]["shape"][0])
        field = self._entries.get(name, (name,))[0]
        if name == STATE or field in (ACTION_VALUE, ACTION_STRIDE_ORDER, STATE_IS_MISSING, TIME):
            field = ACTION_ROW
        stored = self._derived[field][0] if field in self._derived else field
        return int(self._arrays[stored]["shape"][0])

    @np.errstate(over="ignore")  # a schema may allow float64 values beyond float32's range
    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Returns the rows ``start <= i < stop``, C-contiguous. Rows that are derived must be within one episode.

        Raises:
            DamageError: the rows cannot be decoded because the shard is damaged.
        """
        with damage_or_bug(self._path, self._sha256):
            rows = self._read(name, start, stop)
            missing = self._padded.get(name, 0) - (rows.shape[1] if rows.ndim > 1 else 0)
            return np.pad(rows, ((0, 0), (0, missing))) if missing > 0 else np.ascontiguousarray(rows)

    def _read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        anchor = self._schema.anchor
        if name == ACTION_STRIDE_ORDER:
            return self._in_stride_order(start, stop)
        if name == TIME or name.startswith(f"{TIME}/"):
            stream = anchor if name == TIME else name.removeprefix(f"{TIME}/")
            episode, begin = self._episode_at(stream, start)
            return episode.times(stream)[start - begin : stop - begin, None]
        if name == "action":
            return self._actions(start, stop)
        if name == ACTION_ROW and self._chosen:
            episode, begin = self._episode_at(anchor, start)
            return episode.action_rows()[start - begin : stop - begin]
        if name == STATE_IS_MISSING:
            episode, begin = self._episode_at(anchor, start)
            missing = episode.is_missing(self._schema.sample.state, "state", start - begin, stop - begin)
            return missing.astype(np.uint8)[:, None]
        if name == STATE and is_aligned(self._schema):
            episode, begin = self._episode_at(anchor, start)
            return episode.state(start - begin, stop - begin)
        if name not in self._entries:
            return self._rows(name, start, stop)
        fields = [self._field(field, start, stop) for field in self._entries[name]]
        if len(fields) == 1 and name != STATE:
            return np.asarray(fields[0], dtype=np.float32)
        columns = [field.reshape(stop - start, math.prod(field.shape[1:])) for field in fields]
        return np.concatenate(columns, axis=1, dtype=np.float32, casting="same_kind")

    def _field(self, field: str, start: int, stop: int) -> NDArray[Any]:
        if field in self._derived:
            of = self._derived[field][0]
            return rotation_6d(self._schema.field(of), self._rows(of, start, stop))
        return self._rows(field, start, stop)

    def _rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        rows = self._mapped[name][start:stop] if name in self._mapped else self._stored.read(name, start, stop)
        return self._conversions[name].apply(rows) if name in self._conversions else rows

    def _in_stride_order(self, start: int, stop: int) -> NDArray[np.float32]:
        """Returns actions in stride order. They are not adjacent in the shard, so all rows between them are decoded."""
        episode, begin = self._episode_at(self._schema.anchor, start)
        rows = (
            begin + in_stride_order(episode.num_rows, self._schema.sample.action_stride)[start - begin : stop - begin]
        )
        if not len(rows):
            return self._actions(start, stop)
        first = int(rows.min())
        return self._actions(first, int(rows.max()) + 1)[rows - first]

    def _actions(self, start: int, stop: int) -> NDArray[np.float32]:
        episode, begin = self._episode_at(self._schema.anchor, start)
        return episode.actions(start - begin, stop - begin)

    def _episode_at(self, stream: str, row: int) -> tuple[EpisodeSample, int]:
        """Returns the episode that contains a row of a stream, and the episode's first row."""
        starts = self._episodes[stream][:, 0]
        index = int(np.searchsorted(starts, row, side="right")) - 1
        if index not in self._samples:
            self._samples[index] = self._make_sample(index)
        return self._samples[index], int(starts[index])

    def _make_sample(self, index: int) -> EpisodeSample:
        begins = {stream: int(each[index, 0]) for stream, each in self._episodes.items()}
        num_rows = {stream: int(each[index, 1]) for stream, each in self._episodes.items()}
        read = within_episode(self._schema, begins, self._rows)
        return EpisodeSample(self._schema, read, num_rows, chosen=self._chosen)

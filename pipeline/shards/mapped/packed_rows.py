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

from vlapipe.pipeline.shards.derive.actions import (
    ACTION_ROW,
    ACTION_STRIDE_ORDER,
    ACTION_VALUE,
    action_fields,
    derive_actions,
    in_stride_order,
)
from vlapipe.pipeline.shards.derive.derived_fields import derived_specs, rotation_6d
from vlapipe.pipeline.shards.format.digest import damage_or_bug
from vlapipe.pipeline.shards.format.zarr_rows import ZarrRows
from vlapipe.pipeline.shards.mapped.layout import STATE, sample_fields
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
        episodes: NDArray[np.int64],
    ) -> None:
        """Read the directory of a Zarr shard.

        Args:
            path: the shard.
            sha256: the shard's digest in the manifest.
            schema: the schema, which describes derived fields, actions and the fields of a sample.
            arrays: the manifest's description of the shard's arrays.
            whole: a map of the shard.
            mapped: the arrays that are uncompressed in the shard, mapped.
            episodes: start and number of anchor rows of each of the shard's episodes, ``(episodes, 2)``, in order.

        Raises:
            DamageError: the shard's bytes have changed since they were written.
        """
        self._path, self._sha256, self._schema, self._arrays, self._mapped = path, sha256, schema, arrays, mapped
        self._entries, self._derived = sample_fields(schema), derived_specs(schema)
        self._episodes = episodes
        with damage_or_bug(path, sha256):
            self._stored = ZarrRows(path, whole)

    @property
    def are_quick(self) -> bool:
        """Whether rows can be decoded without decoding the whole array."""
        entries = {field for fields in self._entries.values() for field in fields}
        stored = {self._derived[field][0] if field in self._derived else field for field in entries}
        stored = (stored | {ACTION_ROW, *action_fields(self._schema)}) - {ACTION_VALUE}
        stored |= {name for name in self._arrays if name.startswith("align/") or name.endswith("/offset")}
        return all(name in self._mapped or name in self._stored for name in stored)

    def num_rows(self, name: str) -> int:
        """Returns the number of rows of the whole array ``name``."""
        field = self._entries.get(name, (name,))[0]
        if field in (ACTION_VALUE, ACTION_STRIDE_ORDER):
            field = ACTION_ROW
        stored = self._derived[field][0] if field in self._derived else field
        return int(self._arrays[stored]["shape"][0])

    @np.errstate(over="ignore")  # a schema may allow float64 values beyond float32's range
    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Returns the rows ``start <= i < stop``, C-contiguous. Rows of actions must be within one episode.

        Raises:
            DamageError: the rows cannot be decoded because the shard is damaged.
        """
        with damage_or_bug(self._path, self._sha256):
            return self._read(name, start, stop)

    def _read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        if name == ACTION_STRIDE_ORDER:
            return self._in_stride_order(start, stop)
        if name not in self._entries:
            return np.ascontiguousarray(self._rows(name, start, stop))
        fields = [self._rows(field, start, stop) for field in self._entries[name]]
        if len(fields) == 1 and name != STATE:
            return np.ascontiguousarray(fields[0], dtype=np.float32)
        columns = [field.reshape(stop - start, math.prod(field.shape[1:])) for field in fields]
        return np.concatenate(columns, axis=1, dtype=np.float32, casting="same_kind")

    def _rows(self, field: str, start: int, stop: int) -> NDArray[Any]:
        if field in self._mapped:
            return self._mapped[field][start:stop]
        if field == ACTION_VALUE:
            return self._actions(start, stop)
        if field in self._derived:
            of = self._derived[field][0]
            return rotation_6d(self._schema.field(of), self._rows(of, start, stop))
        return self._stored.read(field, start, stop)

    def _in_stride_order(self, start: int, stop: int) -> NDArray[np.float32]:
        """Returns actions in stride order. They are not adjacent in the shard, so all rows between them are decoded."""
        begin, num_rows = self._episode_at(start)
        rows = begin + in_stride_order(num_rows, self._schema.sample.action_stride)[start - begin : stop - begin]
        if not len(rows):
            return self._actions(start, stop)
        first = int(rows.min())
        return self._actions(first, int(rows.max()) + 1)[rows - first]

    def _episode_at(self, row: int) -> tuple[int, int]:
        """Returns start and number of rows of the episode that contains an anchor row."""
        start, num_rows = self._episodes[np.searchsorted(self._episodes[:, 0], row, side="right") - 1].tolist()
        return start, num_rows

    def _actions(self, start: int, stop: int) -> NDArray[np.float32]:
        """Returns the actions of the rows. Also decodes the later rows that the actions look ahead to."""
        ahead = self._rows(ACTION_ROW, start, stop)
        shift = self._episode_at(start)[0] - start
        end = max(stop, start + shift + int(ahead.max(initial=0)) + 1)
        rows = np.full(end - start, -1, dtype=np.int32)
        rows[: stop - start] = np.where(ahead < 0, -1, ahead + shift)
        fields = {field: self._rows(field, start, end) for field in action_fields(self._schema)}
        return derive_actions(self._schema, fields, rows)[: stop - start]

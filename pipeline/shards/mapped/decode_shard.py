"""Fills a cache entry: decodes a shard's compressed arrays and derives the arrays that the shard does not store.

The shard's SHA-256 is computed at the same time. The entry is used only if the digest is right.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
from vlapipe.pipeline.shards.format.digest import file_sha256, require_digest
from vlapipe.pipeline.shards.format.shard_file import read_into, shard_format_of
from vlapipe.pipeline.shards.mapped.cache_files import Blocks
from vlapipe.pipeline.shards.mapped.layout import BlockColumns, Layout
from vlapipe.schemas.schema import Schema

__all__ = ["place_arrays", "unpack_shard"]

_NUM_THREADS = min(4, os.cpu_count() or 1)
_ROWS_AT_ONCE = 1 << 16  # limits the float64 matrices of derived fields, which take 300 bytes a row


def unpack_shard(
    path: Path,
    sha256: str,
    schema: Schema,
    layout: Layout,
    mapped: dict[str, NDArray[Any]],
    episodes: NDArray[np.int64],
    blocks: Blocks,
) -> None:
    """Fill ``blocks``, and verify the shard's digest.

    Args:
        path: the shard.
        sha256: the shard's digest in the manifest.
        schema: the schema, which describes derived fields and actions.
        layout: the layout of the cache entry.
        mapped: the arrays that are uncompressed in the shard, mapped.
        episodes: start and number of anchor rows of each of the shard's episodes, ``(episodes, 2)``.
        blocks: the entry's blocks, writable, with the shapes of ``layout``.

    Raises:
        DamageError: the shard's bytes have changed since they were written.
        StoppedError: memory, the disk or another limit of the system is exhausted.
    """
    with _verified(path, sha256):
        arrays = mapped | place_arrays(layout, blocks)
        derived = derived_specs(schema)
        stored = {name: arrays[name] for name in layout.places if name not in derived and name != ACTION_VALUE}
        read_into(path, stored, shard_format_of(path.name), _NUM_THREADS)
        for name, (of, _) in derived.items():
            for first in range(0, len(arrays[of]), _ROWS_AT_ONCE):
                rows = slice(first, first + _ROWS_AT_ONCE)
                arrays[name][rows] = rotation_6d(schema.field(of), arrays[of][rows])
        for start, num_rows in episodes.tolist():
            rows = slice(start, start + num_rows)
            fields = {field: arrays[field][rows] for field in action_fields(schema)}
            arrays[ACTION_VALUE][rows] = derive_actions(schema, fields, arrays[ACTION_ROW][rows])
            if ACTION_STRIDE_ORDER in blocks:
                order = in_stride_order(num_rows, schema.sample.action_stride)
                blocks[ACTION_STRIDE_ORDER][rows] = arrays[ACTION_VALUE][rows][order]
        with np.errstate(over="ignore"):  # a schema may allow float64 values beyond float32's range
            for name, place in layout.copies:
                _place(blocks, place)[...] = arrays[name]


@contextlib.contextmanager
def _verified(path: Path, sha256: str) -> Iterator[None]:
    """Compute the file's digest in parallel with the block. A wrong digest replaces an error that the block raised."""
    with ThreadPoolExecutor(1) as hashing:
        digest = hashing.submit(file_sha256, path)
        try:
            yield
        finally:
            require_digest(path, digest.result(), sha256)


def place_arrays(layout: Layout, blocks: Blocks) -> dict[str, NDArray[Any]]:
    """Returns each array of a cache entry by name, in its stored shape. Each array is a NumPy view of its block."""
    return {name: _place(blocks, place) for name, place in layout.places.items()}


def _place(blocks: Blocks, place: BlockColumns) -> NDArray[Any]:
    columns = blocks[place.block][:, place.first : place.stop]
    return columns.reshape(len(columns), *place.shape)

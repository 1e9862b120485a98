"""Fills a cache entry: decodes a shard's compressed arrays and derives the arrays that the shard does not store.

The shard's SHA-256 is computed at the same time. The entry is used only if the digest is right.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
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
    in_stride_order,
)
from vlapipe.pipeline.shards.derive.conversion import Conversion
from vlapipe.pipeline.shards.derive.derived_fields import derived_specs, rotation_6d
from vlapipe.pipeline.shards.derive.episode_sample import EpisodeSample, stored_fields, within_episode
from vlapipe.pipeline.shards.format.digest import file_sha256, require_digest
from vlapipe.pipeline.shards.format.shard_file import read_into, shard_format_of
from vlapipe.pipeline.shards.mapped.cache_files import Blocks
from vlapipe.pipeline.shards.mapped.layout import (
    STATE,
    STATE_IS_MISSING,
    TIME,
    BlockColumns,
    Layout,
    sample_fields,
)
from vlapipe.schemas.schema import Schema

__all__ = ["place_arrays", "sample_sources", "unpack_shard"]

_NUM_THREADS = min(4, os.cpu_count() or 1)
_ROWS_AT_ONCE = 1 << 16  # limits the float64 matrices of derived fields, which take 300 bytes a row


def unpack_shard(
    path: Path,
    sha256: str,
    schema: Schema,
    layout: Layout,
    mapped: dict[str, NDArray[Any]],
    episodes: Mapping[str, NDArray[np.int64]],
    blocks: Blocks,
    stored_kinds: Mapping[str, Mapping[str, Any]],
    *,
    chosen: bool,
    conversions: Mapping[str, Conversion],
) -> None:
    """Fill ``blocks``, and verify the shard's digest.

    Args:
        path: the shard.
        sha256: the shard's digest in the manifest.
        schema: the schema, which describes derived fields and actions.
        layout: the layout of the cache entry.
        mapped: the arrays that are uncompressed in the shard, mapped.
        episodes: for each stream, start and number of rows of each of the shard's episodes, ``(episodes, 2)``.
        blocks: the entry's blocks, writable, with the shapes of ``layout``.
        stored_kinds: the manifest's description of the shard's arrays.
        chosen: whether the sample was chosen when training; see ``lay_out``.
        conversions: how stored fields are converted; none of these fields is in ``mapped``.

    Raises:
        DamageError: the shard's bytes have changed since they were written.
        StoppedError: memory, the disk or another limit of the system is exhausted.
    """
    with _verified(path, sha256):
        arrays = mapped | place_arrays(layout, blocks)
        derived = derived_specs(schema)
        stored = {name: arrays[name] for name in layout.places if name not in derived and name != ACTION_VALUE}
        for name in sample_sources(schema, layout):
            if name not in arrays:  # needed to compute from, and not kept
                kind = stored_kinds[name]
                arrays[name] = stored[name] = np.empty(kind["shape"], kind["dtype"])
        read_into(path, stored, shard_format_of(path.name), _NUM_THREADS)
        for name in stored.keys() & conversions.keys():
            for first in range(0, len(stored[name]), _ROWS_AT_ONCE):
                rows = slice(first, first + _ROWS_AT_ONCE)
                stored[name][rows] = conversions[name].apply(stored[name][rows])
        for name, (of, _) in derived.items():
            if name in arrays:
                for first in range(0, len(arrays[of]), _ROWS_AT_ONCE):
                    rows = slice(first, first + _ROWS_AT_ONCE)
                    arrays[name][rows] = rotation_6d(schema.field(of), arrays[of][rows])
        for index in range(len(episodes[schema.anchor])):
            spans = {stream: (int(each[index, 0]), int(each[index, 1])) for stream, each in episodes.items()}
            _derive_episode(schema, layout, arrays, spans, blocks, chosen=chosen)
        with np.errstate(over="ignore"):  # a schema may allow float64 values beyond float32's range
            for name, place in layout.copies:
                _place(blocks, place)[...] = arrays[name]


def sample_sources(schema: Schema, layout: Layout) -> list[str]:
    """Returns the stored arrays that a sample is computed from."""
    paths = [*action_fields(schema), *(path for fields in sample_fields(schema).values() for path in fields)]
    names = [*stored_fields(schema, tuple(path for path in paths if path != ACTION_VALUE)), ACTION_ROW]
    streams = {schema.anchor, *(name.partition("/")[0] for name in names[:-1])}
    streams |= {name.removeprefix(f"{TIME}/") for name in layout.sample if name.startswith(f"{TIME}/")}
    return [*names, *(f"{stream}/timestamp" for stream in sorted(streams))]


def _derive_episode(
    schema: Schema,
    layout: Layout,
    arrays: dict[str, NDArray[Any]],
    spans: Mapping[str, tuple[int, int]],
    blocks: Blocks,
    *,
    chosen: bool,
) -> None:
    """Compute one episode's rows of the derived blocks. ``spans`` has its start and number of rows by stream."""
    begins = {stream: span[0] for stream, span in spans.items()}
    read = within_episode(schema, begins, lambda name, first, stop: arrays[name][first:stop])
    start, num_rows = spans[schema.anchor]
    rows = slice(start, start + num_rows)
    episode = EpisodeSample(schema, read, {stream: span[1] for stream, span in spans.items()}, chosen=chosen)
    if chosen:
        row_block = blocks[layout.sample.get(ACTION_ROW, ACTION_ROW)]
        row_block[rows, 0] = episode.action_rows()
    actions = episode.actions(0, num_rows)
    arrays[ACTION_VALUE][rows, : actions.shape[1]] = actions  # columns beyond it are padding; a new block is zero
    if ACTION_STRIDE_ORDER in blocks:
        order = in_stride_order(num_rows, schema.sample.action_stride)
        blocks[ACTION_STRIDE_ORDER][rows] = arrays[ACTION_VALUE][rows][order]
    if STATE_IS_MISSING in blocks:
        state = episode.state(0, num_rows)
        blocks[STATE][rows, : state.shape[1]] = state
        blocks[STATE_IS_MISSING][rows, 0] = episode.is_missing(schema.sample.state, "state", 0, num_rows)
    for name in layout.sample:
        if name == TIME or name.startswith(f"{TIME}/"):
            stream = schema.anchor if name == TIME else name.removeprefix(f"{TIME}/")
            begin, count = spans[stream]
            blocks[name][begin : begin + count, 0] = episode.times(stream)


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

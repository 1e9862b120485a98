"""The table of gaps, ``gaps-<digest8>.parquet``: the gaps of all streams except the anchor.

Readers need not open a shard to find the gaps. The table has one row a gap, in the order of the episodes.
``pipeline.shards.derive.gaps.gap_rows`` describes the columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlapipe.pipeline.shards.arrow_numpy import as_numpy
from vlapipe.pipeline.shards.format.digest import damage_or_bug, file_sha256, require_digest
from vlapipe.pipeline.shards.format.parquet import parquet_bytes
from vlapipe.pipeline.shards.manifest.parts import Part

__all__ = ["gaps_table", "read_gaps", "spans_of", "table_bytes"]

_SCHEMA = pa.schema(
    [
        ("episode_index", pa.int64()),
        ("stream", pa.string()),
        ("first", pa.int32()),
        ("until", pa.int32()),
        ("rows_behind", pa.list_(pa.int32())),
    ]
)
_ROW_GROUP = 1 << 12  # in gaps: about 16 MB if ten seconds at 100 Hz follow each gap


def gaps_table(gaps: Iterable[tuple[int, Mapping[str, Any]]]) -> pa.Table:
    """Builds the table from pairs of an episode's index and a gap. A gap is a dict with all other columns as keys."""
    listed = [{"episode_index": episode, **gap} for episode, gap in gaps]
    return pa.table({name: [gap[name] for gap in listed] for name in _SCHEMA.names}, schema=_SCHEMA)


def table_bytes(table: pa.Table) -> bytes:
    """Returns the table as a Parquet file. Delta encoding stores numbers that rise by one or two in a few bits."""
    encoding = dict.fromkeys(["episode_index", "first", "until", "rows_behind.list.element"], "DELTA_BINARY_PACKED")
    return parquet_bytes(table, row_group_size=_ROW_GROUP, use_dictionary=["stream"], column_encoding=encoding)


def read_gaps(folder: Path, parts: Iterable[Part]) -> Iterator[pa.Table]:
    """Yield the gaps of these parts a row group at a time, because all gaps may be too large for memory.

    Episodes are numbered as in the whole dataset.

    Raises:
        DamageError: a file is missing or altered.
    """
    for part in parts:
        if part.gaps is None or not part.gaps["count"]:
            continue
        path, sha256 = folder / part.gaps["file"], part.gaps["sha256"]
        require_digest(path, file_sha256(path), sha256)
        with damage_or_bug(path, sha256), pq.ParquetFile(path) as file:
            for group in range(file.metadata.num_row_groups):
                table = file.read_row_group(group, use_threads=False)
                number = pc.add(table["episode_index"], part.first_episode)
                yield table.set_column(0, table.schema.field(0), number) if part.first_episode else table


def spans_of(table: pa.Table, num_rows: Mapping[str, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the anchor rows whose windows cross each gap.

    ``num_rows`` is the number of rows of a window, by stream. Gaps of other streams are passed over. The result is the
    episode of each gap ``(G,)``, and the interval of anchor rows ``[first, stop)``, ``(G, 2)``.
    """
    table = table.filter(pc.is_in(table["stream"], pa.array([*num_rows], pa.string()))).combine_chunks()
    if not len(table):
        return np.empty(0, dtype=np.int64), np.empty((0, 2), dtype=np.int64)
    wanted = np.array([num_rows[stream] for stream in as_numpy(table["stream"])], dtype=np.int64)
    lists = table["rows_behind"].chunk(0)
    offsets = as_numpy(lists.offsets).astype(np.int64)
    too_few = as_numpy(lists.values)[offsets[0] : offsets[-1]] < np.repeat(wanted, np.diff(offsets))
    missing = np.concatenate([[0], np.cumsum(too_few)])
    first, until = (as_numpy(table[name]).astype(np.int64) for name in ("first", "until"))
    places = offsets - offsets[0]
    stop = until + missing[places[1:]] - missing[places[:-1]]
    return as_numpy(table["episode_index"]), np.stack([first, stop], axis=1)

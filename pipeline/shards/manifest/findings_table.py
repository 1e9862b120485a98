"""The table of findings, ``findings-<digest8>.parquet``: what ingest found in the episodes that it kept, with places.

One row a finding, in the order of the episodes, then what concerns the dataset as a whole. No reader of samples needs
the table. A dataset without findings, or one that an older vlapipe made, has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlapipe.pipeline.shards.format.digest import damage_or_bug, file_sha256, require_digest
from vlapipe.pipeline.shards.format.parquet import parquet_bytes
from vlapipe.pipeline.shards.manifest.parts import Part

__all__ = ["findings_bytes", "findings_of_indices", "findings_table", "read_findings"]

_SCHEMA = pa.schema(
    [
        ("episode_index", pa.int64()),  # null: the dataset as a whole
        ("code", pa.string()),
        ("severity", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("column", pa.string()),
        ("expected", pa.string()),
        ("found", pa.string()),
        ("count", pa.int64()),
    ]
)
_ROW_GROUP = 1 << 16


def findings_table(findings: Iterable[Mapping[str, Any]], index_of: Mapping[str, int]) -> pa.Table:
    """Builds the table from findings as plain data, whose ``episode`` is an id; ``index_of`` has the number of each."""
    rows = [{**finding, "episode_index": index_of.get(finding.get("episode") or "")} for finding in findings]
    rows.sort(key=lambda row: (row["episode_index"] is None, row["episode_index"] or 0))
    return findings_of_indices(rows)


def findings_of_indices(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Builds the table from findings in their order, as plain data with ``episode_index``."""
    rows = list(rows)
    return pa.table({name: [row.get(name) for row in rows] for name in _SCHEMA.names}, schema=_SCHEMA)


def findings_bytes(table: pa.Table) -> bytes:
    """Returns the table as a Parquet file."""
    return parquet_bytes(table, row_group_size=_ROW_GROUP, use_dictionary=True)


def read_findings(
    folder: Path, parts: Iterable[Part], of_dataset: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Reads the findings of parts as plain data, and then those of a table about the dataset as a whole.

    Episodes are numbered as in the whole dataset.

    Raises:
        DamageError: a file is missing or altered.
    """
    found: list[dict[str, Any]] = []
    for named, first in [*((part.findings, part.first_episode) for part in parts), (of_dataset, 0)]:
        if named is None:
            continue
        path = folder / named["file"]
        require_digest(path, file_sha256(path), named["sha256"])
        with damage_or_bug(path, named["sha256"]):
            rows: list[dict[str, Any]] = pq.read_table(path, use_threads=False, partitioning=None).to_pylist()
        for row in rows:
            if row["episode_index"] is not None:
                row["episode_index"] += first
        found += rows
    return found

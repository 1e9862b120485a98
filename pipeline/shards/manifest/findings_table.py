"""The table of findings, ``findings-<digest8>.parquet``: what ingest found in the episodes that it kept, with places.

One row a finding, in the order of the episodes, then what concerns the dataset as a whole. No reader of samples needs
the table. A dataset without findings, or one that an older vlapipe made, has none.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlapipe.pipeline.shards.format.digest import damage_or_bug, file_sha256, require_digest

__all__ = ["findings_bytes", "findings_table", "read_findings"]

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
    return pa.table({name: [row.get(name) for row in rows] for name in _SCHEMA.names}, schema=_SCHEMA)


def findings_bytes(table: pa.Table) -> bytes:
    """Returns the table as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=_ROW_GROUP, use_dictionary=True)
    return buffer.getvalue()


def read_findings(path: Path, sha256: str) -> list[dict[str, Any]]:
    """Reads the findings as plain data.

    Raises:
        DamageError: the file is missing or altered.
    """
    require_digest(path, file_sha256(path), sha256)
    with damage_or_bug(path, sha256):
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows

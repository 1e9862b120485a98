"""The tables that only a larger dataset has after its first ingest: those of its parts, and sums for later changes.

A dataset of one shard has neither: its next change reads that shard. A dataset of one part has sums alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlapipe.pipeline.build.commit import totals
from vlapipe.pipeline.build.record import Record
from vlapipe.pipeline.build.statistics import FieldStatistics
from vlapipe.pipeline.change.statistics import key_of, summaries
from vlapipe.pipeline.change.sums import PartMoments, PartSums, Sums
from vlapipe.pipeline.check.evidence import EVIDENCE
from vlapipe.pipeline.check.flicker import FlickerSums
from vlapipe.pipeline.shards.manifest.findings_table import findings_bytes
from vlapipe.pipeline.shards.manifest.gaps_table import table_bytes
from vlapipe.pipeline.shards.manifest.manifest import episodes_bytes, write_named
from vlapipe.pipeline.shards.manifest.parts import Part, runs, sum_of_totals
from vlapipe.pipeline.shards.manifest.shards_table import shards_bytes
from vlapipe.schemas.schema import Schema

__all__ = ["write_tables_of_parts"]


def write_tables_of_parts(
    folder: Path,
    manifest: Mapping[str, Any],
    episodes: pa.Table,
    gaps: pa.Table,
    findings: pa.Table,
    records: list[Record],
    histograms: Mapping[str, FieldStatistics],
    schema: Schema,
) -> dict[str, Any]:
    """Write the tables into the dataset's folder. Returns the entries that they add to the manifest.

    Args:
        folder: the dataset's folder.
        manifest: the manifest's entries of the whole dataset, with ``shards``.
        episodes: the episodes table of the whole dataset.
        gaps: the table of gaps.
        findings: the table of findings.
        records: the records of the shards.
        histograms: the statistics of the whole dataset.
        schema: the dataset's schema.
    """
    shards = manifest["shards"]
    if len(shards) < 2:
        return {}
    written = [record for record in records if record["shard"]]
    pieces = runs([shard["episodes"] for shard in shards])
    sums = Sums()
    sums.count(histograms)
    parts: list[Part] = []
    first = 0
    for piece in pieces:
        own = written[piece.start : piece.stop]
        rows = [row for record in own for row in record["episodes"]]
        table = _from_zero(episodes.slice(first, len(rows)), {"episode_index": first, "shard": piece.start})
        moments = PartMoments(still={row["id"]: row[EVIDENCE]["still"] for row in rows if row[EVIDENCE]["still"]})
        for shard, record in zip(shards[piece.start : piece.stop], own, strict=True):
            if record["statistics"]:
                found = {path: FieldStatistics.from_dict(each) for path, each in record["statistics"].items()}
                moments.shards[shard["file"]] = {path: each.moments for path, each in found.items()}
        files = [shard["file"] for shard in shards[piece.start : piece.stop]]
        flicker = FlickerSums.of_table(table["statistics"].combine_chunks(), moments.still.values(), schema)
        of_shards = shards[piece.start : piece.stop]
        of_gaps, of_findings = (_within(each, first, len(rows)) for each in (gaps, findings))
        part = Part(
            episodes=write_named(folder, "episodes", episodes_bytes(table), len(table)),
            num_shards=len(of_shards),
            shards=write_named(folder, "shards", shards_bytes(of_shards), len(of_shards)) if len(pieces) > 1 else None,
            gaps=write_named(folder, "gaps", table_bytes(of_gaps), len(of_gaps)),
            findings=_write_findings(folder, of_findings) if len(pieces) > 1 else None,
            moments=write_named(folder, "moments", *moments.to_bytes()),
            totals=sum_of_totals([totals(manifest["streams"], rows, of_shards, Counter())]),
        )
        sums.parts[key_of(part)] = PartSums(moments=moments.merged(files), flicker=flicker)
        parts.append(part)
        first += len(rows)
    entries: dict[str, Any] = {"sums": write_named(folder, "statistics", *sums.to_bytes())}
    if len(parts) == 1:
        return {**entries, "moments": parts[0].moments}
    of_dataset = findings.filter(pc.is_null(findings["episode_index"]))
    entries |= {"parts": [part.to_json() for part in parts], "findings": _write_findings(folder, of_dataset)}
    whole = {**sum_of_totals([part.totals for part in parts]), "findings": manifest["totals"]["findings"]}
    statistics = summaries(sums, [key_of(part) for part in parts], schema)
    return {**entries, "totals": whole, "statistics": statistics}


def _within(table: pa.Table, first: int, count: int) -> pa.Table:
    """Return the rows of these episodes, counted from the first of them."""
    index = table["episode_index"]
    here = pc.and_(pc.greater_equal(index, first), pc.less(index, first + count))
    return _from_zero(table.filter(pc.fill_null(here, fill_value=False)), {"episode_index": first})


def _from_zero(table: pa.Table, firsts: Mapping[str, int]) -> pa.Table:
    for name, first in firsts.items():
        place = table.column_names.index(name)
        table = table.set_column(place, table.schema.field(name), pc.subtract(table[name], first))
    return table


def _write_findings(folder: Path, table: pa.Table) -> dict[str, Any] | None:
    return write_named(folder, "findings", findings_bytes(table), len(table)) if len(table) else None

"""Writes the tables and the manifest of a dataset's first ingest.

A larger dataset also has tables of its parts, and sums for later changes. A dataset of one shard has neither: its next
change reads that shard. A dataset of one part has sums alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlapipe.pipeline.build.commit import shard_entry, summaries_of, totals
from vlapipe.pipeline.build.record import GAPS, Record
from vlapipe.pipeline.build.records import Records, Some
from vlapipe.pipeline.build.statistics import FieldStatistics, Moments
from vlapipe.pipeline.build.tables import TableKinds, episodes_table
from vlapipe.pipeline.change.statistics import key_of, summaries
from vlapipe.pipeline.change.sums import PartMoments, PartSums, Sums
from vlapipe.pipeline.check.episode_rows import EVIDENCE
from vlapipe.pipeline.check.flicker import FlickerSums
from vlapipe.pipeline.shards.manifest.findings_table import findings_bytes, findings_table
from vlapipe.pipeline.shards.manifest.gaps_table import gaps_table, table_bytes
from vlapipe.pipeline.shards.manifest.manifest import episodes_bytes, write_generation, write_named
from vlapipe.pipeline.shards.manifest.parts import Part, runs, sum_of_totals
from vlapipe.pipeline.shards.manifest.shards_table import shards_bytes
from vlapipe.schemas.schema import Schema

__all__ = ["write_first"]


def write_first(
    folder: Path,
    manifest: Mapping[str, Any],
    records: Records,
    rejects: list[Record],
    findings: Sequence[Record],
    schema: Schema,
) -> None:
    """Write the tables into the dataset's folder, and the manifest after them.

    Args:
        folder: the dataset's folder, which already has the shards.
        manifest: the entries that ``manifest_of`` returns.
        records: the records of the shards. Only those of one part are in memory at the same time.
        rejects: the episodes that were set aside.
        findings: the findings of the episodes that were kept, and about the dataset as a whole.
        schema: the dataset's schema.
    """
    written = records.written
    pieces = runs(written.counts())
    statistics = records.statistics()
    counts = Counter(finding["code"] for finding in findings)
    if len(pieces) > 1:
        entries = _write_parts(folder, manifest, written, pieces, findings, statistics, schema)
        entries["totals"] |= {"findings": dict(sorted(counts.items()))}
        write_generation(folder, {**manifest, **entries}, None, rejects)
        return
    shards = [shard_entry(record) for record in written]
    table = episodes_table(_numbered(written))
    of_dataset: dict[str, Any] = {
        "shards": shards,
        "totals": totals(manifest["streams"], written.rows, shards, counts),
        "statistics": summaries_of(statistics, written.rows, schema),
    }
    if len(shards) > 1:
        sums = Sums()
        sums.count(statistics)
        part = _write_part(folder, manifest, written, shards, table, schema, sums)
        of_dataset |= {"moments": part.moments, "sums": write_named(folder, "statistics", *sums.to_bytes())}
    gaps, found = _gaps_of(written), _findings_of(written, findings)
    write_generation(folder, {**manifest, **of_dataset}, table, rejects, gaps, found)


def _write_parts(
    folder: Path,
    manifest: Mapping[str, Any],
    written: Some,
    pieces: Sequence[range],
    findings: Sequence[Record],
    statistics: Mapping[str, FieldStatistics],
    schema: Schema,
) -> dict[str, Any]:
    """Write the tables of several parts. Returns the entries that they add to the manifest."""
    kinds = TableKinds.of(_numbered(written))
    found = _findings_of(written, findings)
    sums = Sums()
    sums.count(statistics)
    parts: list[Part] = []
    first = 0
    for piece in pieces:
        own = written[piece.start : piece.stop]
        table = episodes_table(_numbered(own), kinds)
        shards = [shard_entry(record) for record in own]
        part = _write_part(folder, manifest, own, shards, table, schema, sums)
        part = replace(
            part,
            shards=write_named(folder, "shards", shards_bytes(shards), len(shards)),
            findings=_write_findings(folder, _within(found, first, len(table))),
        )
        parts.append(part)
        first += len(table)
    return {
        "sums": write_named(folder, "statistics", *sums.to_bytes()),
        "parts": [part.to_json() for part in parts],
        "findings": _write_findings(folder, found.filter(pc.is_null(found["episode_index"]))),
        "totals": sum_of_totals([part.totals for part in parts]),
        "statistics": summaries(sums, [key_of(part) for part in parts], schema),
    }


def _write_part(
    folder: Path,
    manifest: Mapping[str, Any],
    own: Some,
    shards: list[dict[str, Any]],
    table: pa.Table,
    schema: Schema,
    sums: Sums,
) -> Part:
    """Write the tables of episodes, gaps and moments of a part, and add it to the sums. ``shards`` are its entries."""
    moments, gaps = PartMoments(), _gaps_of(own)
    for shard, record in zip(shards, own, strict=True):
        if record["statistics"]:
            moments.shards[shard["file"]] = {
                path: Moments.from_json(each) for path, each in record["statistics"].items()
            }
        moments.still |= {row["id"]: still for row in record["episodes"] if (still := row[EVIDENCE]["still"])}
    part = Part(
        episodes=write_named(folder, "episodes", episodes_bytes(table), len(table)),
        num_shards=len(shards),
        gaps=write_named(folder, "gaps", table_bytes(gaps), len(gaps)),
        moments=write_named(folder, "moments", *moments.to_bytes()),
        totals=sum_of_totals([totals(manifest["streams"], own.rows, shards, Counter())]),
    )
    flicker = FlickerSums.of_table(table["statistics"].combine_chunks(), moments.still.values(), schema)
    merged = moments.merged(shard["file"] for shard in shards)
    sums.parts[key_of(part)] = PartSums(moments=merged, flicker=flicker)
    return part


def _numbered(own: Some) -> Iterator[Record]:
    """Yield the rows of episodes with the number of their shard in the part."""
    for number, record in enumerate(own):
        yield from ({"shard": number, **row} for row in record["episodes"])


def _gaps_of(own: Some) -> pa.Table:
    return gaps_table((i, gap) for i, row in enumerate(own.rows) for gap in row[GAPS])


def _findings_of(written: Some, findings: Sequence[Record]) -> pa.Table:
    """Return the table of findings with the numbers of the episodes in the whole dataset."""
    wanted = {finding.get("episode") for finding in findings}
    number = {row["id"]: i for i, row in enumerate(written.rows if findings else ()) if row["id"] in wanted}
    return findings_table(findings, number)


def _within(table: pa.Table, first: int, count: int) -> pa.Table:
    """Return the rows of these episodes, counted from the first of them."""
    index = table["episode_index"]
    here = pc.and_(pc.greater_equal(index, first), pc.less(index, first + count))
    table = table.filter(pc.fill_null(here, fill_value=False))
    return table.set_column(0, table.schema.field(0), pc.subtract(table["episode_index"], first))


def _write_findings(folder: Path, table: pa.Table) -> dict[str, Any] | None:
    return write_named(folder, "findings", findings_bytes(table), len(table)) if len(table) else None

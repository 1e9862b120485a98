"""What a generation holds, as tables that a change edits, and the next generation that is written from them.

Episodes go by their id here, and shards by their file; numbers are given when the generation is written. No shard is
touched: an episode that leaves the dataset stays in its shard.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import vlapipe
from vlapipe.pipeline.build.commit import episodes_table, storage_and_losses, totals
from vlapipe.pipeline.build.record import GAPS, INSTRUCTIONS, Record
from vlapipe.pipeline.build.statistics import FieldStatistics
from vlapipe.pipeline.change.statistics import merged_statistics
from vlapipe.pipeline.change.tables import joined, with_metadata
from vlapipe.pipeline.check.evidence import EVIDENCE
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.manifest.findings_table import findings_bytes, findings_table, read_findings
from vlapipe.pipeline.shards.manifest.gaps_table import gaps_table, read_gaps, table_bytes
from vlapipe.pipeline.shards.manifest.manifest import REJECTS, SHARD_FOLDER, Manifest, episodes_bytes, write_named
from vlapipe.pipeline.shards.manifest.metadata_columns import PREFIX
from vlapipe.schemas.errors import UsageError

__all__ = ["Contents", "dropped_ids", "read_edits"]

_FILE = "shard_file"  # in place of the shard's number, which changes
_TEXTS = ("task", "instruction", "split")
_GAPS = "gaps_beside_anchor"  # of dropped episodes, whose gaps are in no other table
_FINDINGS = "findings"  # of dropped episodes too


class Contents:
    """The episodes, shards, rejects and edits of a generation, to be changed.

    ``edits`` holds by episode what edits have set: ``task``, ``instruction``, ``split`` and ``metadata/<key>``. An
    episode that is read again keeps them.
    """

    def __init__(self, base: Dataset) -> None:
        self.base = base
        manifest = base.manifest
        files = pa.array([shard["file"] for shard in manifest.shards], pa.string())
        self.table: pa.Table = _by_file(base.episodes, files)
        self.gaps = _gaps_by_id(base) if manifest.gaps is not None else None
        self.dropped: pa.Table | None = _read_dropped(base)
        self.shards: dict[str, dict[str, Any]] = {shard["file"]: shard for shard in manifest.shards}
        self.rejects: list[Record] = manifest.read_rejects(base.path)
        self.edits: dict[str, dict[str, Any]] = read_edits(base)
        self._statistics: dict[str, Record] = {}  # of new shards, by file
        self._still: dict[str, Any] = {}
        self._findings: list[Record] = _findings_by_id(base)
        # An older vlapipe counted findings and kept no places.
        self._without_place = Counter(manifest.totals["findings"]) - _by_code(self._findings)
        self._stored: list[Record] = []
        self._num_planned = 0
        self._rows: dict[str, Record] = {}  # labels, for ``differs``

    @property
    def ids(self) -> set[str]:
        """The ids of all episodes."""
        return set(self.table["id"].to_pylist())

    @property
    def dropped_ids(self) -> set[str]:
        """The ids of the episodes that edits left out."""
        return set(self.dropped["id"].to_pylist()) if self.dropped is not None else set()

    def remove(self, ids: Collection[str]) -> None:
        """Forget episodes, and rejects of these names. Their shards stay as they are."""
        self.table = _without(self.table, ids)
        gone = set(ids)
        if self.gaps is not None:
            self.gaps = _without(self.gaps, ids)
        self._findings = [each for each in self._findings if each["episode"] not in gone]
        self.rejects = [reject for reject in self.rejects if reject["episode"] not in gone]

    def add(self, records: Iterable[Record], findings: Iterable[Record], num_planned: int) -> None:
        """Add the shards and rejects of an ingest. An edit that was made of an episode is made of the new one too.

        Findings about the dataset as a whole take the place of those of the ingest before, unless nothing was read.
        """
        rows: list[Record] = []
        for record in records:
            self.rejects += record["rejects"]
            if not record["shard"]:
                continue
            file = f"{SHARD_FOLDER}/{record['shard']['file']}"
            shard = record["shard"]
            entry = {"file": file, "bytes": shard["num_bytes"], "sha256": shard["sha256"]}
            self.shards[file] = {**entry, "episodes": len(record["episodes"]), "arrays": shard["arrays"]}
            self._statistics[file] = record["statistics"]
            rows += [{_FILE: file, **row} for row in record["episodes"]]
        if num_planned:
            self._findings = [each for each in self._findings if each["episode"] is not None]
        new = {row["id"] for row in rows}
        for finding in findings:
            self._findings.append({**finding, "episode": finding["episode"] if finding["episode"] in new else None})
        self._num_planned += num_planned
        if not rows:
            return
        self._stored += rows
        self._still |= {row["id"]: row[EVIDENCE]["still"] for row in rows}
        self.table = joined(self.table, episodes_table(rows).drop_columns(["episode_index"]), self.base)
        if self.gaps is not None:
            ours = gaps_table((i, gap) for i, row in enumerate(rows) for gap in row[GAPS])
            names = pa.array([row["id"] for row in rows], pa.string())
            self.gaps = pa.concat_tables([self.gaps, _with_ids(ours, names)])
        dropped = self.dropped_ids & new
        self._make_edits(new & self.edits.keys())
        if dropped:
            assert self.dropped is not None
            self.dropped = _without(self.dropped, dropped)
            self.drop(dropped)

    def drop(self, ids: Collection[str]) -> None:
        """Leave episodes out, so that ``restore`` can bring them back."""
        leaving = self.table.filter(pc.is_in(self.table["id"], pa.array(sorted(ids), pa.string())))
        if self.gaps is not None:
            leaving = leaving.append_column(_GAPS, pa.array(self._gaps_of(leaving["id"].to_pylist())))
        lists: dict[str, list[Record]] = {name: [] for name in leaving["id"].to_pylist()}
        for finding in self._findings:
            if finding["episode"] in lists:
                lists[finding["episode"]].append(finding)
        leaving = leaving.append_column(_FINDINGS, pa.array([json.dumps(each) for each in lists.values()], pa.string()))
        self._findings = [each for each in self._findings if each["episode"] not in lists]
        self.table = _without(self.table, ids)
        there = [self.dropped] if self.dropped is not None else []
        self.dropped = pa.concat_tables([*there, leaving], promote_options="permissive")

    def restore(self, ids: Collection[str]) -> None:
        """Bring dropped episodes back."""
        assert self.dropped is not None
        back = self.dropped.filter(pc.is_in(self.dropped["id"], pa.array(sorted(ids), pa.string())))
        self.dropped = _without(self.dropped, ids)
        if self.gaps is not None and _GAPS in back.column_names:
            lists = back[_GAPS].to_pylist()
            ours = gaps_table((i, gap) for i, each in enumerate(lists) for gap in json.loads(each or "[]"))
            self.gaps = pa.concat_tables([self.gaps, _with_ids(ours, back["id"].combine_chunks())])
        if _FINDINGS in back.column_names:
            self._findings += [each for listed in back[_FINDINGS].to_pylist() for each in json.loads(listed or "[]")]
        back = back.drop_columns([name for name in (_GAPS, _FINDINGS) if name in back.column_names])
        self.table = joined(self.table, back, self.base)
        self._make_edits(set(ids) & self.edits.keys())

    def differs(self, name: str, values: Mapping[str, Any]) -> bool:
        """Return whether an edit to these values changes the episode."""
        if name not in self._rows:
            columns = [column for column in self.table.column_names if column in _TEXTS or column.startswith(PREFIX)]
            self._rows = {row["id"]: row for row in self.table.select(["id", *columns]).to_pylist()}
        return any(self._rows[name].get(column) != value for column, value in values.items())

    def edit(self, ids: Collection[str], values: Mapping[str, Any]) -> None:
        """Set columns of episodes: ``task``, ``instruction``, ``split`` or ``metadata/<key>``."""
        for name in ids:
            self.edits[name] = {**self.edits.get(name, {}), **values}
        self._make_edits(ids)

    def _make_edits(self, ids: Collection[str]) -> None:
        columns = {column for name in ids for column in self.edits[name]}
        names = self.table["id"].to_pylist()
        for column in sorted(columns):
            new = {name: self.edits[name][column] for name in ids if column in self.edits[name]}
            if column.startswith(PREFIX):
                self.table = with_metadata(self.table, column, new)
                continue
            texts = [new.get(name, text) for name, text in zip(names, self.table[column].to_pylist(), strict=True)]
            self.table = self.table.set_column(
                self.table.column_names.index(column), self.table.schema.field(column), pa.array(texts, pa.string())
            )
            if column == "instruction" and INSTRUCTIONS in self.table.column_names:
                lists = self.table[INSTRUCTIONS].to_pylist()
                each = [[new[name]] if name in new else those for name, those in zip(names, lists, strict=True)]
                place = self.table.column_names.index(INSTRUCTIONS)
                values = pa.array(each, pa.list_(pa.string()))
                self.table = self.table.set_column(place, INSTRUCTIONS, values)

    def _gaps_of(self, ids: list[str]) -> list[str]:
        assert self.gaps is not None
        found: dict[str, list[Record]] = {name: [] for name in ids}
        ours = self.gaps.filter(pc.is_in(self.gaps["id"], pa.array(ids, pa.string())))
        for gap in ours.to_pylist():
            found[gap.pop("id")].append(gap)
        return [json.dumps(found[name]) for name in ids]

    def write(self, folder: Path, scratch: Path, cache: Path) -> Manifest:
        """Write the tables of the next generation into the dataset, and return its manifest, which is not written.

        ``cache`` is a folder for unpacked shards, if the statistics of episodes that come or go must be computed.
        """
        if not len(self.table):
            raise UsageError(f"{folder}: no episode would be left", "remove the folder if that is what you want")
        base = self.base.manifest
        stored = self._num_stored()
        dropped_files = set(self.dropped[_FILE].to_pylist()) if self.dropped is not None else set()
        counts = Counter(self.table[_FILE].to_pylist())
        files = [file for file in self.shards if counts[file] or file in dropped_files]
        table = self._ordered(files)
        shards = [self._shard(file, counts[file], stored[file]) for file in files]
        named = self._write_tables(folder, scratch, table)
        manifest = replace(
            base,
            vlapipe_version=vlapipe.__version__,
            streams=self._streams(),
            shards=shards,
            totals=totals(
                base.streams,
                table.select(["sources", "num_frames", "seconds"]).to_pylist(),
                shards,
                self._without_place + _by_code(self._findings),
            ),
            made_with={
                **base.made_with,
                "num_planned_shards": base.made_with.get("num_planned_shards", len(base.shards)) + self._num_planned,
            },
            generation=(base.generation or 1) + 1,
            **named,
        )
        new = {file: _from(each) for file, each in self._statistics.items() if counts[file] == stored[file]}
        sums, statistics = merged_statistics(self.base, manifest, cache, new, self._still)
        data, count = sums.to_bytes()
        entry = write_named(folder, "statistics", data, count, scratch=scratch)
        return replace(manifest, statistics=statistics, sums=entry)

    def _num_stored(self) -> dict[str, int]:
        """Return how many episodes each shard's file holds, whether they are in the dataset or not."""
        return {file: shard.get("stored", shard["episodes"]) for file, shard in self.shards.items()}

    def _ordered(self, files: list[str]) -> pa.Table:
        """Return the episodes table: in the order of the shards, and within each in the order of their rows."""
        number = pc.index_in(self.table[_FILE], value_set=pa.array(files, pa.string())).cast(pa.int64())
        table = self.table.set_column(self.table.column_names.index(_FILE), "shard", number)
        anchor = f"{self.base.recorded.anchor}/start"
        table = table.take(pc.sort_indices(table, sort_keys=[("shard", "ascending"), (anchor, "ascending")]))
        return table.add_column(0, "episode_index", pa.array(range(len(table)), pa.int64()))

    def _shard(self, file: str, count: int, stored: int) -> dict[str, Any]:
        entry = {key: value for key, value in self.shards[file].items() if key not in ("stored", "kept")}
        entry["episodes"] = count
        if count == stored:
            return entry
        starts = self.table.filter(pc.equal(self.table[_FILE], file))[f"{self.base.recorded.anchor}/start"].to_pylist()
        digest = hashlib.sha256(json.dumps(sorted(starts)).encode()).hexdigest()[:8]
        return {**entry, "stored": stored, "kept": digest}

    def _write_tables(self, folder: Path, scratch: Path, table: pa.Table) -> dict[str, Any]:
        def write(name: str, data: bytes, count: int, suffix: str = "parquet") -> dict[str, Any]:
            return write_named(folder, name, data, count, suffix, scratch)

        named: dict[str, Any] = {"episodes": write("episodes", episodes_bytes(table), len(table))}
        if self.gaps is not None:
            gaps = _numbered(self.gaps, table["id"].combine_chunks())
            named["gaps"] = write("gaps", table_bytes(gaps), len(gaps))
        named["findings"] = None
        if self._findings:
            found = findings_table(self._findings, {name: i for i, name in enumerate(table["id"].to_pylist())})
            named["findings"] = write("findings", findings_bytes(found), len(found))
        lines = "".join(json.dumps(reject) + "\n" for reject in self.rejects).encode()
        if hashlib.sha256(lines).hexdigest() == self.base.manifest.rejects["sha256"]:
            named["rejects"] = self.base.manifest.rejects
        else:
            named["rejects"] = write(REJECTS.partition(".")[0], lines, len(self.rejects), "jsonl")
        named["dropped"] = named["edits"] = None
        if self.dropped is not None and len(self.dropped):
            named["dropped"] = write("dropped", episodes_bytes(self.dropped), len(self.dropped))
        if self.edits:
            data = (json.dumps(self.edits, sort_keys=True, indent=0) + "\n").encode()
            named["edits"] = write("edits", data, len(self.edits), "json")
        return named

    def _streams(self) -> dict[str, Any]:
        """Return the streams as before; cameras may have images of another kind now, or have lost more."""
        streams = {name: dict(stream) for name, stream in self.base.manifest.streams.items()}
        kinds, losses = storage_and_losses(self._stored)
        for camera, kind in kinds.items():
            before = self.base.manifest.image_storage(camera)
            streams[camera]["storage"] = _both(before, kind)
        for camera, loss in losses.items():
            streams[camera]["psnr_db"] = min(loss, streams[camera].get("psnr_db", loss))
        return streams


def read_edits(dataset: Dataset) -> dict[str, dict[str, Any]]:
    """Return what edits have set, by episode."""
    named = dataset.manifest.edits
    if named is None:
        return {}
    edits: dict[str, dict[str, Any]] = json.loads((dataset.path / named["file"]).read_bytes())
    return edits


def dropped_ids(dataset: Dataset) -> set[str]:
    """Return the ids of the episodes that edits have left out."""
    dropped = _read_dropped(dataset)
    return set() if dropped is None else set(dropped["id"].to_pylist())


def _read_dropped(dataset: Dataset) -> pa.Table | None:
    named = dataset.manifest.dropped
    if named is None:
        return None
    return pq.read_table(dataset.path / named["file"], use_threads=False, partitioning=None)


def _from(statistics: Record) -> dict[str, FieldStatistics]:
    return {path: FieldStatistics.from_dict(values) for path, values in statistics.items()}


def _by_file(table: pa.Table, files: pa.Array) -> pa.Table:
    place = table.column_names.index("shard")
    table = table.set_column(place, _FILE, files.take(table["shard"].combine_chunks()))
    return table.drop_columns(["episode_index"])


def _gaps_by_id(dataset: Dataset) -> pa.Table:
    named = dataset.manifest.gaps
    assert named is not None
    parts = list(read_gaps(dataset.path / named["file"], named["sha256"]))
    table = pa.concat_tables(parts) if parts else gaps_table([])
    return _with_ids(table, dataset.episode_column("id").combine_chunks())


def _findings_by_id(dataset: Dataset) -> list[Record]:
    """Return the findings as ingest reports them: ``episode`` is an id, or ``None`` for the dataset as a whole."""
    named = dataset.manifest.findings
    rows = [] if named is None else read_findings(dataset.path / named["file"], named["sha256"])
    ids = dataset.episode_column("id").to_pylist() if rows else []
    for row in rows:
        index = row.pop("episode_index")
        row["episode"] = None if index is None else ids[index]
    return rows


def _by_code(findings: Iterable[Record]) -> Counter[str]:
    return Counter(finding["code"] for finding in findings)


def _with_ids(gaps: pa.Table, ids: pa.Array) -> pa.Table:
    names = ids.take(gaps["episode_index"].combine_chunks()).cast(pa.string())
    return gaps.set_column(0, "id", names)


def _numbered(gaps: pa.Table, ids: pa.Array) -> pa.Table:
    """Return the gaps of these episodes, in their order, with the episodes' numbers."""
    gaps = gaps.filter(pc.is_in(gaps["id"], value_set=ids))
    number = pc.index_in(gaps["id"], value_set=ids).cast(pa.int64())
    table = gaps.set_column(0, "episode_index", number)
    order = pc.sort_indices(
        table.append_column("place", pa.array(range(len(table)), pa.int64())),
        sort_keys=[("episode_index", "ascending"), ("place", "ascending")],
    )
    return table.take(order).cast(gaps_table([]).schema)


def _without(table: pa.Table, ids: Collection[str]) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["id"], pa.array(sorted(ids), pa.string()))))


def _both(one: str, other: str) -> str:
    if one == other:
        return one
    return "png" if {one, other} == {"jpeg", "png"} else "mixed"

"""What a generation holds, as tables that a change edits, and the next generation that is written from them.

Episodes go by their id here, and shards by their file; numbers are given when the generation is written. No shard is
touched: an episode that leaves the dataset stays in its shard.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import vlapipe
from vlapipe.pipeline.build.commit import storage_and_losses, totals
from vlapipe.pipeline.build.record import GAPS, INSTRUCTIONS, STORED, Record, record_file
from vlapipe.pipeline.build.records import Records
from vlapipe.pipeline.build.statistics import FieldStatistics
from vlapipe.pipeline.build.tables import episodes_table
from vlapipe.pipeline.change.joined_shard import Held
from vlapipe.pipeline.change.statistics import Changed, Taken, carried_statistics, merged_statistics
from vlapipe.pipeline.change.tables import joined, with_metadata
from vlapipe.pipeline.check.episode_rows import EVIDENCE
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.format.digest import damage_or_bug
from vlapipe.pipeline.shards.manifest.findings_table import (
    findings_bytes,
    findings_of_indices,
    findings_table,
    read_findings,
)
from vlapipe.pipeline.shards.manifest.gaps_table import gaps_table, read_gaps, table_bytes
from vlapipe.pipeline.shards.manifest.manifest import REJECTS, SHARD_FOLDER, Manifest, episodes_bytes, write_named
from vlapipe.pipeline.shards.manifest.metadata_columns import PREFIX
from vlapipe.pipeline.shards.manifest.parts import Part, is_full, runs, sum_of_totals
from vlapipe.pipeline.shards.manifest.shards_table import ShardTables, shards_bytes
from vlapipe.schemas.errors import UsageError

__all__ = ["Contents", "Joined", "dropped_ids", "read_edits"]

_FILE = "shard_file"  # in place of the shard's number, which changes
_TEXTS = ("task", "instruction", "split")
_GAPS = "gaps_beside_anchor"  # of dropped episodes, whose gaps are in no other table
_FINDINGS = "findings"  # of dropped episodes too


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A shard that takes the place of others.

    ``entry`` is its entry in the manifest. ``starts`` has by the file of such a shard, and by the episodes that it held
    and the new one holds, the first row in the new one by stream.
    """

    entry: Mapping[str, Any]
    starts: Mapping[str, Mapping[str, Mapping[str, int]]]


class Contents:
    """The episodes, shards, rejects and edits of a generation, to be changed.

    Of a large dataset only those parts are read, and later written, that hold an episode which changes; ``table``,
    ``gaps``, ``shards`` and findings are those of the parts that were read. New shards go to the last part, unless it
    is full. ``edits`` holds by episode what edits have set: ``task``, ``instruction``, ``split`` and
    ``metadata/<key>``. An episode that is read again keeps them.
    """

    def __init__(self, base: Dataset) -> None:
        self.base = base
        manifest = base.manifest
        self._parts = manifest.all_parts
        self._loaded: dict[int, pa.Table] = {}  # by the part's place, as it was
        self._part_of: dict[str, int] = {}  # of the shards of these parts
        self.table: pa.Table = _empty(base)
        has_gaps = all(part.gaps is not None for part in self._parts)
        self.gaps = _with_ids(gaps_table([]), pa.array([], pa.string())) if has_gaps else None
        self.dropped: pa.Table | None = _read_dropped(base)
        self.shards: dict[str, dict[str, Any]] = {}
        self.rejects: list[Record] = manifest.read_rejects(base.path)
        self.edits: dict[str, dict[str, Any]] = read_edits(base)
        self._statistics: dict[str, Path] = {}  # the records of new shards, by the shard's file
        self._still: dict[str, Any] = {}
        self._findings: list[Record] = []
        of_dataset = read_findings(
            base.path, self._parts if manifest.parts is None else (), manifest.findings_of_dataset
        )
        self._of_dataset: list[Record] = [_of_no_episode(row) for row in of_dataset if row["episode_index"] is None]
        # Those that are counted and not read. An older vlapipe counted findings and kept no places.
        self._other_findings = Counter(manifest.totals["findings"]) - _by_code(self._of_dataset)
        self._stored: list[Record] = []
        self._taken = Taken()
        self._streams_of_others: list[dict[str, dict[str, Any]]] = []
        self._num_planned = 0
        self._joined: dict[str, list[str]] = {}  # the shards whose place a new one takes, by its file
        self._rows: dict[str, Record] = {}  # labels, for ``differs``

    def present(self, ids: Iterable[str]) -> set[str]:
        """Return those of these episodes that are in the dataset. Their parts are read."""
        names = pa.array(sorted(set(ids)), pa.string())
        there = pc.indices_nonzero(pc.is_in(self.base.episode_column("id"), value_set=names)).to_numpy()
        first = [part.first_episode for part in self._parts]
        self._load(np.unique(np.searchsorted(first, there, side="right") - 1).tolist())
        return set(names.to_pylist()) & set(self.table["id"].to_pylist())

    @property
    def dropped_ids(self) -> set[str]:
        """The ids of the episodes that edits left out."""
        return set(self.dropped["id"].to_pylist()) if self.dropped is not None else set()

    def _load(self, places: Iterable[int]) -> None:
        """Read parts of the generation, unless they are read."""
        manifest = self.base.manifest
        for place in places:
            if place in self._loaded:
                continue
            part = self._parts[place]
            if isinstance(manifest.shards, ShardTables):
                entries = manifest.shards.of_part(place)
            else:
                entries = list(manifest.shards)
            table = self._loaded[place] = self.base.episodes_of_part(place)
            files = pa.array([entry["file"] for entry in entries], pa.string())
            table = _by_file(table, files, part.first_shard)
            self.table = joined(self.table, table, self.base) if len(self.table) else table
            ids = table["id"].combine_chunks()
            if self.gaps is not None:
                found = [replace(part, first_episode=0)]
                gaps = [_with_ids(each, ids) for each in read_gaps(self.base.path, found)]
                self.gaps = pa.concat_tables([self.gaps, *gaps])
            for row in read_findings(self.base.path, [replace(part, first_episode=0)]):
                if row["episode_index"] is not None:
                    index = row.pop("episode_index")
                    self._findings.append({**row, "episode": ids[index].as_py()})
                    self._other_findings[row["code"]] -= 1
            self.shards |= {entry["file"]: entry for entry in entries}
            self._part_of |= {entry["file"]: place for entry in entries}

    def _load_files(self, files: Iterable[str]) -> None:
        """Read the parts of these shards."""
        wanted = set(files) - self.shards.keys()
        if wanted:
            first = [part.first_shard for part in self._parts]
            listed = enumerate(self.base.manifest.shard_files)
            self._load(sorted({bisect_right(first, shard) - 1 for shard, file in listed if file in wanted}))

    def _load_last(self) -> None:
        """Read the last part, to which new shards go, unless it is full."""
        last = self._parts[-1]
        if not is_full(last.num_episodes, last.num_shards):
            self._load([len(self._parts) - 1])

    def load_all(self) -> None:
        """Read all parts."""
        self._load(range(len(self._parts)))

    def remove(self, ids: Collection[str]) -> None:
        """Forget episodes, and rejects of these names. Their shards stay as they are."""
        self.present(ids)
        self.table = _without(self.table, ids)
        gone = set(ids)
        if self.gaps is not None:
            self.gaps = _without(self.gaps, ids)
        self._findings = [each for each in self._findings if each["episode"] not in gone]
        self.rejects = [reject for reject in self.rejects if reject["episode"] not in gone]

    def add(self, records: Records, findings: Iterable[Record], num_planned: int) -> None:
        """Add the shards and rejects of an ingest. An edit that was made of an episode is made of the new one too.

        Findings about the dataset as a whole take the place of those of the ingest before, unless nothing was read.
        """
        written = records.written
        self._load_last()
        for record in records:
            self.rejects += record["rejects"]
            if not record["shard"]:
                continue
            file = f"{SHARD_FOLDER}/{record['shard']['file']}"
            shard = record["shard"]
            entry = {"file": file, "bytes": shard["num_bytes"], "sha256": shard["sha256"]}
            self.shards[file] = {**entry, "episodes": len(record["episodes"]), "arrays": shard["arrays"]}
            assert records.folder is not None
            self._statistics[file] = record_file(records.folder, record["index"])
            self._stored += [{STORED: row[STORED]} for row in record["episodes"]]
            self._still |= {row["id"]: row[EVIDENCE]["still"] for row in record["episodes"]}
        if num_planned:
            self._of_dataset = []
        new = {row["id"] for row in written.rows}
        for finding in findings:
            if finding["episode"] in new:
                self._findings.append(finding)
            else:
                self._of_dataset.append({**finding, "episode": None})
        self._num_planned += num_planned
        if not new:
            return
        rows = (
            {_FILE: f"{SHARD_FOLDER}/{record['shard']['file']}", **row}
            for record in written
            for row in record["episodes"]
        )
        self.table = joined(self.table, episodes_table(rows).drop_columns(["episode_index"]), self.base)
        if self.gaps is not None:
            ours = gaps_table((i, gap) for i, row in enumerate(written.rows) for gap in row[GAPS])
            names = pa.array([row["id"] for row in written.rows], pa.string())
            self.gaps = pa.concat_tables([self.gaps, _with_ids(ours, names)])
        dropped = self.dropped_ids & new
        self._make_edits(new & self.edits.keys())
        if dropped:
            assert self.dropped is not None
            left = self.dropped.filter(pc.is_in(self.dropped["id"], pa.array(sorted(dropped), pa.string())))
            self._load_files(left[_FILE].to_pylist())  # these shards may not be needed any more
            self.dropped = _without(self.dropped, dropped)
            self.drop(dropped)

    def forget(self, ids: Collection[str]) -> None:
        """Forget episodes, dropped ones too, and rejects of these names."""
        self.remove(ids)
        if self.dropped is not None:
            self.dropped = _without(self.dropped, ids)

    def recordings(self, ids: Collection[str]) -> dict[str, tuple[Any, ...]]:
        """Return what tells the recordings of these episodes apart: the digests of their files, and numbers of rows."""
        streams = self.base.manifest.streams
        table = self.table.filter(pc.is_in(self.table["id"], pa.array(sorted(ids), pa.string())))
        rows = [name for name in (f"{stream}/rows" for stream in streams) if name in table.column_names]
        columns = [table[name].to_pylist() for name in ("num_frames", *rows)]
        digests = ([source["sha256"] for source in sources] for sources in table["sources"].to_pylist())
        told = zip(*columns, digests, strict=True)
        return dict(zip(table["id"].to_pylist(), told, strict=True))

    def files_of_episodes(self) -> dict[str, set[str]]:
        """Return the ids of the episodes of each shard that was read, dropped ones too, by the shard's file."""
        found: dict[str, set[str]] = {}
        for table in (self.table, self.dropped):
            if table is not None:
                for file, name in zip(*(table[column].to_pylist() for column in (_FILE, "id")), strict=True):
                    found.setdefault(file, set()).add(name)
        return found

    def take(self, other: Contents, files: Mapping[str, str]) -> None:
        """Add all that was read of another dataset: episodes and dropped ones, rejects, findings, edits.

        None of its episodes is here. ``files`` gives its shards their names here, which are new. What was edited here
        of an episode of the same name stands.
        """
        self._load_last()
        self.shards |= {file: {**other.shards[old], "file": file} for old, file in files.items()}
        ids = set(other.table["id"].to_pylist())
        self.table = joined(self.table, _renamed(other.table, files), self.base)
        if self.gaps is not None and other.gaps is not None:
            self.gaps = pa.concat_tables([self.gaps, other.gaps])
        if other.dropped is not None and len(other.dropped):
            there = [self.dropped] if self.dropped is not None else []
            self.dropped = pa.concat_tables([*there, _renamed(other.dropped, files)], promote_options="permissive")
        self.rejects += other.rejects
        self._findings += other._findings
        self._of_dataset += [finding for finding in other._of_dataset if finding not in self._of_dataset]
        self._other_findings += +other._other_findings
        edited = ids & self.edits.keys()
        for name in sorted((ids | other.dropped_ids) & other.edits.keys()):
            self.edits[name] = {**other.edits[name], **self.edits.get(name, {})}
        self._make_edits(edited)
        self._streams_of_others.append(other.base.manifest.streams)
        self._num_planned += len(files)

    def count(self, taken: Taken) -> None:
        """Add what is known of the statistics of shards that were taken."""
        self._taken.rows |= taken.rows
        self._taken.moments.shards |= taken.moments.shards
        self._taken.moments.still |= taken.moments.still
        self._taken.histograms += taken.histograms

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
        self._load_files(back[_FILE].to_pylist())
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

    def held(self, files: Collection[str]) -> dict[str, list[Held]]:
        """Return the episodes of each of these shards that are in the dataset or can be restored, by their rows.

        Shards that are not listed are left out.
        """
        self._load_files(files)
        streams = [*self.base.manifest.streams]
        found: dict[str, list[Held]] = {file: [] for file in files if file in self.shards}
        for table in (self.table, self.dropped):
            if table is None:
                continue
            columns = ["id", _FILE, *(f"{stream}/{name}" for stream in streams for name in ("start", "rows"))]
            here = table.select(columns).filter(pc.is_in(table[_FILE], value_set=pa.array([*found], pa.string())))
            for row in here.to_pylist():
                spans = {stream: (row[f"{stream}/start"], row[f"{stream}/rows"]) for stream in streams}
                found[row[_FILE]].append(Held(id=row["id"], spans=spans))
        for episodes in found.values():
            episodes.sort(key=lambda each: each.spans[self.base.recorded.anchor])
        return found

    def join(self, made: Iterable[Joined]) -> list[Joined]:
        """Let new shards take the place of others, and return those that did. No other change may be made beside it.

        A new shard is left out if one of the others is not listed any more, or holds an episode that it does not.
        """
        every = [*made]
        held = self.held({file: None for each in every for file in each.starts})
        done = []
        for each in every:
            sources = [*each.starts]
            known = [file in held and {h.id for h in held[file]} <= each.starts[file].keys() for file in sources]
            if all(known) and len({self._part_of[file] for file in sources}) == 1:
                done.append(each)
        takes_place = {next(iter(each.starts)): each.entry for each in done}
        gone = {file for each in done for file in each.starts}
        shards: dict[str, dict[str, Any]] = {}
        for file, entry in self.shards.items():
            if file in takes_place:
                new = takes_place[file]
                shards[new["file"]] = dict(new)
                self._part_of[new["file"]] = self._part_of[file]
            if file not in gone:
                shards[file] = entry
        self.shards = shards
        self._joined = {each.entry["file"]: [*each.starts] for each in done}
        self.table = self._moved(self.table, done)
        if self.dropped is not None:
            self.dropped = self._moved(self.dropped, done)
        return done

    def _moved(self, table: pa.Table, joined: Sequence[Joined]) -> pa.Table:
        """Return the table with the new shards and first rows of episodes that lie elsewhere now."""
        places = [(each, file, name) for each in joined for file, names in each.starts.items() for name in names]
        keys = pa.array([f"{file}\0{name}" for _, file, name in places], pa.string())
        here = pc.binary_join_element_wise(table[_FILE], table["id"].cast(pa.string()), "\0")
        index = pc.index_in(here, value_set=keys).combine_chunks()
        columns = {_FILE: pa.array([each.entry["file"] for each, _, _ in places], pa.string())}
        for stream in self.base.manifest.streams:
            first = [each.starts[file][name][stream] for each, file, name in places]
            columns[f"{stream}/start"] = pa.array(first, table.schema.field(f"{stream}/start").type)
        for name, values in columns.items():
            moved = pc.coalesce(values.take(index), table[name].combine_chunks())
            table = table.set_column(table.column_names.index(name), table.schema.field(name), moved)
        return table

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
        base = self.base.manifest

        def write(name: str, data: bytes, count: int, suffix: str = "parquet") -> dict[str, Any]:
            return write_named(folder, name, data, count, suffix, scratch)

        counts, stored = Counter(self.table[_FILE].to_pylist()), self._num_stored()
        pieces = self._pieces(counts)
        is_one = base.parts is None and len(pieces) == 1
        if not any(counts.values()) and not any(isinstance(piece, Part) for piece in pieces):
            raise UsageError(f"{folder}: no episode would be left", "remove the folder if that is what you want")
        parts: list[Part] = []
        written: dict[int, Changed] = {}
        shards: list[dict[str, Any]] = []
        for place, piece in enumerate(pieces):
            first = parts[-1].first_shard + parts[-1].num_shards if parts else 0
            if isinstance(piece, Part):
                part = self._as_before(piece, write)
            else:
                table = self._ordered(piece)
                shards = [self._shard(file, counts[file], stored[file]) for file in piece]
                part = self._written(table, shards, write, is_one=is_one)
                numbers = pc.add(table["shard"], first)
                table = table.set_column(table.column_names.index("shard"), "shard", numbers)
                written[place] = Changed(files=piece, table=table)
            parts.append(replace(part, first_shard=first))
        manifest = replace(
            base,
            vlapipe_version=vlapipe.__version__,
            streams=self._streams(),
            totals={
                **sum_of_totals([part.totals for part in parts]),
                "findings": dict(
                    sorted((+(self._other_findings + _by_code([*self._findings, *self._of_dataset]))).items())
                ),
            },
            made_with={
                **base.made_with,
                "num_planned_shards": base.made_with.get("num_planned_shards", len(base.shards)) + self._num_planned,
            },
            generation=(base.generation or 1) + 1,
            **self._of_whole(write, is_one=is_one),
        )

        def with_parts(parts: list[Part]) -> Manifest:
            if is_one:
                (part,) = parts
                names = ("episodes", "gaps", "findings", "moments")
                return replace(manifest, shards=shards, **{name: getattr(part, name) for name in names})
            told = [part.to_json() for part in parts]
            tables = ShardTables(folder, [part["shards"] for part in told])
            return replace(manifest, shards=tables, parts=told, episodes=None, gaps=None, moments=None)

        new = _Recorded({file: path for file, path in self._statistics.items() if counts[file] == stored[file]})
        loaded = dict(sorted(self._loaded.items()))
        whole = with_parts(parts)
        if self._joined:
            merged = carried_statistics(self.base, whole, written, loaded, self._joined)
        else:
            merged = merged_statistics(self.base, whole, cache, written, loaded, new, self._still, self._taken)
        for place, moments in merged.moments.items():
            parts[place] = replace(parts[place], moments=write("moments", *moments.to_bytes()))
        sums = None if merged.sums is None else write("statistics", *merged.sums.to_bytes())
        return replace(with_parts(parts), statistics=merged.statistics, sums=sums)

    def _pieces(self, counts: Counter[str]) -> list[Part | list[str]]:
        """Return the parts of the next generation: as they are, or the files of their shards."""
        dropped = set(self.dropped[_FILE].to_pylist()) if self.dropped is not None else set()
        files: dict[int, list[str]] = {}
        for file in self.shards:
            if counts[file] or file in dropped:
                files.setdefault(self._part_of.get(file, len(self._parts)), []).append(file)
        last = len(self._parts) - 1
        if last in self._loaded:
            files[last] = files.get(last, []) + files.pop(last + 1, [])
        pieces: list[Part | list[str]] = []
        for place in range(len(self._parts) + 1):
            if place <= last and place not in self._loaded:
                pieces.append(self._parts[place])
            elif files.get(place):
                own = files[place]
                pieces += [[own[i] for i in run] for run in runs([counts[file] for file in own])]
        return pieces

    def _as_before(self, part: Part, write: Callable[..., dict[str, Any]]) -> Part:
        """Return a part that does not change; if it was the whole dataset, with tables of what its manifest held."""
        if part.shards is not None:
            return part
        shards = list(self.base.manifest.shards)
        rows = read_findings(self.base.path, [part])
        found = findings_of_indices([row for row in rows if row["episode_index"] is not None])
        return replace(
            part,
            shards=write("shards", shards_bytes(shards), len(shards)),
            findings=write("findings", findings_bytes(found), len(found)) if len(found) else None,
            totals=sum_of_totals([part.totals]),
        )

    def _written(
        self, table: pa.Table, shards: list[dict[str, Any]], write: Callable[..., dict[str, Any]], *, is_one: bool
    ) -> Part:
        """Write the tables of a part but its moments. Its episodes and shards are numbered from 0."""
        ids = table["id"].combine_chunks()
        number = {name: i for i, name in enumerate(ids.to_pylist())}
        gaps = None
        if self.gaps is not None:
            of_part = _numbered(self.gaps, ids)
            gaps = write("gaps", table_bytes(of_part), len(of_part))
        findings = [each for each in self._findings if each["episode"] in number]
        findings += self._of_dataset if is_one else []
        found = findings_table(findings, number)
        rows = table.select(["sources", "num_frames", "seconds"]).to_pylist()
        whole = totals(self.base.manifest.streams, rows, shards, Counter())
        return Part(
            episodes=write("episodes", episodes_bytes(table), len(table)),
            num_shards=len(shards),
            shards=None if is_one else write("shards", shards_bytes(shards), len(shards)),
            gaps=gaps,
            findings=write("findings", findings_bytes(found), len(found)) if findings else None,
            totals=sum_of_totals([whole]),
        )

    def _num_stored(self) -> dict[str, int]:
        """Return how many episodes each shard's file holds, whether they are in the dataset or not."""
        return {file: shard.get("stored", shard["episodes"]) for file, shard in self.shards.items()}

    def _ordered(self, files: list[str]) -> pa.Table:
        """Return the episodes of these shards: in their order, and within each in the order of their rows."""
        table = self.table.filter(pc.is_in(self.table[_FILE], value_set=pa.array(files, pa.string())))
        number = pc.index_in(table[_FILE], value_set=pa.array(files, pa.string())).cast(pa.int64())
        table = table.set_column(table.column_names.index(_FILE), "shard", number)
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

    def _of_whole(self, write: Callable[..., dict[str, Any]], *, is_one: bool) -> dict[str, Any]:
        """Write what is not of one part: rejects, dropped episodes, edits, findings about the dataset as a whole."""
        named: dict[str, Any] = {"findings": None}
        if self._of_dataset and not is_one:
            found = findings_table(self._of_dataset, {})
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
        for other in self._streams_of_others:
            for camera in self.base.manifest.cameras:
                kind = other[camera].get("storage", "jpeg")
                streams[camera]["storage"] = _both(streams[camera].get("storage", "jpeg"), kind)
                if "psnr_db" in other[camera]:
                    losses[camera] = min(other[camera]["psnr_db"], losses.get(camera, other[camera]["psnr_db"]))
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
    path = dataset.path / named["file"]
    with damage_or_bug(path, named["sha256"]):
        return pq.read_table(path, use_threads=False, partitioning=None)


class _Recorded(Mapping[str, Mapping[str, FieldStatistics]]):
    """The statistics of new shards by file, each read when it is asked for: histograms of many fill the memory."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths

    def __getitem__(self, file: str) -> Mapping[str, FieldStatistics]:
        statistics = json.loads(self._paths[file].read_bytes())["statistics"]
        return {path: FieldStatistics.from_dict(values) for path, values in statistics.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def _by_file(table: pa.Table, files: pa.Array, first_shard: int) -> pa.Table:
    place = table.column_names.index("shard")
    within = pc.subtract(table["shard"].combine_chunks(), first_shard)
    table = table.set_column(place, _FILE, files.take(within))
    return table.drop_columns(["episode_index"])


def _empty(dataset: Dataset) -> pa.Table:
    """Return no rows of a dataset's episodes table, by the shard's file."""
    fields = dataset.episode_fields
    plain = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field for field in fields
    ]
    return _by_file(pa.schema(plain).empty_table(), pa.array([], pa.string()), 0)


def _renamed(table: pa.Table, files: Mapping[str, str]) -> pa.Table:
    """Return a table with other names of its shards."""
    names = [files[file] for file in table[_FILE].to_pylist()]
    return table.set_column(table.column_names.index(_FILE), _FILE, pa.array(names, pa.string()))


def _of_no_episode(row: Record) -> Record:
    return {**{name: value for name, value in row.items() if name != "episode_index"}, "episode": None}


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

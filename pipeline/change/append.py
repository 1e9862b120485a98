"""Adds recordings to a finished dataset as its next generation. Recordings that have not changed are not read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vlapipe.pipeline.build.build import RecordFile
from vlapipe.pipeline.build.made_from import MadeFrom
from vlapipe.pipeline.build.record import Record, finished_records
from vlapipe.pipeline.build.records import Records
from vlapipe.pipeline.change.commit import Said, commit, place_shards
from vlapipe.pipeline.change.comparison import Comparison, known_recordings, unit_of, units_of
from vlapipe.pipeline.change.contents import Contents, read_edits
from vlapipe.pipeline.change.work_folder import work_folder
from vlapipe.pipeline.discover.discovery import Discovery
from vlapipe.pipeline.discover.packed import Packed
from vlapipe.pipeline.plan.plan import Given, Plan
from vlapipe.pipeline.read.segments import is_cut
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.format.atomic import sweep_temporaries, write_bytes
from vlapipe.pipeline.shards.manifest.generations import publish
from vlapipe.pipeline.shards.manifest.history import sweep_entries
from vlapipe.pipeline.shards.manifest.manifest import MADE_FROM
from vlapipe.pipeline.shards.stores.copies import copy_at

__all__ = ["Appended", "Read", "add_to", "append", "given_by", "settle"]

_NUMBER = re.compile(r".*/shard-(\d+)-")


@dataclass(frozen=True, kw_only=True)
class Appended:
    """What an append did. ``changes`` names the episodes that were added, replaced, removed and set aside."""

    generation: int
    records: Records
    plan: Plan
    discovery: Discovery
    across: list[Record]  # findings about the new episodes together
    changes: dict[str, Any]


MakePlan = Callable[[Discovery, Given], tuple[Discovery, Plan]]
Build = Callable[[Plan, RecordFile, Iterable[Record]], Records]
Across = Callable[[Discovery, Plan, Records], list[Record]]


def append(
    dataset: Dataset,
    found: Discovery,
    made_from: MadeFrom,
    compared: Comparison,
    *,
    make_plan: MakePlan,
    build: Build,
    across_of: Across,
    prune: bool = False,
    note: str | None = None,
) -> Appended:
    """Read the new and the changed recordings, and commit them.

    Args:
        dataset: the newest generation.
        found: all recordings.
        made_from: what a dataset of all recordings is made from.
        compared: which recordings are new, changed or gone.
        make_plan: plans the shards of the recordings to read.
        build: builds those that are not finished, and returns the records of all.
        across_of: returns the findings about all new episodes together.
        prune: remove the episodes whose recordings are gone.
        note: a remark for the history.
    """
    to_read = compared.to_read
    gone = set(compared.gone.to_pylist()) if prune else set()
    recordings = {*made_from.episodes}
    with work_folder(dataset.path, _name_of(found, made_from), resumes=True) as work:
        place = RecordFile(shards=work / "shards", records=work / "records")
        for folder in (place.shards, place.records):
            folder.mkdir(exist_ok=True)
            sweep_temporaries(folder)
        chosen = replace(found, episodes=Packed(raw for raw in found.episodes if raw.id in to_read))
        discovery, plan = make_plan(chosen, given_by(dataset))
        finished = finished_records(place.records, place.shards, {each.index: each.digest for each in plan.shards})
        records = build(plan, place, finished) if to_read else Records()
        _remove_others(place, records)
        across = across_of(discovery, plan, records)
        findings = [*(finding for record in records for finding in record["findings"]), *across]
        sources: dict[str, Any] = {
            "episodes": {raw: made_from.episodes[raw] for raw in sorted(to_read | set(compared.same_bytes))}
        }
        sources |= {"gone": sorted(gone)} if gone else {}
        place_shards(dataset.path, place.shards)

        def change(contents: Contents) -> Said | None:
            read = Read(records=records, findings=findings, num_planned=len(plan.shards), ids=to_read, gone=gone)
            changes = add_to(contents, read, recordings)
            if not any(changes.values()):
                return None
            return Said(what="append", note=note, changes=changes, read={"source": str(found.root), **sources})

        done = commit(dataset.path, work, change)
    return Appended(
        generation=done[0].generation if done is not None else dataset.generation,
        records=records,
        plan=plan,
        discovery=discovery,
        across=across,
        changes=done[1].changes if done is not None else {},
    )


@dataclass(frozen=True, kw_only=True)
class Read:
    """What an append has read: the recordings ``ids``, and the episodes ``gone`` that are to be removed."""

    records: Records
    findings: list[Record]
    num_planned: int
    ids: Set[str]
    gone: Set[str]


def add_to(contents: Contents, read: Read, recordings: Set[str]) -> dict[str, list[str]]:
    """Make the change of an append. Returns the names of the episodes that changed, by what happened to them.

    ``recordings`` are all that were found, read or not.
    """
    ours = [row["id"] for row in read.records.rows]
    before = contents.base.episode_column("id").combine_chunks()
    units = units_of(before, recordings, are_cut=is_cut(contents.base.recorded))
    are_read = pc.is_in(units, value_set=pa.array(sorted(read.ids), pa.string()))
    there = contents.present([*ours, *before.filter(are_read).to_pylist(), *read.gone])
    leaving = {each for each in there if unit_of(each, recordings) in read.ids} | (there & read.gone)
    old = {reject["episode"] for reject in contents.rejects}
    aside = {each for each in old if unit_of(each, recordings) in read.ids} | (old & read.gone)
    contents.remove(leaving | aside)
    contents.add(read.records, read.findings, read.num_planned if read.ids else 0)
    return {
        "added": [each for each in ours if each not in there],
        "replaced": [each for each in ours if each in there],
        "removed": sorted(leaving - set(ours)),
        "set aside": [reject["episode"] for record in read.records for reject in record["rejects"]],
    }


def settle(dataset: Dataset, found: Discovery, made_from: MadeFrom, compared: Comparison) -> None:
    """Finish what a run left that was killed after its commit, and remember dates of recordings that are the same."""
    path = dataset.path
    with work_folder(path, _name_of(found, made_from)) as work:
        publish(path, work)
        sweep_entries(path)
        if compared.same_bytes:
            known = known_recordings(dataset)
            assert known is not None
            fresh = {name: made_from.episodes[name] for name in compared.same_bytes}
            data = replace(known, episodes=known.episodes | fresh).to_json()
            copy = copy_at(path)
            if copy:
                copy.put(MADE_FROM, data)
            else:
                write_bytes(path / MADE_FROM, data, folder=work)


def _name_of(found: Discovery, made_from: MadeFrom) -> str:
    """Return the name of the work folder: the same for every run with this source and these options."""
    described = json.dumps([str(found.root.resolve()), sorted(made_from.options.items())])
    return "ingest-" + hashlib.sha256(described.encode(errors="surrogateescape")).hexdigest()[:8]


def given_by(dataset: Dataset) -> Given:
    """Return what a dataset has decided for every episode that is added."""
    manifest = dataset.manifest
    numbers = [int(match[1]) for file in manifest.shard_files if (match := _NUMBER.match(file))]
    sizes = []
    for camera in manifest.cameras:
        if manifest.image_storage(camera) in ("raw", "mixed"):
            width, height = (dataset.column(f"{camera}/{side}") for side in ("width", "height"))
            filled = width > 0
            sizes += [(camera, (int(width[filled][0]), int(height[filled][0])))] if filled.any() else []
    splits = {name: each["split"] for name, each in read_edits(dataset).items() if "split" in each}
    return Given(
        cameras=tuple(manifest.cameras),
        camera_sizes=tuple(sizes),
        splits=splits,
        first_shard=max(numbers, default=-1) + 1,
    )


def _remove_others(place: RecordFile, records: Records) -> None:
    """Remove shards of an earlier try that this run does not use."""
    ours = {record["shard"]["file"] for record in records if record["shard"]}
    for shard in place.shards.iterdir():
        if shard.name not in ours:
            shard.unlink()

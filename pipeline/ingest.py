"""Turns raw episodes into a dataset: discover, plan, build shards in parallel, commit. A dry run writes nothing."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import vlapipe
from vlapipe.pipeline.build.build import RecordFile, ShardTask
from vlapipe.pipeline.build.commit import manifest_of
from vlapipe.pipeline.build.estimate import Estimate, estimate_run
from vlapipe.pipeline.build.made_from import MadeFrom
from vlapipe.pipeline.build.output_folder import check_output, is_whole, open_output, tidy
from vlapipe.pipeline.build.record import STORED, Record
from vlapipe.pipeline.build.records import BytesOfFiles, Records
from vlapipe.pipeline.build.space import no_room, require_room, room_for
from vlapipe.pipeline.build.workers import run_tasks
from vlapipe.pipeline.change.append import append, settle
from vlapipe.pipeline.change.comparison import compare, known_recordings
from vlapipe.pipeline.change.first import write_first
from vlapipe.pipeline.change.to_store import holds_dataset, require_free, to_store
from vlapipe.pipeline.check.across_episodes import check_across_episodes
from vlapipe.pipeline.discover.discovery import Discovery
from vlapipe.pipeline.layouts.layouts import find_episodes, schema_of
from vlapipe.pipeline.plan.chosen_episodes import choose_episodes, describe_episodes
from vlapipe.pipeline.plan.plan import Given, Plan, make_plan
from vlapipe.pipeline.read.images.image_options import JPEG_QUALITY, ImageOptions, ImageSize
from vlapipe.pipeline.read.metadata import digest_of_table
from vlapipe.pipeline.read.segments import cut_files, is_cut
from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.pipeline.shards.format.atomic import remove_folder
from vlapipe.pipeline.shards.format.codec import SHARD_FORMATS, parse_codec
from vlapipe.pipeline.shards.manifest.generations import generations
from vlapipe.pipeline.shards.manifest.manifest import MANIFEST
from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.pipeline.shards.stores.copies import copy_at, folder_of, one_look
from vlapipe.pipeline.shards.stores.recordings import fetch_recordings
from vlapipe.pipeline.shards.verify.verify import missing_or_cut
from vlapipe.schemas.errors import DamageError, NotADatasetError, UsageError, VlapipeError
from vlapipe.schemas.findings import CODES, SEVERITIES
from vlapipe.schemas.paths import Address, dataset_path
from vlapipe.schemas.schema import Schema
from vlapipe.schemas.surroundings import raise_if_stopped

_SCHEDULER = re.compile(r"((tcp|tls|ws|wss|ucx|ucxx)://)?[^/\s]+:\d+/?")

__all__ = ["IngestConfig", "IngestReport", "find_recordings", "ingest", "plan_recordings", "shard_tasks"]


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """Options of one ingest: what to read, how to read it, and where to write the dataset."""

    source: Path
    single_episode: bool = False
    out: Path | None = None  # None is allowed only for a dry run
    dry_run: bool = False
    schema: str = "meca500"
    where: str | None = None  # keep only the episodes of which this expression is true
    shard_format: str = "zarr"
    codec: str | None = None
    shard_bytes: int = 256 * 1000 * 1000
    image_size: ImageSize | None = None  # width, height in pixels; None keeps each image as it was recorded
    image_storage: str = "recorded"  # "recorded", "jpeg", "png" or "raw"
    image_quality: int = JPEG_QUALITY  # of JPEG files that ingest makes
    workers: int | None = None
    scheduler: str | None = None
    scheduler_timeout_s: float = 60.0  # how long the cluster may have no worker that can take the tasks
    episode_timeout_s: float = 1800.0  # how long a worker process may take over one episode
    strict: bool = False
    prune: bool = False  # into a finished dataset: also remove the episodes whose recordings are gone
    note: str | None = None  # a remark for the dataset's history

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", dataset_path(self.source, "--dir" if self.single_episode else "--dataset"))
        if self.out is not None:
            object.__setattr__(self, "out", dataset_path(self.out, "--out"))
        if self.out is None and not self.dry_run:
            raise UsageError(
                "--out is missing: where should the dataset go?", "add --out DIR, or --dry-run to only check"
            )
        if self.shard_format not in SHARD_FORMATS:
            raise UsageError(f"--format {self.shard_format}: unknown", f"choose from {', '.join(SHARD_FORMATS)}")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers {self.workers}: expected 1 or more")
        if self.scheduler is not None and not _SCHEDULER.fullmatch(self.scheduler):
            cure = "give the address that dask scheduler prints, such as tcp://host:8786"
            raise UsageError(f"--scheduler {self.scheduler}: expected tcp://host:port", cure)
        if not self.scheduler_timeout_s > 0:
            raise UsageError(f"--scheduler-timeout {self.scheduler_timeout_s:g}: expected more than 0 seconds")
        if not self.episode_timeout_s > 0:
            raise UsageError(f"--episode-timeout {self.episode_timeout_s:g}: expected more than 0 seconds")
        if self.shard_bytes < 1:
            raise UsageError(f"--shard-size {self.shard_bytes}: expected 1 byte or more")
        parse_codec(self.codec, self.shard_format)
        _ = self.images  # raises if the image options contradict each other

    @property
    def images(self) -> ImageOptions:
        """How images are stored."""
        return ImageOptions(size=self.image_size, storage=self.image_storage, quality=self.image_quality)

    def described(self) -> dict[str, Any]:
        """Return the options that decide what is written, by their command-line flag.

        The schema is not among them: ``MadeFrom`` adds it.
        """
        return {
            "--dir": "given" if self.single_episode else None,
            "--where": self.where,
            "--format": self.shard_format,
            "--codec": parse_codec(self.codec, self.shard_format),
            "--shard-size": f"{self.shard_bytes} bytes",
            "--image-size": "{}x{}".format(*self.image_size) if self.image_size else None,
            "--image-storage": self.image_storage,
            "--image-quality": self.image_quality,
        }


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """Result of an ingest. ``findings`` holds only the findings of kept episodes; rejects carry their own reasons."""

    dataset: Path | None
    schema: str
    num_found: int
    num_episodes: int
    num_frames: int
    num_left_out: int  # frames that are not drawn because their window (by the schema's own sizes) would cross a gap
    seconds: float
    num_shards: int
    num_ignored_files: int
    raw_bytes: int
    stored_bytes: int
    expected: Estimate | None = None  # set only by a dry run
    room_bytes: int | None = None  # where the dataset goes; set only by a dry run with an output folder
    num_resumed_shards: int
    was_finished: bool = False  # True if an earlier run from the same source and options finished: nothing was done
    generation: int = 1
    changes: dict[str, Any] | None = None  # of a dataset that was there before: episodes added, replaced, removed, ...
    num_gone: int = 0  # episodes that were kept although their recordings are gone
    elapsed_s: float
    cameras: dict[str, Record] = field(default_factory=dict)  # by camera: as, images, bytes, psnr_db, decode_s
    left_out: dict[str, list[str]] = field(default_factory=dict)  # episodes that were not read, by exclude or where
    rejects: list[Record] = field(default_factory=list)
    findings: list[Record] = field(default_factory=list)

    @property
    def has_errors(self) -> bool:
        """True if an episode was set aside, or a check across all episodes found an error."""
        return bool(self.rejects) or any(finding["severity"] == "error" for finding in self.findings)

    def require_room(self, out: Path | None) -> None:
        """Raise an error if this is the report of a dry run whose output would not fit into ``out``.

        Raises:
            StoppedError: the disk has too little space for the dataset.
        """
        if out is None or self.expected is None or self.room_bytes is None:
            return
        if self.expected.stored_bytes > self.room_bytes:
            raise no_room(out, self.expected.stored_bytes, self.room_bytes)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Group the findings by code, the gravest severity first.

        Each entry has the severity, meaning, cure, number of locations, number of episodes, and the first message.
        """
        by_code: dict[str, dict[str, Any]] = {}
        episodes: dict[str, set[str]] = {}
        reasons = [{"episode": reject["episode"], **reason} for reject in self.rejects for reason in reject["reasons"]]
        for finding in [*reasons, *self.findings]:
            code = CODES[finding["code"]]
            entry = by_code.setdefault(
                finding["code"],
                {
                    "severity": finding["severity"],
                    "meaning": code.meaning,
                    "cure": code.cure,
                    "places": 0,
                    "first": finding["message"],
                },
            )
            entry["places"] += finding["count"]
            ours = episodes.setdefault(finding["code"], set())
            if finding["episode"] is not None:
                ours.add(finding["episode"])
        for name, entry in by_code.items():
            entry["episodes"] = len(episodes[name])
        return dict(sorted(by_code.items(), key=lambda item: (SEVERITIES.index(item[1]["severity"]), item[0])))

    def to_json(self) -> str:
        """Return the report as the JSON text that ``--report`` writes."""
        values: dict[str, Any] = {**vars(self), "dataset": str(self.dataset) if self.dataset else None}
        values["expected"] = vars(self.expected) if self.expected else None
        return json.dumps({**values, "summary": self.summary()}, indent=1) + "\n"


def ingest(config: IngestConfig, schema: Schema | None = None) -> IngestReport:
    """Read a raw dataset and write it as shards with a manifest. ``schema`` replaces the one that the config names.

    A dry run makes the same checks and writes nothing. To finish a run that was killed or stopped, run it again; if the
    dataset is finished already, nothing is done. Episodes with errors are set aside and reported.

    Raises:
        UsageError: an option asks for something that cannot be done.
        StoppedError: disk, memory, network, a limit or a worker failed. The same call then continues the work.
        VlapipeError: ``strict`` is set and an episode could not be read.
    """
    try:
        if isinstance(config.source, Address):
            config = replace(config, source=fetch_recordings(config.source))
        schema = schema or schema_of(config.schema, config.source)
        return _into_store(config, config.out, schema) if isinstance(config.out, Address) else _ingest(config, schema)
    except (MemoryError, OSError, RuntimeError) as error:
        raise_if_stopped(error, config.out or config.source)
        raise


def find_recordings(config: IngestConfig, schema: Schema) -> tuple[Discovery, MadeFrom]:
    """Find the episodes of a source, and describe what a dataset of them is made from. No recording is opened."""
    found = find_episodes(config.source, schema, single=config.single_episode)
    described = config.described()
    if is_cut(schema):  # ``where`` and the table of metadata speak of the parts of files
        described |= {"metadata_table": digest_of_table(found, schema)}
    else:
        found = choose_episodes(describe_episodes(found, schema), schema, config.where)
    return found, MadeFrom.of(found, schema, described)


def plan_recordings(
    config: IngestConfig, schema: Schema, found: Discovery, given: Given | None = None
) -> tuple[Discovery, Plan]:
    """Cut files that hold several episodes, and decide which episode goes to which shard.

    ``given`` is what the dataset has decided that the episodes are added to.
    """
    discovery = cut_files(found, schema)
    if is_cut(schema):
        discovery = choose_episodes(describe_episodes(discovery, schema), schema, config.where)
    codec = parse_codec(config.codec, config.shard_format)
    options = {"format": config.shard_format, "codec": str(codec), "vlapipe": vlapipe.__version__}
    options |= {"where": config.where} if config.where is not None else {}
    plan = make_plan(
        discovery, schema, shard_bytes=config.shard_bytes, options=options, images=config.images, given=given
    )
    return discovery, plan


def shard_tasks(config: IngestConfig, plan: Plan, place: RecordFile | None) -> list[ShardTask]:
    """Return the task of each shard of the plan, in order. If ``place`` is ``None``, nothing is written."""
    codec = parse_codec(config.codec, config.shard_format)
    return [
        ShardTask(
            root=plan.root,
            schema=plan.schema,
            cameras=plan.cameras,
            shard=shard,
            shard_format=config.shard_format,
            codec=codec,
            place=place,
            images=plan.images,
        )
        for shard in plan.shards
    ]


def _ingest(config: IngestConfig, schema: Schema) -> IngestReport:
    started = time.monotonic()
    if config.out is not None and not config.dry_run and config.source.exists():
        check_output(config.out, config.source)
    found, made_from = find_recordings(config, schema)
    has_manifest = False
    if config.out is not None and not config.dry_run:
        if (config.out / MANIFEST).exists() and (grown := _append(config, schema, found, made_from, started)):
            return grown
        if is_whole(config.out, made_from):
            return _nothing_to_do(config, config.out, started)
        if copy_at(config.out):
            raise DamageError(f"--out {config.out}: files of the dataset are missing or altered", "vlapipe verify")
        has_manifest = (config.out / MANIFEST).exists()  # True if the dataset there lost files after it was finished
    discovery, plan = plan_recordings(config, schema, found)
    if config.dry_run:
        records = _run(config, plan, None, ())
        report = _report(config, discovery, records, _across(discovery, plan, records), started)
        num_parallel = config.workers or os.cpu_count() or 1
        expected = estimate_run(records, schema.anchor, read_seconds=report.elapsed_s, num_parallel=num_parallel)
        return replace(report, expected=expected, room_bytes=room_for(config.out) if config.out else None)
    assert config.out is not None
    with open_output(config.out, plan, has_manifest=has_manifest) as output:
        records = _run(config, plan, output.place, output.finished())
        across = _across(discovery, plan, records)
        report = _report(config, discovery, records, across, started)
        if not report.num_episodes:
            output.discard_if_empty()
        else:
            made_from.write(output.path)
            entries = manifest_of(
                plan,
                records.rows,
                shard_format=config.shard_format,
                codec=str(parse_codec(config.codec, config.shard_format)),
                where=config.where,
            )
            write_first(output.path, entries, records, report.rejects, report.findings, schema)
            output.close({record["shard"]["file"] for record in records.written})
    return report


@one_look()
def _into_store(config: IngestConfig, out: Address, schema: Schema) -> IngestReport:
    """Ingest into a store: a first ingest is made in a folder and put there, a later one puts what is new there."""
    if config.dry_run:
        return _ingest(replace(config, out=None), schema)
    copy = copy_at(folder_of(out))
    assert copy is not None
    made = copy.folder.with_name(f"{copy.folder.name}.first")
    if holds_dataset(copy):
        if made.exists():  # of a run that was killed after it had put the dataset there
            remove_folder(made)
        copy.take([MANIFEST], fresh=True)
        report = _ingest(replace(config, out=copy.folder), schema)
    else:
        require_free(copy)
        report = _ingest(replace(config, out=made), schema)
        if report.dataset is not None:
            to_store(made, copy)
            remove_folder(made)
    return replace(report, dataset=out if report.dataset is not None else None)


def _append(
    config: IngestConfig, schema: Schema, found: Discovery, made_from: MadeFrom, started: float
) -> IngestReport | None:
    """Add to the finished dataset what is new. ``None`` if only the first ingest can say what the folder needs."""
    assert config.out is not None
    try:
        dataset = open_dataset(config.out)
    except (NotADatasetError, DamageError):
        return None
    known = known_recordings(dataset, made_from.episodes.keys())
    is_first = dataset.generation == 1 and not generations(config.out)
    if known is None or (is_first and not known.num_others and known.episodes == made_from.episodes):
        return None
    if made_from.options != known.options:
        problem = f"already holds a dataset made from something else: {made_from.changes(known)}"
        raise UsageError(f"--out {config.out}: {problem}", "give the options as they were, or choose another --out")
    damage = missing_or_cut(config.out, dataset.manifest)
    if damage:
        raise DamageError(f"--out {config.out}: {damage[0]}", "vlapipe repair makes it again; then run this again")
    compared = compare(dataset, found, made_from, known, schema)
    if not compared.to_read and not (config.prune and compared.gone):
        settle(dataset, found, made_from, compared)
        return replace(_nothing_to_do(config, config.out, started), num_gone=len(compared.gone))
    done = append(
        dataset,
        found,
        made_from,
        compared,
        make_plan=lambda some, given: plan_recordings(config, schema, some, given),
        build=lambda plan, place, finished: _run(config, plan, place, finished),
        across_of=_across,
        prune=config.prune,
        note=config.note,
    )
    report = _report(config, done.discovery, done.records, done.across, started)
    gone = 0 if config.prune else len(compared.gone)
    return replace(report, dataset=config.out, generation=done.generation, changes=done.changes, num_gone=gone)


def _nothing_to_do(config: IngestConfig, out: Path, started: float) -> IngestReport:
    """Return the report for an output folder that already holds this run's result.

    The manifest only counts the findings of kept episodes, so the report does not list them.
    """
    dataset = open_dataset(out)
    manifest, totals = dataset.manifest, dataset.manifest.totals
    tidy(out)
    rejects = manifest.read_rejects(out)
    if config.strict and rejects:
        raise _strict(rejects[0])
    return IngestReport(
        dataset=out,
        schema=config.schema,
        num_found=len(dataset) + len(rejects),
        num_episodes=len(dataset),
        num_frames=totals["frames"],
        num_left_out=int(dataset.column("num_left_out").sum()),
        seconds=totals["seconds"],
        num_shards=len(manifest.shards),
        num_ignored_files=0,
        raw_bytes=sum(totals["raw_bytes"].values()),
        stored_bytes=totals["shard_bytes"],
        num_resumed_shards=len(manifest.shards),
        elapsed_s=time.monotonic() - started,
        rejects=rejects,
        was_finished=True,
        generation=dataset.generation,
    )


def _strict(reject: Record) -> VlapipeError:
    first = next(reason["message"] for reason in reject["reasons"] if reason["severity"] == "error")
    return VlapipeError(f"--strict: {first}", "correct it and run the same command again")


def _run(config: IngestConfig, plan: Plan, place: RecordFile | None, finished: Iterable[Record]) -> Records:
    """Build every shard that is not finished yet, and return the records of all shards in the plan's order."""
    records = Records(None if place is None else place.records)
    for record in finished:
        records.add(record)
    records.num_resumed = len(records)
    tasks = [task for task in shard_tasks(config, plan, place) if not records.has(task.shard.index)]
    if place is not None:
        require_room(place.shards, plan, [task.shard for task in tasks])
    what = "check" if config.dry_run else "ingest"
    num_episodes = sum(len(task.shard.episodes) for task in tasks)
    with Progress(what, num_episodes, "episode") as progress:
        for record in run_tasks(
            tasks,
            progress,
            workers=config.workers,
            scheduler=config.scheduler,
            scheduler_timeout_s=config.scheduler_timeout_s,
            episode_timeout_s=config.episode_timeout_s,
        ):
            records.add(record)
            if config.strict and record["rejects"]:
                raise _strict(record["rejects"][0])
    return records


def _across(discovery: Discovery, plan: Plan, records: Records) -> list[Record]:
    return check_across_episodes(records.rows, discovery, plan.schema)


def _report(
    config: IngestConfig,
    discovery: Discovery,
    records: Records,
    across: list[Record],
    started: float,
) -> IngestReport:
    num_episodes = num_frames = num_left_out = num_shards = stored_bytes = 0
    seconds = 0.0
    raw_bytes = BytesOfFiles()
    rejects: list[Record] = []
    findings: list[Record] = []
    for record in records:
        rejects += record["rejects"]
        findings += record["findings"]
        num_shards += bool(record["episodes"])
        stored_bytes += record["shard"]["num_bytes"] if record["shard"] else 0
        for row in record["episodes"]:
            num_episodes += 1
            num_frames += row["num_frames"]
            num_left_out += row["num_left_out"]
            seconds += row["seconds"]
            raw_bytes.add(row["sources"])
    return IngestReport(
        dataset=config.out if num_episodes and not config.dry_run else None,
        schema=config.schema,
        cameras=_cameras(records),
        num_found=len(discovery.episodes),
        num_episodes=num_episodes,
        num_frames=num_frames,
        num_left_out=num_left_out,
        seconds=seconds,
        num_shards=num_shards,
        num_ignored_files=discovery.num_ignored,
        raw_bytes=raw_bytes.total(),
        stored_bytes=stored_bytes,
        num_resumed_shards=records.num_resumed,
        elapsed_s=time.monotonic() - started,
        left_out={rule: list(ids) for rule, ids in discovery.left_out.items()},
        rejects=rejects,
        findings=[*findings, *across],
    )


def _cameras(records: Records) -> dict[str, Record]:
    """Return what each camera's images are stored as, what they take, and what JPEG lost in the worst episode."""
    decode_s: dict[str, list[float]] = {}
    for record in records:
        for camera, each in ((record.get("sample") or {}).get("decode_s") or {}).items():
            decode_s.setdefault(camera, []).append(each)
    cameras: dict[str, Record] = {}
    for episode in records.rows:
        for camera, stored in episode[STORED].items():
            entry = cameras.setdefault(camera, {"as": "", "images": 0, "bytes": 0, "psnr_db": None, "decode_s": None})
            if not stored["images"]:
                continue
            kinds = dict.fromkeys([*filter(None, entry["as"].split(" and ")), *stored["as"].split(" and ")])
            losses = [loss for loss in (entry["psnr_db"], stored["psnr_db"]) if loss is not None]
            entry["as"] = " and ".join(kinds)
            entry["images"] += stored["images"]
            entry["bytes"] += stored["bytes"]
            entry["psnr_db"] = min(losses, default=None)
            entry["decode_s"] = min(decode_s.get(camera, ()), default=None)
    return cameras

"""Makes files of a dataset again from the recordings, by the code that ingest uses.

Damaged shards are built one by one, and no other recording is read. Tables and the manifest depend on every recording,
so a whole ingest into the scratch folder makes them. Those of a later generation depend on the recordings that it added
and on the generation before, see ``again``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import vlapipe
from vlapipe.pipeline.build.build import RecordFile
from vlapipe.pipeline.build.commit import manifest_of
from vlapipe.pipeline.build.made_from import MadeFrom
from vlapipe.pipeline.build.records import Records
from vlapipe.pipeline.build.workers import run_tasks
from vlapipe.pipeline.change.append import Read, given_by
from vlapipe.pipeline.change.comparison import unit_of
from vlapipe.pipeline.change.first import write_first
from vlapipe.pipeline.check.across_episodes import check_across_episodes
from vlapipe.pipeline.discover.discovery import Discovery
from vlapipe.pipeline.discover.packed import Packed
from vlapipe.pipeline.ingest import IngestConfig, find_recordings, ingest, plan_recordings, shard_tasks
from vlapipe.pipeline.layouts.layouts import schema_of
from vlapipe.pipeline.plan.plan import Plan, PlannedShard
from vlapipe.pipeline.read.images.image_options import JPEG_QUALITY
from vlapipe.pipeline.repair.again import CannotMakeError, first_listed, make_again
from vlapipe.pipeline.shards.dataset import Dataset, open_dataset
from vlapipe.pipeline.shards.format.codec import parse_codec
from vlapipe.pipeline.shards.manifest.generations import generation_file, generations
from vlapipe.pipeline.shards.manifest.history import HISTORY, Entry, entries
from vlapipe.pipeline.shards.manifest.manifest import MADE_FROM, MANIFEST, SHARD_FOLDER, Manifest
from vlapipe.pipeline.shards.manifest.shards_table import shard_column
from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.pipeline.shards.stores.copies import shown
from vlapipe.pipeline.shards.stores.recordings import fetch_recordings
from vlapipe.schemas.errors import StoppedError, UsageError, VlapipeError
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.paths import Address
from vlapipe.schemas.schema import Schema

__all__ = ["FromSource"]

_SHARD = re.compile(rf"{SHARD_FOLDER}/shard-(\d+)-[0-9a-f]{{8}}\..*")
_STORED_TOML = re.compile(rb'"toml": ("(?:[^"\\]|\\.)*")')
_STORED_OPTION = re.compile(rb'"(--[a-z-]+)": ("(?:[^"\\]|\\.)*")')
_NOT_GIVEN = "not given"


@dataclass(frozen=True, kw_only=True)
class _Recordings:
    """Recordings that were found, and how they are read."""

    config: IngestConfig
    schema: Schema
    found: Discovery
    made_from: MadeFrom

    def only(self, names: Set[str]) -> _Recordings:
        """Return those of these names."""
        return replace(
            self, found=replace(self.found, episodes=Packed(r for r in self.found.episodes if r.id in names))
        )


class FromSource:
    """The recordings that the dataset was made from."""

    def __init__(self, dataset: Path, source: Path, *, schema: str | None = None, workers: int | None = None) -> None:
        if not isinstance(source, Address) and not source.exists():
            raise UsageError(f"--source {source}: no such folder", "give the folder that vlapipe ingest read")
        self._dataset, self._source, self._schema, self._workers = dataset, source, schema, workers
        self._why = ""
        self._reasons: dict[str, str] = {}  # of files that cannot be made at all
        self._is_whole_made = False

    @cached_property
    def _recordings(self) -> Path:
        """The folder of the recordings. They are fetched from a store only if something is damaged."""
        return fetch_recordings(self._source) if isinstance(self._source, Address) else self._source

    def is_same_dataset(self, manifest: bytes) -> bool:
        """Recordings are no dataset."""
        del manifest
        return False

    def why(self, file: str) -> str:
        """Say what has changed since the ingest, as far as it is known."""
        why = self._reasons.get(file) or f"{self._source} gives other bytes: {self._why}"
        return f"{why}; --from COPY takes the file from a copy"

    def make(self, files: list[str], folder: Path, manifest: Manifest | None) -> None:
        """Build the files. The options of the ingest are those that the dataset states."""
        if generations(self._dataset):
            self._make_of_generations(files, folder, manifest)
            return
        options = self._options(manifest)
        schema = self._stored_schema(manifest, options)
        config = _config_of(options, self._recordings, schema.name, self._workers)
        found, made_from = find_recordings(config, schema)
        before = MadeFrom.read(self._dataset)
        self._why = (made_from.changes(before) if before is not None else "") or _other_code(manifest)
        if MADE_FROM in files:
            (folder / MADE_FROM).write_bytes(made_from.to_json())
        shards = {int(match[1]) for file in files if (match := _SHARD.fullmatch(file))}
        if all(_SHARD.fullmatch(file) or file == MADE_FROM for file in files) and not self._is_whole_made:
            if shards:
                _, plan = plan_recordings(config, schema, found)
                self._build(config, plan, shards, folder)
            return
        if not self._is_whole_made:
            ingest(replace(config, out=folder / "whole", dry_run=False), schema)
            self._is_whole_made = True
        for file in files:
            made = folder / "whole" / file
            if file != MADE_FROM and made.is_file():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                made.rename(folder / file)

    def _make_of_generations(self, files: list[str], folder: Path, manifest: Manifest | None) -> None:
        """Make files of a dataset that has grown: shards by their episodes, tables generation by generation."""
        readable = manifest or _newest_readable(self._dataset)
        if readable is None:
            self._reasons = dict.fromkeys(files, "every generation's own file is damaged")
            return
        options = self._options(readable)
        schema = self._stored_schema(readable, options)
        config = _config_of(options, self._recordings, schema.name, self._workers)
        found, made_from = find_recordings(config, schema)
        source = _Recordings(config=config, schema=schema, found=found, made_from=made_from)
        self._why = "they have changed, or " + _other_code(readable)
        shards = [file for file in files if file.startswith(f"{SHARD_FOLDER}/")]
        if shards:
            self._make_shards(shards, folder, source)
        others = set(files) - set(shards)
        first = _first_recordings(self._dataset, made_from)
        if MADE_FROM in files:
            chosen = {name: digest for name, digest in made_from.episodes.items() if name in first}
            (folder / MADE_FROM).write_bytes(replace(made_from, episodes=chosen).to_json())
        self._reasons = {file: "it tells time and place" for file in others if file.startswith(f"{HISTORY}/")}
        for number, wanted in first_listed(self._dataset, others).items():
            try:
                made = self._make_generation(number, set(files), folder / f"again-{number}", source, first)
            except StoppedError:
                raise
            except VlapipeError as error:
                self._reasons |= dict.fromkeys(wanted, error.problem)
                continue
            for file in wanted:
                if (made / file).is_file():
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    (made / file).rename(folder / file)

    def _make_generation(
        self, number: int, damaged: set[str], folder: Path, source: _Recordings, first: set[str]
    ) -> Path:
        """Make the tables of a generation, and its own file. Returns the folder that has them.

        Raises:
            VlapipeError: it cannot be made.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if number == 1:
            self._make_first(folder, source.only(first))
            own = folder / generation_file(1)
            own.parent.mkdir()
            (folder / MANIFEST).rename(own)
            return folder

        def read(base: Dataset, entry: Entry, first_shard: int | None) -> tuple[Read, set[str]]:
            units = _recordings_of(entry, "added", "replaced", "removed", "set aside")
            given = given_by(base)
            if first_shard is not None:
                given = replace(given, first_shard=first_shard)
            some = source.only(units)
            lost = sorted(units - {raw.id for raw in some.found.episodes})
            if lost:
                raise CannotMakeError(f"a recording is gone: {lost[0]}")
            discovery, plan = plan_recordings(some.config, some.schema, some.found, given)
            records = self._build(some.config, plan, None, folder)
            across = check_across_episodes(records.rows, discovery, some.schema)
            findings = [*(finding for record in records for finding in record["findings"]), *across]
            gone = set(entry.read.get("gone", ()))
            return Read(
                records=records, findings=findings, num_planned=len(plan.shards), ids=units, gone=gone
            ), units | source.made_from.episodes.keys()

        return make_again(self._dataset, number, damaged, folder, read)

    def _make_first(self, folder: Path, source: _Recordings) -> None:
        """Write the first generation of these recordings into a folder."""
        config, schema = source.config, source.schema
        discovery, plan = plan_recordings(config, schema, source.found)
        records = self._build(config, plan, None, folder)
        findings = [finding for record in records for finding in record["findings"]]
        findings += check_across_episodes(records.rows, discovery, schema)
        rejects = [reject for record in records for reject in record["rejects"]]
        codec = str(parse_codec(config.codec, config.shard_format))
        entries = manifest_of(plan, records.rows, shard_format=config.shard_format, codec=codec, where=config.where)
        write_first(folder, entries, records, rejects, findings, schema)

    def _make_shards(self, shards: list[str], folder: Path, source: _Recordings) -> None:
        """Build shards, each from the episodes that the table of a generation names."""
        holding = _generations_of(self._dataset, shards)
        recordings = {raw.id for raw in source.found.episodes}
        for file in shards:
            if file not in holding:
                continue
            dataset, number = holding[file]
            there = dataset.column("shard") == number
            splits = dict(zip(*(dataset.column(name)[there].tolist() for name in ("id", "split")), strict=True))
            chosen = source.only({unit_of(name, recordings) for name in splits})
            if not chosen.found.episodes:
                continue
            discovery, plan = plan_recordings(chosen.config, chosen.schema, chosen.found, given_by(dataset))
            raws = {raw.id: raw for raw in discovery.episodes}
            if splits.keys() <= raws.keys():
                match = _SHARD.fullmatch(file)
                assert match is not None
                shard = PlannedShard(
                    index=int(match[1]),
                    episodes=tuple(raws[name] for name in splits),
                    splits=tuple(splits.values()),
                    digest="",
                )
                self._build(chosen.config, replace(plan, shards=(shard,)), None, folder)

    def _build(self, config: IngestConfig, plan: Plan, shards: set[int] | None, folder: Path) -> Records:
        """Build these shards of the plan, or all. Returns their records, in the plan's order."""
        place = RecordFile(shards=folder / SHARD_FOLDER, records=folder / "records")
        for each in (place.shards, place.records):
            each.mkdir(parents=True, exist_ok=True)
        tasks = [task for task in shard_tasks(config, plan, place) if shards is None or task.shard.index in shards]
        records = Records(place.records)
        with Progress("repair", sum(len(task.shard.episodes) for task in tasks), "episode") as progress:
            built = run_tasks(
                tasks,
                progress,
                workers=self._workers,
                scheduler=None,
                scheduler_timeout_s=config.scheduler_timeout_s,
                episode_timeout_s=config.episode_timeout_s,
            )
            for record in built:
                records.add(record)
        return records

    def _options(self, manifest: Manifest | None) -> dict[str, str]:
        """Return the options of the ingest: as recorded, or if the record is damaged as far as they can be known.

        Raises:
            UsageError: they cannot be known.
        """
        before = MadeFrom.read(self._dataset)
        if before is not None:
            return before.options
        options: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):  # the damage may be elsewhere in the record
            found = _STORED_OPTION.findall((self._dataset / MADE_FROM).read_bytes())
            options = {name.decode(): json.loads(value) for name, value in found}
        if manifest is None:
            if not options:
                problem = f"{shown(self._dataset)}: neither {MANIFEST} nor {MADE_FROM} says how it was made"
                raise UsageError(problem, "repair it with --from COPY")
            return options
        return {"--shard-size": f"{IngestConfig.shard_bytes} bytes", **options, **_options_in(manifest)}

    def _stored_schema(self, manifest: Manifest | None, options: dict[str, str]) -> Schema:
        """Return the schema that the dataset was made by.

        Raises:
            UsageError: the manifest is damaged, and its schema cannot be found elsewhere.
        """
        if manifest is not None:
            return parse_schema(manifest.schema["toml"], f"{manifest.schema['name']}.toml", is_stored=True)
        name, _, digest = options.get("--schema", "").removesuffix(")").rpartition(" (")
        for schema in self._candidates(name):
            if hashlib.sha256(schema.toml.encode()).hexdigest().startswith(digest or "none"):
                return schema
        cure = f"give the schema {name!r} of that ingest with --schema FILE, or repair with --from COPY"
        raise UsageError(f"{shown(self._dataset) / MANIFEST}: damaged, and with it the schema {name!r}", cure)

    def _candidates(self, name: str) -> Iterator[Schema]:
        """Yield schemas that may be the dataset's: the damage may be elsewhere in the manifest."""
        with contextlib.suppress(OSError, ValueError):
            match = _STORED_TOML.search((self._dataset / MANIFEST).read_bytes())
            if match:
                yield parse_schema(json.loads(match[1]), f"{name}.toml", is_stored=True)
        if self._schema is not None:
            yield schema_of(self._schema, self._recordings)
        try:
            yield schema_of(name, self._recordings)
        except VlapipeError:
            return


def _newest_readable(path: Path) -> Manifest | None:
    for number in reversed(generations(path)):
        with contextlib.suppress(VlapipeError):
            return Manifest.read(path, number)
    return None


def _first_recordings(path: Path, made_from: MadeFrom) -> set[str]:
    """Return the names of the recordings that the first ingest read: those that are known, without later ones."""
    before = MadeFrom.read(path)
    names = {*(before or made_from).episodes}
    for entry in entries(path):
        if entry.what == "append" and (before is None or entry.generation <= before.generation):
            names -= _recordings_of(entry, "added", "set aside") - _recordings_of(entry, "replaced", "removed")
    return names


def _recordings_of(entry: Entry, *changes: str) -> set[str]:
    """Return the recordings that an append read and from which it made these changes."""
    told: dict[str, str] = entry.read.get("episodes", {})
    return {unit_of(name, told) for each in changes for name in entry.changes.get(each, ())} & told.keys()


def _generations_of(path: Path, shards: list[str]) -> dict[str, tuple[Dataset, int]]:
    """Return for each shard a generation that has all of its episodes, and the shard's number there."""
    found: dict[str, tuple[Dataset, int]] = {}
    for number in generations(path):
        with contextlib.suppress(VlapipeError):  # this one's own file is damaged
            dataset = open_dataset(path, generation=number)
            columns = (shard_column(dataset.manifest.shards, name) for name in ("file", "stored"))
            for i, (file, stored) in enumerate(zip(*columns, strict=True)):
                if file in shards and stored is None:
                    found.setdefault(file, (dataset, i))
    return found


def _other_code(manifest: Manifest | None) -> str:
    before, now = None if manifest is None else manifest.vlapipe_version, vlapipe.__version__
    if before in (None, now):
        return "the packages that read, resize or compress may have other versions than at the ingest"
    return f"vlapipe {before} wrote the dataset, this is vlapipe {now}"


def _options_in(manifest: Manifest) -> dict[str, str]:
    """Return the options that the manifest states, in the form of the ingest's record."""
    made_with = manifest.made_with
    size, quality = made_with.get("image_size"), made_with.get("image_quality")
    return {
        "--where": made_with.get("where", _NOT_GIVEN),
        "--format": manifest.shard_format,
        "--codec": manifest.codec,
        "--image-size": "{}x{}".format(*size) if size else _NOT_GIVEN,
        "--image-storage": made_with.get("image_storage") or "recorded",
        "--image-quality": str(quality or JPEG_QUALITY),
    }


def _config_of(options: dict[str, str], source: Path, schema: str, workers: int | None) -> IngestConfig:
    def given(name: str) -> str | None:
        return None if options.get(name, _NOT_GIVEN) == _NOT_GIVEN else options[name]

    try:
        size = given("--image-size")
        width, _, height = (size or "").partition("x")
        return IngestConfig(
            source=source,
            single_episode=options.get("--dir") == "given",
            dry_run=True,
            schema=schema,
            where=given("--where"),
            shard_format=options["--format"],
            codec=options["--codec"],
            shard_bytes=int(options["--shard-size"].removesuffix(" bytes")),
            image_size=(int(width), int(height)) if size else None,
            image_storage=options["--image-storage"],
            image_quality=int(options["--image-quality"]),
            workers=workers,
        )
    except (KeyError, ValueError) as error:
        problem = f"{MADE_FROM}: the options of the ingest cannot be read from it: {error}"
        raise UsageError(problem, "repair it with --from COPY") from None

"""Reads and writes the manifest of a generation, and the tables that it names.

An ingest into a new folder ends by renaming ``manifest.json``; a later generation is made as ``generations`` says.

The files do not depend on the time, the machine or the number of workers: the same input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlapipe.pipeline.shards.format.atomic import try_lock, write_bytes
from vlapipe.pipeline.shards.format.parquet import parquet_bytes
from vlapipe.pipeline.shards.format.sealed_json import Seal, sealed_json
from vlapipe.pipeline.shards.manifest.findings_table import findings_bytes, read_findings
from vlapipe.pipeline.shards.manifest.gaps_table import table_bytes
from vlapipe.pipeline.shards.manifest.generations import MANIFEST, manifest_file
from vlapipe.pipeline.shards.manifest.parts import Part
from vlapipe.pipeline.shards.manifest.shards_table import ShardTables, shard_column
from vlapipe.pipeline.shards.stores.copies import copy_at, shown
from vlapipe.schemas.errors import DamageError, NewerFormatError, NotADatasetError
from vlapipe.schemas.schema import Channels
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = [
    "FORMAT_VERSION",
    "MADE_FROM",
    "MANIFEST",
    "REJECTS",
    "SHARD_FOLDER",
    "WORK_FOLDER",
    "Manifest",
    "episodes_bytes",
    "is_table",
    "write_generation",
    "write_named",
]

FORMAT_VERSION = 5  # newest version that this code reads; a dataset has the oldest version that can describe it
REJECTS = "rejects.jsonl"
SHARD_FOLDER = "shards"
WORK_FOLDER = ".ingest"  # ingest's lock and commit records; removed after the manifest is written
MADE_FROM = ".ingested.json"  # description of the raw data that ingest read
_TABLES = "episodes|shards|moments|gaps|findings|statistics|dropped|edits|rejects"
_TABLE = re.compile(rf"(?:{_TABLES})-[0-9a-f]{{8}}\.(?:parquet|jsonl?)")
_ROW_GROUP = 1 << 14  # in episodes, so that one of a million episodes is read without all others


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of a dataset. docs/shard-format.md describes each entry.

    ``schema``: name, sha256 and TOML text. ``streams``: by name, kind, clock, fields; storage and channels of a camera.
    ``shards``: file, bytes, sha256, episodes, arrays. ``episodes``: file, bytes, sha256 and count of the episodes
    table (no bytes if an older vlapipe wrote it). ``gaps``: the same of the table of gaps; ``None`` if an older vlapipe
    wrote the dataset without one. ``findings``: the same of the table of findings; ``None`` if there are none.
    ``statistics``: by ``<stream>/<field>``.

    A dataset's first generation has none of the following. ``generation``: its number. ``oldest``: the oldest one that
    was not removed. ``sums`` and ``moments``: the tables from which statistics are merged. ``dropped``: the table of
    episodes that are left out by an edit. ``edits``: the file of labels and splits that edits changed.

    A large dataset has ``parts`` in place of ``episodes``, ``gaps`` and ``moments``, and its shards are listed in
    tables; ``findings`` then has those of the dataset as a whole. ``all_parts`` is the same for both.
    """

    vlapipe_version: str
    schema: dict[str, str]
    shard_format: str
    codec: str
    streams: dict[str, dict[str, Any]]
    shards: Sequence[dict[str, Any]] = ()
    episodes: Mapping[str, Any] | None = None
    parts: list[dict[str, Any]] | None = None
    rejects: dict[str, Any]
    totals: dict[str, Any]
    statistics: dict[str, dict[str, Any]]
    made_with: dict[str, Any] = field(default_factory=dict)
    gaps: Mapping[str, Any] | None = None
    findings: Mapping[str, Any] | None = None
    moments: Mapping[str, Any] | None = None
    generation: int | None = None
    oldest: int | None = None
    sums: dict[str, Any] | None = None
    dropped: dict[str, Any] | None = None
    edits: dict[str, Any] | None = None

    @property
    def format_version(self) -> int:
        """The oldest version that can describe this dataset.

        5 if there are parts, or a shard holds an episode that the dataset does not, else 4 if a camera has PNG files or
        measures depth, else 3 if red and blue are exchanged in a camera's files, else 2 if a camera is stored as
        pixels, otherwise 1.
        """
        if self.parts is not None or any("stored" in shard for shard in self.shards):
            return 5
        if any(self.image_storage(name) in ("png", "mixed") or self.depth_unit(name) for name in self.streams):
            return 4
        if any(self.image_channels(name) == "bgr" for name in self.streams):
            return 3
        return 2 if any(self.image_storage(name) == "raw" for name in self.streams) else 1

    @property
    def cameras(self) -> list[str]:
        """Returns the names of all camera streams."""
        return [name for name, stream in self.streams.items() if stream["kind"] == "images"]

    def image_storage(self, camera: str) -> str:
        """Returns the storage of a camera's images: ``"jpeg"`` (also if an old manifest has no entry) or ``"raw"``.

        ``"png"`` means PNG files, some of them perhaps JPEG. ``"mixed"`` means pixels in some shards, files in others.
        """
        storage: str = self.streams[camera].get("storage", "jpeg")
        return storage

    def depth_unit(self, camera: str) -> str | None:
        """Returns the unit of a depth camera's numbers, such as ``"mm"``; ``None`` for a camera that sees colours."""
        unit: str | None = self.streams[camera].get("unit")
        return unit

    def image_channels(self, camera: str) -> Channels:
        """Returns the order of the colours in a camera's stored images: ``"rgb"`` (also without an entry) or "bgr"."""
        channels: Channels = self.streams[camera].get("channels", "rgb")
        return channels

    def to_json(self) -> bytes:
        """Returns the manifest as JSON that ends with its own digest. Equal manifests give equal bytes."""
        names = [name for name in self.__dataclass_fields__ if name != "shards" or self.parts is None]
        entries = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        document = {"format": "vlapipe", "format_version": self.format_version, **entries}
        return sealed_json(document, indent=1)

    @property
    def tables(self) -> list[Mapping[str, Any]]:
        """Returns the entries of the files beside the shards: file, sha256, count, and bytes in newer manifests."""
        of_parts = [table for part in self.all_parts for table in part.tables]
        of_dataset = (self.findings_of_dataset, self.rejects, self.sums, self.dropped, self.edits)
        return [*of_parts, *(table for table in of_dataset if table is not None)]

    @property
    def all_parts(self) -> list[Part]:
        """Returns the parts of the dataset, one at least."""
        if self.parts is not None:
            return Part.of_json(self.parts)
        assert self.episodes is not None
        return [
            Part(
                episodes=self.episodes,
                num_shards=len(self.shards),
                totals=self.totals,
                gaps=self.gaps,
                findings=self.findings,
                moments=self.moments,
            )
        ]

    @property
    def shard_files(self) -> list[str]:
        """Returns the file of each shard."""
        return shard_column(self.shards, "file")

    @property
    def findings_of_dataset(self) -> Mapping[str, Any] | None:
        """Returns the table of findings about the dataset as a whole, if it is apart from the others."""
        return self.findings if self.parts is not None else None

    def read_findings(self, folder: Path) -> list[dict[str, Any]]:
        """Read what ingest found in the episodes that it kept, as plain data; see ``findings_table``.

        Raises:
            DamageError: a table is missing or altered.
        """
        return read_findings(folder, self.all_parts, self.findings_of_dataset)

    def read_rejects(self, folder: Path) -> list[dict[str, Any]]:
        """Read the episodes that were set aside, from the file that this manifest of the dataset in ``folder`` names.

        Raises:
            DamageError: the file is missing or altered.
        """
        path = folder / self.rejects["file"]
        try:
            return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise_if_stopped(error, path)
            raise DamageError(f"{path}: cannot be read: {error}", "ingest again") from None

    @classmethod
    def read(cls, folder: Path, generation: int | None = None) -> Manifest:
        """Read a dataset's manifest, of the newest generation unless another one is asked for.

        Raises:
            NotADatasetError: there is no manifest, or the file is not a vlapipe manifest.
            NewerFormatError: a newer vlapipe wrote the manifest.
            DamageError: the manifest was altered after it was written.
            UsageError: there is no such generation.
        """
        return cls.read_file(manifest_file(folder, generation), folder)

    @classmethod
    def read_file(cls, path: Path, folder: Path) -> Manifest:
        """Read the manifest of the dataset in ``folder`` from this file. See ``read``."""
        try:
            data = path.read_bytes()
            document = json.loads(data)
        except FileNotFoundError:
            _refuse_unfinished(folder)
            raise NotADatasetError(
                f"{shown(folder)}: not a vlapipe dataset: no {MANIFEST} in it",
                "give the folder that vlapipe ingest --out wrote" if folder.is_dir() else "no such folder",
            ) from None
        except (OSError, ValueError) as error:
            raise_if_stopped(error, path)
            if isinstance(error, ValueError) and Seal.of(data).is_broken:  # the altered byte broke the JSON too
                raise _altered(path) from None
            raise NotADatasetError(
                f"{path}: cannot be read: {error}", "run the same vlapipe ingest command again"
            ) from None
        if not isinstance(document, dict) or document.get("format") != "vlapipe":
            raise NotADatasetError(f"{path}: not a vlapipe manifest", "give the folder that vlapipe ingest wrote")
        seal = Seal.of(data)
        if seal.is_broken:
            raise _altered(path)
        version = document.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            cure = "update vlapipe"
            raise NewerFormatError(f"{path}: format version {version}, this vlapipe reads up to {FORMAT_VERSION}", cure)
        known = set(cls.__dataclass_fields__)
        if seal.stated is None and document.keys() - known - {"format", "format_version"}:
            raise _altered(path)  # only versions that write the digest have entries that this one does not know
        try:
            manifest = cls(**{key: value for key, value in document.items() if key in known})
            tables = [part["shards"] for part in manifest.parts or ()]
            copy = copy_at(folder)
            if copy and (manifest.parts is not None or manifest.episodes is not None):
                copy.take([table["file"] for table in manifest.tables if table["file"] != REJECTS])
                if manifest.rejects["file"] == REJECTS:
                    copy.take_once([REJECTS])
                else:
                    copy.take([manifest.rejects["file"]])
        except (TypeError, KeyError) as error:
            raise NotADatasetError(f"{path}: incomplete: {error}", "ingest again") from None
        if manifest.parts is not None:
            return replace(manifest, shards=ShardTables(folder, tables))
        if "shards" not in document or manifest.episodes is None:
            raise NotADatasetError(f"{path}: incomplete: no list of shards or of episodes", "ingest again")
        return manifest


def _altered(path: Path) -> DamageError:
    cure = "vlapipe repair makes it again; an edit by hand must remove its last entry, sha256"
    return DamageError(f"{path}: its bytes differ from those that were written", cure)


def _refuse_unfinished(folder: Path) -> None:
    """Raise a NotADatasetError if the folder has an unfinished ingest; return if the folder has no trace of ingest."""
    if not (folder / WORK_FOLDER).is_dir() and not (folder / SHARD_FOLDER).is_dir():
        return
    try:
        with (folder / WORK_FOLDER / "lock").open("rb") as lock:
            is_writing = try_lock(lock.fileno()) is False
    except OSError:
        is_writing = False
    if is_writing:
        raise NotADatasetError(f"{folder}: unfinished: an ingest is writing there", "wait for it")
    cure = "run the same vlapipe ingest command again"
    if not (folder / WORK_FOLDER).is_dir() and not (folder / MADE_FROM).is_file():
        cure = "copy it again with its hidden files, or run the same vlapipe ingest command with a new --out"
    raise NotADatasetError(f"{folder}: unfinished: it has shards and no {MANIFEST}", cure)


def write_generation(
    folder: Path,
    manifest: dict[str, Any],
    episodes: pa.Table | None,
    rejects: list[dict[str, Any]],
    gaps: pa.Table | None = None,
    findings: pa.Table | None = None,
) -> None:
    """Write the tables and the rejects, then the manifest that names these files.

    Args:
        folder: the dataset's folder, which already has the shards.
        manifest: the manifest's entries except ``episodes``, ``gaps``, ``findings`` and ``rejects``. If it has
            ``parts``, their tables are written, and so is that of ``findings``.
        episodes: the episodes table, one row an episode; ``None`` if there are parts.
        rejects: one entry for each episode that was set aside. Each entry becomes one line.
        gaps: the table of gaps, one row a gap. If ``None``, readers search the shards for gaps.
        findings: the table of findings of kept episodes. An empty one is not written.
    """
    entries = dict(manifest)
    if manifest.get("parts") is not None:
        entries["shards"] = ShardTables(folder, [part["shards"] for part in manifest["parts"]])
    else:
        assert episodes is not None
        entries["episodes"] = write_named(folder, "episodes", episodes_bytes(episodes), episodes.num_rows)
        entries["gaps"] = entries["findings"] = None
        if gaps is not None:
            entries["gaps"] = write_named(folder, "gaps", table_bytes(gaps), gaps.num_rows)
        if findings is not None and findings.num_rows:
            entries["findings"] = write_named(folder, "findings", findings_bytes(findings), findings.num_rows)
    lines = "".join(json.dumps(reject) + "\n" for reject in rejects).encode()
    write_bytes(folder / REJECTS, lines)
    digest = hashlib.sha256(lines).hexdigest()
    entries["rejects"] = {"file": REJECTS, "bytes": len(lines), "sha256": digest, "count": len(rejects)}
    write_bytes(folder / MANIFEST, Manifest(**entries).to_json())


def is_table(name: str) -> bool:
    """Returns whether a file has the name of a table with its digest, which only vlapipe gives."""
    return _TABLE.fullmatch(name) is not None


def episodes_bytes(table: pa.Table) -> bytes:
    """Returns an episodes table as a Parquet file."""
    return parquet_bytes(table, row_group_size=_ROW_GROUP)


def write_named(
    folder: Path, name: str, data: bytes, count: int, suffix: str = "parquet", scratch: Path | None = None
) -> dict[str, Any]:
    """Write a file under a name that contains its digest. Returns the file's entry for the manifest."""
    sha256 = hashlib.sha256(data).hexdigest()
    file = f"{name}-{sha256[:8]}.{suffix}"
    write_bytes(folder / file, data, folder=scratch)
    return {"file": file, "bytes": len(data), "sha256": sha256, "count": count}

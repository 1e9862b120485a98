"""Reads and writes ``manifest.json`` and the episodes table it names; renaming the manifest is the one commit point.

Nothing in either file depends on when, where or by how many workers it was made: same input, same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlapipe.pipeline.shards.format.atomic import try_lock, write_bytes
from vlapipe.pipeline.shards.manifest.gaps_table import table_bytes
from vlapipe.schemas.errors import NewerFormatError, NotADatasetError
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = [
    "FORMAT_VERSION",
    "MADE_FROM",
    "MANIFEST",
    "REJECTS",
    "SHARD_FOLDER",
    "WORK_FOLDER",
    "Manifest",
    "write_generation",
]

FORMAT_VERSION = 2  # the newest that is read; a dataset carries the oldest that can hold it
MANIFEST = "manifest.json"
REJECTS = "rejects.jsonl"
SHARD_FOLDER = "shards"
WORK_FOLDER = ".ingest"  # ingest's lock and commit records; gone once the manifest stands
MADE_FROM = ".ingested.json"  # what ingest made the dataset from
_ROW_GROUP = 1 << 14  # episodes: one of a million is then read without the others


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a dataset holds; see docs/shard-format.md for each entry.

    ``schema``: name, sha256 and TOML text. ``streams``: by name, kind, clock, fields, and of a camera its storage.
    ``shards``: file, bytes, sha256, episodes, arrays. ``episodes``: file, sha256 and count of the table.
    ``gaps``: file, sha256 and count of the table of gaps; ``None`` where a dataset was made before there was one.
    ``statistics``: by ``<stream>/<field>``.
    """

    vlapipe_version: str
    schema: dict[str, str]
    shard_format: str
    codec: str
    streams: dict[str, dict[str, Any]]
    shards: list[dict[str, Any]]
    episodes: dict[str, Any]
    rejects: dict[str, Any]
    totals: dict[str, Any]
    statistics: dict[str, dict[str, Any]]
    made_with: dict[str, Any] = field(default_factory=dict)
    gaps: dict[str, Any] | None = None

    @property
    def format_version(self) -> int:
        """The oldest version that can hold this dataset: 1, or 2 where a camera is stored as pixels."""
        return 2 if any(self.image_storage(name) == "raw" for name in self.streams) else 1

    def image_storage(self, camera: str) -> str:
        """How a camera's images are stored, ``"jpeg"`` or ``"raw"``; once there was no choice, and nothing said so."""
        storage: str = self.streams[camera].get("storage", "jpeg")
        return storage

    def to_json(self) -> bytes:
        """Canonical text: the same manifest gives the same bytes."""
        entries = {key: value for key, value in vars(self).items() if value is not None}
        document = {"format": "vlapipe", "format_version": self.format_version, **entries}
        return (json.dumps(document, indent=1) + "\n").encode()

    def damage(self, folder: Path) -> list[dict[str, Any]]:
        """The files that are missing below ``folder``, and shards of another size; reads no content.

        Each has ``file``, ``expected_bytes`` and ``found_bytes``, ``None`` for a file that is missing (found) or may
        have any size (expected).
        """
        tables = [table for table in (self.episodes, self.gaps, self.rejects) if table is not None]
        expected: dict[str, int | None] = {table["file"]: None for table in tables}
        expected |= {shard["file"]: shard["bytes"] for shard in self.shards}
        damaged = []
        for file, size in expected.items():
            try:
                found: int | None = (folder / file).stat().st_size
            except FileNotFoundError:
                found = None
            if found is None or size not in (None, found):
                damaged.append({"file": file, "expected_bytes": size, "found_bytes": found})
        return damaged

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a dataset's manifest.

        Raises:
            NotADatasetError: there is none, or it is not one of ours.
            NewerFormatError: it was made by a newer vlapipe.
        """
        path = folder / MANIFEST
        try:
            document = json.loads(path.read_bytes())
        except FileNotFoundError:
            _refuse_unfinished(folder)
            raise NotADatasetError(
                f"{folder}: not a vlapipe dataset: no {MANIFEST} in it",
                "give the folder that vlapipe ingest --out wrote" if folder.is_dir() else "no such folder",
            ) from None
        except (OSError, ValueError) as error:
            raise_if_stopped(error, path)
            raise NotADatasetError(f"{path}: cannot be read: {error}", "ingest again") from None
        if not isinstance(document, dict) or document.get("format") != "vlapipe":
            raise NotADatasetError(f"{path}: not a vlapipe manifest", "give the folder that vlapipe ingest wrote")
        version = document.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            cure = "update vlapipe"
            raise NewerFormatError(f"{path}: format version {version}, this vlapipe reads up to {FORMAT_VERSION}", cure)
        known = set(cls.__dataclass_fields__)
        try:
            return cls(**{key: value for key, value in document.items() if key in known})
        except TypeError as error:
            raise NotADatasetError(f"{path}: incomplete: {error}", "ingest again") from None


def _refuse_unfinished(folder: Path) -> None:
    """Tell a folder that an ingest has begun, and not finished, from one that is no dataset at all."""
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
    episodes: pa.Table,
    rejects: list[dict[str, Any]],
    gaps: pa.Table | None = None,
) -> None:
    """Write the episodes table, the table of gaps and the rejects, then the manifest that names them.

    Args:
        folder: the dataset; its shards are already there.
        manifest: the manifest's entries but ``episodes``, ``gaps`` and ``rejects``.
        episodes: one row an episode.
        rejects: one entry an episode that was set aside, written a line each.
        gaps: one row a gap of a stream beside the anchor; without it readers look for them in the shards.
    """
    buffer = io.BytesIO()
    pq.write_table(episodes, buffer, compression="zstd", row_group_size=_ROW_GROUP)
    named = {"episodes": _write_table(folder, "episodes", buffer.getvalue(), episodes.num_rows)}
    if gaps is not None:
        named["gaps"] = _write_table(folder, "gaps", table_bytes(gaps), gaps.num_rows)
    lines = "".join(json.dumps(reject) + "\n" for reject in rejects).encode()
    write_bytes(folder / REJECTS, lines)
    named["rejects"] = {"file": REJECTS, "sha256": hashlib.sha256(lines).hexdigest(), "count": len(rejects)}
    write_bytes(folder / MANIFEST, Manifest(**{**manifest, "gaps": None, **named}).to_json())


def _write_table(folder: Path, name: str, table: bytes, count: int) -> dict[str, Any]:
    """Write a table under a name that carries its digest; returns what the manifest says of it."""
    sha256 = hashlib.sha256(table).hexdigest()
    file = f"{name}-{sha256[:8]}.parquet"
    write_bytes(folder / file, table)
    return {"file": file, "sha256": sha256, "count": count}

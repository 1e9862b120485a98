"""Reads what a recorder wrote down about an episode: its JSON file, and its entry in the dataset's table of metadata.

The metadata of an episode is one JSON object. Where both sources have a key, the episode's own file wins.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from vlapipe.pipeline.discover.discovery import Discovery, RawEpisode
from vlapipe.pipeline.discover.listing import RawFile
from vlapipe.pipeline.discover.packed import Packed
from vlapipe.pipeline.read.archives import ArchiveError, json_in_zip
from vlapipe.pipeline.read.containers.container import attributes_of, open_container
from vlapipe.pipeline.read.text import read_small
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import Schema
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["digest_of_table", "metadata_value", "read_metadata", "with_entries_of_table"]

_ID_KEYS = ("id", "episode_id", "episode", "episode_name", "folder", "name", "uuid")


def read_metadata(root: Path, raw: RawEpisode, findings: Findings) -> dict[str, Any]:
    """Returns the metadata of an episode; without the file's keys if the file cannot be read."""
    own = _read_file(root, raw.metadata, findings) if raw.metadata else {}
    return {**_attributes(root, raw), **raw.entry, **own}


def _attributes(root: Path, raw: RawEpisode) -> dict[str, Any]:
    """Returns the attributes in the anchor's container. If it cannot be opened, reading its arrays reports that."""
    if raw.container is None:
        return {}
    with open_container(root, [raw.container.path], Findings(), hashed=False) as opened:
        try:
            return {} if opened is None else attributes_of(opened.arrays, raw.group or "")
        except (OSError, ValueError, RuntimeError) as error:
            raise_if_stopped(error, root / raw.container.path)
            return {}


def _read_file(root: Path, file: RawFile, findings: Findings) -> dict[str, Any]:
    is_archive = file.path.lower().endswith(".zip")
    try:
        metadata = json.loads(json_in_zip(root / file.path) if is_archive else read_small(root / file.path))
    except json.JSONDecodeError as error:
        findings.add("metadata.unreadable", file.path, line=error.lineno, expected="a JSON object", found=error.msg)
        return {}
    except ArchiveError as error:
        findings.add("metadata.unreadable", file.path, expected="a ZIP with one JSON file", found=str(error))
        return {}
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, or a number of thousands of digits
        raise_if_stopped(error, root / file.path)
        findings.add("metadata.unreadable", file.path, expected="a JSON object", found=str(error))
        return {}
    if not isinstance(metadata, dict):
        found = type(metadata).__name__
        findings.add("metadata.unreadable", file.path, line=1, expected="a JSON object", found=found)
        return {}
    return metadata


def metadata_value(metadata: Mapping[str, Any], key: str) -> Any:
    """Returns the value of a key, which may lead into nested tables as ``a.b``; ``None`` if there is none."""
    if key in metadata:
        return metadata[key]
    head, _, rest = key.partition(".")
    while rest:
        inner = metadata.get(head)
        if isinstance(inner, dict):
            found = metadata_value(inner, rest)
            if found is not None:
                return found
        more, _, rest = rest.partition(".")
        head = f"{head}.{more}"
    return None


def with_entries_of_table(discovery: Discovery, schema: Schema) -> Discovery:
    """Returns the episodes with their entries in the schema's ``metadata_table``, if it names one.

    Raises:
        UsageError: there is no such file, the file has no entries, or an entry fits no episode or several.
    """
    name = schema.episodes.metadata_table
    if name is None:
        return discovery
    what = f"metadata_table {name}"
    path = discovery.root / name
    try:
        entries = list(_entries(path.read_text(encoding="utf-8-sig"), path.suffix.lower(), what))
    except OSError as error:
        raise_if_stopped(error, path)
        raise UsageError(f"{what}: cannot be read: {error.strerror}", f"put it into {discovery.root}") from None
    except (ValueError, csv.Error, RecursionError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{what}: cannot be read: {error}", "a .csv, .jsonl or .json file in UTF-8") from None
    by_name = _by_name(discovery)
    found: dict[str, dict[str, Any]] = {}
    strangers = []
    for key, entry in entries:
        ids = by_name.get(key.strip("/"), [])
        if len(ids) > 1:
            raise UsageError(f"{what}: {key!r} fits {len(ids)} episodes, such as {ids[0]}", "give the whole id")
        if not ids:
            strangers.append(key)
        elif ids[0] in found:
            raise UsageError(f"{what}: has two entries for {ids[0]}", "keep one of them")
        else:
            found[ids[0]] = entry
    if not found:
        problem = f"{what}: none of its {len(entries)} entries names an episode"
        first = f"an entry names {strangers[0]!r}, an episode is called " if strangers else "an episode is called "
        raise UsageError(problem, f"{first}{discovery.episodes[0].id!r}")
    return replace(
        discovery,
        episodes=Packed(replace(raw, entry=found.get(raw.id, {})) for raw in discovery.episodes),
    )


def digest_of_table(discovery: Discovery, schema: Schema) -> str | None:
    """Returns a digest of the schema's ``metadata_table``; ``None`` if there is none."""
    name = schema.episodes.metadata_table
    path = discovery.root / (name or "")
    return sha256(path.read_bytes()).hexdigest()[:16] if name and path.is_file() else None


def _by_name(discovery: Discovery) -> dict[str, list[str]]:
    """Returns the ids of the episodes that each name may mean: an id, or the last parts of an id."""
    by_name: dict[str, list[str]] = {}
    ids = {raw.id for raw in discovery.episodes}
    for name in ids:
        parts = PurePosixPath(name).parts
        for start in range(len(parts)):
            by_name.setdefault("/".join(parts[start:]), []).append(name)
    return {name: [name] if name in ids else sorted(of_name) for name, of_name in by_name.items()}


def _entries(text: str, suffix: str, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of an episode and its metadata, entry by entry."""
    if suffix == ".json":
        table = json.loads(text)
        if isinstance(table, dict):
            for key, value in table.items():
                yield key, value if isinstance(value, dict) else {"instruction": value}
            return
        lines = table if isinstance(table, list) else [table]
    elif suffix in (".jsonl", ".ndjson"):
        lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    else:
        lines = _rows(text, what)
    for number, entry in enumerate(lines, start=1):
        if not isinstance(entry, dict):
            raise UsageError(f"{what}: entry {number}: expected a table, found {entry!r:.60}")
        key = next((name for name in _ID_KEYS if name in entry), None)
        if key is None:
            cure = "call one of them id"
            raise UsageError(f"{what}: entry {number}: no key that names the episode: {', '.join(entry)}", cure)
        yield str(entry[key]), {name: value for name, value in entry.items() if name != key}


def _rows(text: str, what: str) -> list[dict[str, Any]]:
    """Returns the rows of a CSV file. A column of numbers, or of true and false, has such values; empty cells none."""
    header, *lines = [row for row in csv.reader(io.StringIO(text), strict=True) if row] or [[]]
    for number, line in enumerate(lines, start=1):
        if len(line) != len(header):
            problem = f"{what}: row {number}: expected {len(header)} cells as in the header, found {len(line)}"
            raise UsageError(problem, "quote cells that hold a comma")
    columns = {name.strip(): [line[i].strip() for line in lines] for i, name in enumerate(header)}
    typed = {name: cells if name in _ID_KEYS else _typed(cells) for name, cells in columns.items()}
    return [{name: cells[i] for name, cells in typed.items()} for i in range(len(lines))]


def _typed(cells: list[str]) -> list[Any]:
    for kind in (_truth, _whole, float):
        try:
            return [kind(cell) if cell else None for cell in cells]
        except ValueError:
            continue
    return [cell or None for cell in cells]


def _truth(cell: str) -> bool:
    return bool(("false", "true").index(cell.lower()))


def _whole(cell: str) -> int:
    if str(int(cell)) != cell:  # 007 and 1_000 are names
        raise ValueError
    return int(cell)

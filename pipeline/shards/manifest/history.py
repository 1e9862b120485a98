"""The history of a dataset: for each generation one entry that says who made it, when, where and by which command.

An entry is a file ``.log/000002-<digest8>.json``; the digest is that of the generation's manifest. Entries depend on
time and place, so they are no part of the generation itself, and no reader needs them. An entry is written before its
generation is made. One whose generation was made by another command, or never, counts for nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import re
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlapipe.pipeline.shards.format.atomic import write_bytes
from vlapipe.pipeline.shards.format.sealed_json import Seal, sealed_json
from vlapipe.pipeline.shards.manifest.generations import GENERATIONS, MANIFEST, generations, manifest_file
from vlapipe.pipeline.shards.stores.copies import copy_at, one_look, remove_files
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = [
    "HISTORY",
    "Entry",
    "entries",
    "history_files",
    "remember_first",
    "sweep_entries",
    "who_and_where",
    "write_entry",
]

HISTORY = ".log"
_FILE = re.compile(r"(\d{6,})-([0-9a-f]{8})\.json")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One generation. What is not known is empty.

    ``changes`` has what changed, as counts and lists of episodes by name. ``read`` has, for an ingest, the digest of
    the files (sizes, dates) of each episode that was read, and the episodes that are gone.
    """

    generation: int
    what: str
    when: str = ""
    user: str = ""
    host: str = ""
    command: list[str] = field(default_factory=list)
    vlapipe_version: str = ""
    note: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    read: dict[str, Any] = field(default_factory=dict)


def who_and_where() -> dict[str, Any]:
    """Returns the time, user and host of now, as an entry has them."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"when": now, "user": _name_of(os.getuid()), "host": socket.gethostname()}


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # in a container the number may have no name
        return str(uid)


def write_entry(folder: Path, entry: Entry, manifest: bytes, scratch: Path) -> Path:
    """Write the entry of a generation that is about to be made. ``manifest`` is the generation's file."""
    name = f"{HISTORY}/{entry.generation:06d}-{hashlib.sha256(manifest).hexdigest()[:8]}.json"
    data = sealed_json(vars(entry), indent=1)
    copy = copy_at(folder)
    if copy:
        copy.put(name, data)
    else:
        (folder / HISTORY).mkdir(exist_ok=True)
        write_bytes(folder / name, data, folder=scratch)
    return folder / name


def remember_first(folder: Path, scratch: Path) -> None:
    """Write the entry of the first generation, if it has none, from what its file tells. Call it before the second."""
    if not any(number == 1 for number, _, _ in history_files(folder)) and 1 in (generations(folder) or [1]):
        path = manifest_file(folder, 1)
        write_entry(folder, _from_file(folder, 1), path.read_bytes(), scratch)


def history_files(folder: Path) -> list[tuple[int, str, Path]]:
    """Returns number, digest and path of each entry's file, also of those that count for nothing."""
    copy = copy_at(folder)
    if copy:
        copy.take_folder(HISTORY)
    if not (folder / HISTORY).is_dir():
        return []
    found = [(match, path) for path in (folder / HISTORY).iterdir() if (match := _FILE.fullmatch(path.name))]
    return sorted((int(match[1]), match[2], path) for match, path in found)


def sweep_entries(folder: Path) -> None:
    """Remove the entries of generations that other commands have made."""
    there = generations(folder)
    for number, path in _not_made(folder):
        if there and number <= there[-1]:
            remove_files(folder, [path.relative_to(folder).as_posix()])


def _not_made(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yields the entries whose generation is not made yet, or was made by another command.

    The winner's entry is always there. So an only one is the winner's, and the generation need not be read.
    """
    there = generations(folder)
    files = history_files(folder)
    counts = Counter(number for number, _, _ in files)
    for number, digest, path in files:
        if number > (there[-1] if there else 1):
            yield number, path
        elif counts[number] > 1 and number in there:
            made = hashlib.sha256(manifest_file(folder, number).read_bytes()).hexdigest()[:8]
            if made != digest:
                yield number, path


@one_look()
def entries(folder: Path) -> list[Entry]:
    """Returns the entries of all generations up to the newest one, in order, also of those that gc has removed.

    Of a generation without an entry, as of the first one, only what its file tells is known: its date and its owner.
    """
    there = generations(folder) or [1]
    left_out = {path for _, path in _not_made(folder)}
    found = {number: _read(path) for number, _, path in history_files(folder) if path not in left_out}
    every = {1, *found, *there}
    return [found.get(number) or _from_file(folder, number) for number in sorted(every)]


def _read(path: Path) -> Entry | None:
    try:
        data = path.read_bytes()
        document = json.loads(data)
        known = {name: document[name] for name in Entry.__dataclass_fields__ if name in document}
        return None if Seal.of(data).is_broken else Entry(**known)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise_if_stopped(error, path)
        return None  # verify reports the damage


def _from_file(folder: Path, number: int) -> Entry:
    what = "ingest" if number == 1 else ""
    there = generations(folder)
    if number > 1 and number not in there:
        return Entry(generation=number, what=what)
    path = manifest_file(folder, number) if number in there else folder / MANIFEST
    try:
        status = path.stat()
        document: Mapping[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise_if_stopped(error, path)
        return Entry(generation=number, what=what)
    if (document.get("generation") or 1) != number:
        return Entry(generation=number, what=what)
    copy = copy_at(folder)
    made_s = status.st_mtime
    if copy and (stored := copy.files(GENERATIONS).get(path.relative_to(folder).as_posix())):
        made_s = stored.modified_s
    when = datetime.fromtimestamp(made_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Entry(
        generation=number,
        what=what,
        when=when,
        user="" if copy else _name_of(status.st_uid),
        vlapipe_version=str(document.get("vlapipe_version", "")),
        changes={"added": document.get("totals", {}).get("episodes", 0)} if number == 1 else {},
    )

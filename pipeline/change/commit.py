"""Makes the next generation of a dataset. Of several commands that try, one wins; the others begin again on top of it.

The steps, in their order: tables of the next generation, its entry in the history, a file for the first generation,
the generation's own file (the commit), ``manifest.json``, and the removal of entries that lost.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vlapipe
from vlapipe.pipeline.change.contents import Contents
from vlapipe.pipeline.change.work_folder import UNTIDY
from vlapipe.pipeline.shards.dataset import Dataset, open_dataset
from vlapipe.pipeline.shards.format.atomic import fsync_folder, whole_file
from vlapipe.pipeline.shards.manifest.generations import claim, keep_first, publish
from vlapipe.pipeline.shards.manifest.history import Entry, remember_first, sweep_entries, who_and_where, write_entry
from vlapipe.pipeline.shards.manifest.manifest import SHARD_FOLDER, Manifest
from vlapipe.pipeline.shards.stores.copies import copy_at, look_again
from vlapipe.pipeline.shards.stores.upload import upload

__all__ = ["Said", "commit", "commit_manifest", "place_shards"]


@dataclass(frozen=True, kw_only=True)
class Said:
    """What the history says of a change: its kind, note, what changed, and which recordings were read."""

    what: str
    note: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    read: dict[str, Any] = field(default_factory=dict)


Change = Callable[[Contents], Said | None]


def commit(path: Path, work: Path, change: Change) -> tuple[Dataset, Said] | None:
    """Apply a change to the newest generation until it is committed. Returns the new generation and what it says.

    ``change`` edits the contents, and is called again if another command was faster. It returns ``None`` if nothing is
    left to do; then ``None`` is returned.
    """
    while True:
        look_again()
        base = open_dataset(path)
        contents = Contents(base)
        said = change(contents)
        if said is None:
            publish(path, work)
            return None
        manifest = contents.write(path, work, work / "cache")
        is_ours = commit_manifest(path, work, manifest, said)
        shutil.rmtree(work / "cache", ignore_errors=True)
        if is_ours:
            return open_dataset(path, generation=manifest.generation), said
        (work.parent / UNTIDY).touch()  # the tables of this try are listed nowhere; who leaves last removes them


def commit_manifest(path: Path, work: Path, manifest: Manifest, said: Said) -> bool:
    """Make this generation, whose tables and shards are in place. Returns whether no other command was faster."""
    assert manifest.generation is not None
    data = manifest.to_json()
    copy = copy_at(path)
    if copy:
        listed = {table["file"] for table in Manifest.read(path).tables}
        upload(copy.store, [path / table["file"] for table in manifest.tables if table["file"] not in listed])
    entry = Entry(
        generation=manifest.generation,
        what=said.what,
        note=said.note,
        changes=said.changes,
        read=said.read,
        command=[os.fsdecode(each) for each in sys.argv],
        vlapipe_version=vlapipe.__version__,
        **who_and_where(),
    )
    remember_first(path, work)
    write_entry(path, entry, data, work)
    keep_first(path)
    is_ours = claim(path, manifest.generation, data, work)
    if is_ours:
        publish(path, work)
    sweep_entries(path)
    return is_ours


def place_shards(path: Path, made: Path) -> None:
    """Give new shards their place. The work folder keeps them too, in case this command is killed before it commits."""
    there = made.iterdir()  # glob would pass over a folder that cannot be read, and the commit would lack its shards
    shards = sorted(each for each in there if each.name.startswith("shard-"))
    copy = copy_at(path)
    if copy:
        upload(copy.store, shards, SHARD_FOLDER)
        return
    for shard in shards:
        target = path / SHARD_FOLDER / shard.name
        if target.exists():
            continue
        try:
            os.link(shard, target)
        except FileExistsError:
            continue
        except OSError:  # no hard links here
            with whole_file(target, folder=made) as temporary:
                shutil.copyfile(shard, temporary)
                temporary.chmod(0o444)
    fsync_folder(path / SHARD_FOLDER)

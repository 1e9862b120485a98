"""Makes the tables of a generation again: the change that made it is made once more, of the generation before.

The history says which change that was. Nothing is written into the dataset: the change works in a folder in which the
tables and shards of the dataset are linked, or in another local copy of its store.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Set
from dataclasses import replace
from pathlib import Path

import vlapipe
from vlapipe.pipeline.change.append import Read, add_to
from vlapipe.pipeline.change.compact import joined_between
from vlapipe.pipeline.change.contents import Contents
from vlapipe.pipeline.change.edit import edit_of, make_edit
from vlapipe.pipeline.shards.dataset import Dataset, open_dataset
from vlapipe.pipeline.shards.format.digest import file_sha256
from vlapipe.pipeline.shards.manifest.generations import generation_file, generations
from vlapipe.pipeline.shards.manifest.history import Entry, entries
from vlapipe.pipeline.shards.manifest.manifest import WORK_FOLDER, Manifest
from vlapipe.pipeline.shards.stores.copies import copy_at, folder_of
from vlapipe.schemas.errors import DamageError, VlapipeError

__all__ = ["CannotMakeError", "first_listed", "make_again"]

_NUMBER = re.compile(r"generations/(\d{6,})\.json")


class CannotMakeError(VlapipeError):
    """A generation cannot be made again; the problem says why."""


def first_listed(path: Path, files: Set[str]) -> dict[int, set[str]]:
    """Return which of these files belong to which generation: its own file, and those that it is the first to list."""
    found: dict[int, set[str]] = {}
    left = set(files)
    for number in generations(path):
        own = {generation_file(number)}
        try:
            manifest = Manifest.read(path, number)
            own |= {table["file"] for table in manifest.tables}
        except VlapipeError:  # its file is damaged, so nobody knows what it lists
            pass
        if own & left:
            found[number] = own & left
            left -= own
    for file in left:
        if match := _NUMBER.fullmatch(file):
            found.setdefault(int(match[1]), set()).add(file)
    return dict(sorted(found.items()))


def make_again(
    path: Path,
    number: int,
    damaged: Set[str],
    folder: Path,
    read: Callable[[Dataset, Entry, int | None], tuple[Read, set[str]]],
) -> Path:
    """Make a generation again, from the second one on. Returns a folder that has its tables and its own file.

    Args:
        path: the dataset.
        number: of the generation.
        damaged: files of the dataset that cannot be used.
        folder: an empty folder on the same disk.
        read: reads the recordings of an append again, given the generation before, the history's entry and the number
            of the first shard, if it is known; returns what was read, and the names of all recordings.

    Raises:
        CannotMakeError: what is needed is gone or damaged, or the history does not tell enough.
    """
    before = number - 1
    if before not in generations(path):
        raise CannotMakeError(f"generation {number} was made from generation {before}, which is gone")
    entry = next((each for each in entries(path) if each.generation == number), None)
    what = entry.what if entry else ""
    if entry is None or not what:
        raise CannotMakeError(f"the history does not say how generation {number} was made")
    linked = _linked(path, damaged, folder)
    try:
        base = open_dataset(linked, generation=before)
    except DamageError:
        raise CannotMakeError(f"generation {before}, from which it was made, is damaged too") from None
    for table in base.manifest.tables:
        if table["file"] in damaged or file_sha256(linked / table["file"]) != table["sha256"]:
            raise CannotMakeError(f"it was made from {table['file']}, which is damaged too")
    after = _known_after(path, number)
    is_own = after is not None and after.generation == number
    contents = Contents(base)
    asked = edit_of(what, entry.changes)
    if what == "append":
        # Usually the next number; another one if another command was faster than this append.
        ours = set(_shard_files(after if is_own else None)) - set(_shard_files(base.manifest))
        numbers = [int(name.split("-")[1]) for name in ours]
        told, recordings = read(base, entry, min(numbers, default=None))
        add_to(contents, told, recordings)
    elif asked is not None:
        make_edit(contents, asked[1], asked[0])
    elif what == "compact" and after is not None:
        contents.join(joined_between(base, after))
    elif what != "gc":
        needs = {"merge": "the other dataset", "compact": "the file of a later generation"}.get(what, "a copy")
        raise CannotMakeError(f"generation {number} was made by vlapipe {what}, which needs {needs}")
    if what == "gc":
        oldest = after.oldest if after is not None else generations(path)[0]
        made = replace(base.manifest, generation=number, oldest=oldest)
    else:
        work = folder / "work"
        work.mkdir()
        made = contents.write(linked, work, work / "cache")
        made = replace(made, vlapipe_version=entry.vlapipe_version or vlapipe.__version__)
    target = folder / "own" / generation_file(number)
    target.parent.mkdir(parents=True)
    target.write_bytes(made.to_json())
    for name in {table["file"] for table in made.tables} & damaged:  # equal tables of two parts are one file
        if not (linked / name).is_symlink():
            (linked / name).rename(folder / "own" / name)
    return folder / "own"


def _linked(path: Path, damaged: Set[str], folder: Path) -> Path:
    """Return a folder that has what the dataset has, but for the damaged tables, and that can be written into."""
    copy = copy_at(path)
    if copy:
        return folder_of(copy.store.address, folder)
    linked = folder / "linked"
    linked.mkdir(parents=True)
    for entry in path.absolute().iterdir():
        if entry.name not in damaged and entry.name != WORK_FOLDER:
            (linked / entry.name).symlink_to(entry)
    return linked


def _known_after(path: Path, number: int) -> Manifest | None:
    """Return the generation's manifest, or if it is damaged the next one, which lists the same new shards mostly."""
    for each in generations(path):
        if each >= number:
            with contextlib.suppress(VlapipeError):
                return Manifest.read(path, each)
    return None


def _shard_files(manifest: Manifest | None) -> list[str]:
    try:
        return manifest.shard_files if manifest is not None else []
    except DamageError:  # of a table of shards
        return []

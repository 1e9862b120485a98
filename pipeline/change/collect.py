"""Removes old generations, and the files that only they need. The removal is itself a generation, so it can be read of.

The order is: a generation that says which is the oldest one from now on, then the files of older generations, then the
tables and shards that no generation lists. After a kill at any moment, the same command goes on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from vlapipe.pipeline.change.commit import Said, commit_manifest
from vlapipe.pipeline.change.work_folder import locked_alone, remove_unlisted
from vlapipe.pipeline.shards.dataset import open_dataset
from vlapipe.pipeline.shards.format.atomic import TEMP_PREFIX
from vlapipe.pipeline.shards.manifest.generations import generation_file, generation_times, generations, publish
from vlapipe.pipeline.shards.manifest.history import sweep_entries
from vlapipe.pipeline.shards.manifest.manifest import SHARD_FOLDER, Manifest
from vlapipe.pipeline.shards.stores.copies import copy_at, look_again, one_look, remove_files
from vlapipe.pipeline.shards.verify.faults import files_of_all_generations, kept_generations
from vlapipe.pipeline.shards.verify.verify import DAY_S
from vlapipe.schemas.errors import UsageError

__all__ = ["Collected", "collect"]


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What gc removed: generations by number, files, and their bytes. ``kept`` are the generations that are left.

    ``num_young`` of these are kept only because they were the newest not long ago.
    """

    removed: list[int]
    files: list[str]
    num_bytes: int
    kept: list[int]
    num_young: int


@one_look()
def collect(
    path: Path, *, keep: int, older_than_s: float = 0.0, note: str | None = None, dry_run: bool = False
) -> Collected:
    """Keep the newest ``keep`` generations and those that were the newest just now. Remove what none of these needs.

    A generation goes if another one took its place more than ``older_than_s`` seconds ago, so readers have that long.
    Arrays that a reader has mapped stay readable until it lets go of them; a shard that it has not opened yet, and that
    only a removed generation lists, is gone.

    Raises:
        UsageError: another command is writing there.
    """
    if keep < 1:
        raise UsageError(f"--keep {keep}: expected 1 or more", "the newest generation is always kept")
    newest = open_dataset(path).manifest
    old, kept, num_young = _old_and_kept(path, newest, keep, older_than_s)
    if dry_run:
        manifests = [Manifest.read(path, number) for number in kept]
        listed = {entry["file"] for each in manifests for entry in (*each.tables, *each.shards)}
        files = [*map(generation_file, old), *sorted(files_of_all_generations(path).keys() - listed)]
        return Collected(removed=old, files=files, num_bytes=_size(path, files), kept=kept, num_young=num_young)
    with locked_alone(path) as (work, has_locks):
        look_again()
        newest = open_dataset(path).manifest  # it may have grown before the lock was had
        old, kept, num_young = _old_and_kept(path, newest, keep, older_than_s)
        if old:
            manifest = replace(newest, generation=kept[-1] + 1, oldest=kept[0])
            said = Said(what="gc", note=note, changes={"generations removed": len(old)})
            if not commit_manifest(path, work, manifest, said):
                raise UsageError(f"{path}: another command is writing there", "run vlapipe gc again")
            newest = manifest
        files = [generation_file(number) for number in generations(path) if number < (newest.oldest or 1)]
        num_bytes = _size(path, files)
        remove_files(path, files)
        publish(path, work)
        sweep_entries(path)
        unlisted = remove_unlisted(path, older_than_s=None if has_locks else DAY_S)
        num_bytes += sum(unlisted.values())
        files += unlisted
        for left in [*path.glob(f"{TEMP_PREFIX}*"), *(path / SHARD_FOLDER).glob(f"{TEMP_PREFIX}*")]:
            if has_locks or time.time() - left.stat().st_mtime > DAY_S:
                left.unlink(missing_ok=True)
        kept = kept_generations(path, newest)
        return Collected(removed=old, files=files, num_bytes=num_bytes, kept=kept, num_young=num_young)


def _old_and_kept(path: Path, newest: Manifest, keep: int, older_than_s: float) -> tuple[list[int], list[int], int]:
    """Return the generations to remove and to keep, and how many of the latter ``keep`` alone would not keep.

    One that gc made is the same state as the one before it.
    """
    made_s, until_s = generation_times(path), time.time() - older_than_s
    there = kept_generations(path, newest)
    states: list[Manifest] = []
    first = len(there)
    for place in range(len(there) - 1, -1, -1):
        state = newest if place == len(there) - 1 else Manifest.read(path, there[place])
        state = replace(state, generation=None, oldest=None)
        if not states or state != states[-1]:
            if len(states) == keep:
                break
            states.append(state)
        first = place
    asked = first
    while first > 0 and made_s.get(there[first], 0.0) > until_s:  # it took the place of the one before just now
        first -= 1
    return there[:first], there[first:], asked - first


def _size(path: Path, files: list[str]) -> int:
    copy = copy_at(path)
    if copy:
        return sum(copy.store.each(lambda name: copy.store.size(name) or 0, files))
    return sum((path / file).stat().st_size for file in files if (path / file).exists())

"""Repairs a dataset: finds the damaged files, makes them again, compares their digests, and only then replaces them.

No healthy file is opened for writing. A file that cannot be made with the bytes that were recorded stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlapipe.pipeline.repair.origin import Origin
from vlapipe.pipeline.shards.format.atomic import fsync_folder, remove_folder, try_lock
from vlapipe.pipeline.shards.format.digest import file_sha256
from vlapipe.pipeline.shards.format.sealed_json import Seal
from vlapipe.pipeline.shards.manifest.generations import (
    GENERATIONS,
    MANIFEST,
    generation_file,
    generations,
    manifest_file,
)
from vlapipe.pipeline.shards.manifest.history import history_files
from vlapipe.pipeline.shards.manifest.manifest import SHARD_FOLDER, WORK_FOLDER, Manifest
from vlapipe.pipeline.shards.stores.copies import copy_at, remove_files, shown
from vlapipe.pipeline.shards.verify.faults import Fault, ListedFile, listed_files
from vlapipe.pipeline.shards.verify.generation_faults import description_fault, faults_of_generations, generation_of
from vlapipe.pipeline.shards.verify.verify import REPAIR_FOLDER, Verification, is_finished, named_by_digest, verify
from vlapipe.schemas.errors import UsageError, VlapipeError, printable
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["Repair", "repair"]


@dataclass(kw_only=True)
class Repair:
    """What a repair did. ``refused`` holds the reason for each file that could not be made again."""

    before: Verification
    after: Verification
    repaired: list[Fault] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return a line for each file that was repaired, refused or removed, and then what the last look found."""
        said = [f"repaired: {fault.file} (was {fault.kind})" for fault in self.repaired]
        said += [f"not repaired: {file}: {why}" for file, why in self.refused.items()]
        said += [f"removed: {file}" for file in self.removed]
        return [printable(line) for line in said or ["nothing to repair"]] + self.after.lines()

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON."""
        return {
            "repaired": [fault.to_json() for fault in self.repaired],
            "refused": self.refused,
            "removed": self.removed,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
        }


def repair(path: Path, origin: Origin, *, remove_unlisted: bool = False) -> Repair:
    """Verify every byte, make the damaged files again, and verify those.

    Args:
        path: the dataset.
        origin: where whole files come from.
        remove_unlisted: also remove files that the dataset does not list.

    Raises:
        NotADatasetError: there is no finished dataset in the folder.
        UsageError: another command is writing there, or the origin cannot be used.
        StoppedError: disk, memory, network or a limit failed. The same call then continues the work.
    """
    try:
        with _locked(path) as scratch:
            return _repair(path, origin, scratch, remove_unlisted=remove_unlisted)
    except OSError as error:
        raise_if_stopped(error, path)
        raise


def _repair(path: Path, origin: Origin, scratch: Path, *, remove_unlisted: bool) -> Repair:
    found = verify(path, is_locked=True)
    result = Repair(before=found, after=found)
    is_changed = _from_each_other(path, scratch, result)
    wrong: set[str] = set()  # files that came out with other bytes, and would again
    while True:
        if is_changed:  # what was whole is not read again, so of a store each object is read once
            found = verify(path, is_locked=True, whole=found.whole)
        # Of a damaged manifest or table of shards, the files that it lists are known once it is whole. A table may need
        # another one that was damaged too.
        todo = [each for each in found.damage if each.file not in wrong]
        todo = [each for each in todo if each.file not in result.refused or not each.is_shard]
        is_changed = bool(todo) and _make(path, origin, scratch, todo, result, wrong)
        if not is_changed:
            break
    unlisted = [fault.file for fault in found.faults if not fault.is_listed] if remove_unlisted else []
    if unlisted:
        remove_files(path, unlisted)
        result.removed += unlisted
        found = verify(path, is_locked=True, whole=found.whole)
    result.after = found
    return result


def _from_each_other(path: Path, scratch: Path, result: Repair) -> bool:
    """Make ``manifest.json`` and the newest generation's file again from one another. Returns whether one was made."""
    there = generations(path)
    if not there:
        return False
    files = {name: (path / name).read_bytes() for name in (MANIFEST,) if (path / name).is_file()}
    stated = generation_of(files.get(MANIFEST))
    newest = generation_file(max(there[-1], stated or 0))
    files |= {newest: (path / newest).read_bytes()} if (path / newest).is_file() else {}
    whole = {name: data for name, data in files.items() if generation_of(data) == max(there[-1], stated or 0)}
    for damaged, other in ((MANIFEST, newest), (newest, MANIFEST)):
        is_behind = damaged == MANIFEST and generation_of(files.get(damaged)) is not None
        if damaged not in whole and other in whole and not is_behind:
            fault = description_fault(path, damaged)
            (scratch / "description").write_bytes(whole[other])
            _replace(scratch / "description", path, damaged)
            result.repaired.append(fault)
            return True
    return False


def _make(path: Path, origin: Origin, scratch: Path, damage: list[Fault], result: Repair, wrong: set[str]) -> bool:
    """Make the damaged files in the scratch folder, and replace those that came out as they were.

    Returns whether there were any. Those that came out with other bytes are added to ``wrong``.
    """
    files = [fault.file for fault in damage]
    newest = manifest_file(path).relative_to(path).as_posix()
    manifest = None if newest in files else Manifest.read(path)
    origin.make(files, scratch, manifest)
    digests = {} if manifest is None else {name: file.sha256 for name, file in _listed(path, manifest).items()}
    num_before = len(result.repaired)
    for fault in damage:
        made = scratch / fault.file
        if not made.is_file() or not _is_the_same(path, fault.file, made, digests, origin):
            result.refused[fault.file] = origin.why(fault.file)
            wrong |= {fault.file} if made.is_file() else set()
            continue
        _replace(made, path, fault.file)
        result.repaired.append(fault)
        result.refused.pop(fault.file, None)
    return len(result.repaired) > num_before


def _listed(path: Path, manifest: Manifest) -> dict[str, ListedFile]:
    """Return the files that generations list, as far as their own files are whole."""
    unknown: list[str] = []
    _, older, _ = faults_of_generations(path, manifest, unknown)
    return older | {file.file: file for file in listed_files(manifest, unknown=unknown)}


def _is_the_same(path: Path, file: str, made: Path, digests: dict[str, str], origin: Origin) -> bool:
    """Return whether a file that was made again has the bytes that the damaged one had.

    The manifest lists neither itself nor the record of the raw data. These hold their own digest, and of a damaged one
    either the digest or the rest is nearly always whole.
    """
    if file in digests:
        return file_sha256(made) == digests[file]
    seal = Seal.of(made.read_bytes())
    with contextlib.suppress(OSError):
        damaged = Seal.of((path / file).read_bytes())
        if seal.stated == seal.computed and seal.computed in (damaged.stated, damaged.computed):
            return True
    if file.startswith(f"{GENERATIONS}/") and seal.stated == seal.computed:
        told = {digest for number, digest, _ in history_files(path) if generation_file(number) == file}
        if told == {file_sha256(made)[:8]}:
            return True
    if file == MANIFEST and not generations(path):
        return _lists_what_is_there(path, made.parent)
    return seal.stated == seal.computed and origin.is_same_dataset((path / MANIFEST).read_bytes())


def _lists_what_is_there(path: Path, folder: Path) -> bool:
    """Return whether the manifest in ``folder`` lists all files of the dataset, whose names carry their digests."""
    try:
        listed = {file.file for file in listed_files(Manifest.read(folder))}
    except VlapipeError:
        return False
    there = named_by_digest(path)
    return bool(there) and there <= listed


def _replace(made: Path, path: Path, file: str) -> None:
    """Put a file that was made again into its place, in the dataset's folder or its store."""
    target, copy = path / file, copy_at(path)
    if copy and file.startswith(f"{SHARD_FOLDER}/"):
        copy.store.put(file, made)
        return
    if copy:
        copy.put(file, made.read_bytes())
        return
    target.parent.mkdir(exist_ok=True)
    if target.parent.name == SHARD_FOLDER:
        made.chmod(0o444)
    with made.open("rb") as opened:
        os.fsync(opened.fileno())
    made.rename(target)
    fsync_folder(target.parent)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[Path]:
    """Lock the dataset as ingest does, and yield an empty folder on the same disk.

    Raises:
        NotADatasetError: there is no finished dataset in the folder.
        UsageError: another command has locked the dataset.
    """
    if not (path / MANIFEST).exists() and not is_finished(path):
        Manifest.read(path)  # raises the error that says what the folder is
    work = path / WORK_FOLDER
    work.mkdir(exist_ok=True)
    with (work / "lock").open("w") as lock:
        if try_lock(lock.fileno()) is False:
            raise UsageError(f"{shown(path)}: another command is writing there", "wait for it")
        scratch = work / REPAIR_FOLDER
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            yield scratch
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)  # the first error is to be told
            raise
        remove_folder(work)

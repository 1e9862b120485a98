"""Verifies a dataset: each file is there, has its size, and has the digest that the manifest states.

The manifest and the tables are always read whole, because every reader needs them. ``share`` says how many of the
shards are read: none (a quick look), some, or all. Nothing is written.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import stat
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from vlapipe.pipeline.shards.format.atomic import TEMP_PREFIX, try_lock
from vlapipe.pipeline.shards.format.sealed_json import Seal, is_cut, is_sealed
from vlapipe.pipeline.shards.manifest.generations import GENERATIONS, MANIFEST, generations, manifest_file
from vlapipe.pipeline.shards.manifest.history import HISTORY
from vlapipe.pipeline.shards.manifest.manifest import MADE_FROM, REJECTS, SHARD_FOLDER, WORK_FOLDER, Manifest, is_table
from vlapipe.pipeline.shards.ordered_map import in_order
from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.pipeline.shards.stores.copies import copy_at, shown
from vlapipe.pipeline.shards.verify.faults import Fault, ListedFile, listed_files
from vlapipe.pipeline.shards.verify.generation_faults import description_fault, faults_of_generations
from vlapipe.schemas.errors import DamageError, NotADatasetError, UsageError
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = [
    "DAY_S",
    "REPAIR_FOLDER",
    "Verification",
    "is_finished",
    "missing_or_cut",
    "named_by_digest",
    "verify",
    "verify_opened",
]

DAY_S = 86_400.0  # a file of a store that no generation lists is taken for left behind when it is older
REPAIR_FOLDER = "repair"  # of a repair, in the work folder

# Names that only vlapipe gives: such a file was left behind. Other files beside the manifest are the user's own.
_SHARD_NAME = re.compile(r"shard-\d+-[0-9a-f]{8}\.(?:npz|zarr\.zip)")
_OLDER = "has no digest of its own: an older vlapipe wrote it"
_MOST_THREADS = 4
_MB = 1_000_000


@dataclass(kw_only=True)
class Verification:
    """What was checked, and what is wrong. ``notes`` are remarks that are no faults."""

    path: Path
    share: float
    seed: int
    num_shards: int = 0
    num_shards_read: int = 0
    num_files: int = 0  # beside the shards
    num_bytes: int = 0  # that all listed files should have
    num_bytes_read: int = 0  # for their digests
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    whole: set[str] = field(default_factory=set)  # files whose bytes were compared and are those that were written

    @property
    def damage(self) -> list[Fault]:
        """Returns the faults of files that the dataset needs."""
        return [fault for fault in self.faults if fault.is_listed]

    def summary(self) -> str:
        """Returns one line that says what was checked."""
        said = f"{shown(self.path)}: {_count(self.num_shards, 'shard')} and {_count(self.num_files, 'other file')}"
        if self.num_shards_read == self.num_shards:
            how = f"every byte read, {self.num_bytes_read / _MB:,.1f} MB"
        elif self.num_shards_read:
            drawn = f"seed {self.seed}, {self.num_bytes_read / _MB:,.1f} MB"
            how = f"sizes compared, {_count(self.num_shards_read, 'shard')} read whole ({drawn})"
        else:
            how = "sizes compared, no shard read"
        return f"{said}: {how}: {_count(len(self.faults), 'fault') if self.faults else 'all good'}"

    def lines(self) -> list[str]:
        """Returns a line for each fault and note, and the summary."""
        return [*map(str, self.faults), *(f"note: {note}" for note in self.notes), self.summary()]

    def to_json(self) -> dict[str, Any]:
        """Returns everything as JSON."""
        values = {**vars(self), "path": str(self.path), "faults": [fault.to_json() for fault in self.faults]}
        del values["whole"]
        return {"is_whole": not self.faults, **values}


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def verify(
    path: Path,
    *,
    share: float = 1.0,
    seed: int = 0,
    is_locked: bool = False,
    num_threads: int | None = None,
    whole: Collection[str] = (),
) -> Verification:
    """Verify a dataset. ``share`` is the part of the shards that is read; ``seed`` decides which.

    ``is_locked`` says that the caller has locked the dataset, so its work folder is the caller's. ``whole`` are files
    whose bytes an earlier look has compared, so they are not read again.

    Raises:
        NotADatasetError: there is no dataset in the folder, or its ingest is not finished.
        NewerFormatError: a newer vlapipe wrote the dataset.
        StoppedError: a limit of the system (memory, disk, network) prevents reading.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"share {share:g}: expected a part of the shards, from 0 to 1")
    found = Verification(path=path, share=share, seed=seed, whole=set(whole))
    copy = copy_at(path)
    if copy:
        tables = [name for name in copy.names() if is_table(name) and name not in found.whole]
        copy.renew([MANIFEST, MADE_FROM, REJECTS, *tables], GENERATIONS, HISTORY)
    try:
        manifest = Manifest.read(path)
    except (DamageError, NotADatasetError) as error:
        if isinstance(error, NotADatasetError) and not is_finished(path):
            raise
        # Nothing in an altered manifest can be relied on, so there is nothing to compare the other files with.
        newest = manifest_file(path)
        found.faults = [description_fault(path, newest.relative_to(path).as_posix())]
        found.notes = ["no other file can be checked before that one is whole"]
        found.num_files = 1
        return found
    return _verify(found, manifest, is_locked=is_locked, num_threads=num_threads)


def verify_opened(path: Path, manifest: Manifest) -> Verification:
    """Take the quick look at a dataset whose manifest has been read."""
    return _verify(Verification(path=path, share=0.0, seed=0), manifest, is_locked=False, num_threads=None)


def missing_or_cut(path: Path, manifest: Manifest) -> list[Fault]:
    """Return the faults of the files that one generation lists, as far as their sizes tell. No other one is read."""
    files = listed_files(manifest)
    sizes = _sizes(path, files)
    by_digest = {file.sha256: file for file in files}
    return [fault for file in files if (fault := file.check_size(path, sizes[file.file], by_digest)) is not None]


def is_finished(path: Path) -> bool:
    """Return whether an ingest has finished in the folder, even if the manifest is lost: it removes its work folder."""
    work, copy = path / WORK_FOLDER, copy_at(path)
    if copy:
        return bool(copy.names(SHARD_FOLDER))
    return (path / SHARD_FOLDER).is_dir() and (not work.is_dir() or (work / REPAIR_FOLDER).is_dir())


def named_by_digest(path: Path) -> set[str]:
    """Return the files in the folder that have names as vlapipe gives them, with a digest in them."""
    copy = copy_at(path)
    tables = copy.names() if copy else {entry.name for entry in path.iterdir()}
    shards = copy.names(SHARD_FOLDER) if copy else {entry.name for entry in (path / SHARD_FOLDER).glob("*")}
    names = {name for name in tables if is_table(name)}
    shards = {name for name in shards if _SHARD_NAME.fullmatch(name)}
    return names | {f"{SHARD_FOLDER}/{name}" for name in shards}


def _verify(found: Verification, manifest: Manifest, *, is_locked: bool, num_threads: int | None) -> Verification:
    unknown: list[str] = []
    path, files = found.path, listed_files(manifest, unknown=unknown)
    of_descriptions, older, notes = faults_of_generations(path, manifest, unknown)
    names = {file.file for file in files}
    files += [file for name, file in older.items() if name not in names]
    found.notes += notes
    by_digest = {file.sha256: file for file in files}
    sizes = _sizes(path, files)
    shards = [file for file in files if file.shard is not None]
    chosen = _chosen(shards, found.share, found.seed)
    if not is_sealed(manifest_file(path)):
        found.notes.append(f"{MANIFEST} {_OLDER}")
    faults = {file.file: file.check_size(path, sizes[file.file], by_digest) for file in files}
    to_read = [
        file
        for file in files
        if faults[file.file] is None and (file.shard in chosen or not file.is_shard or found.share == 1)
    ]
    faults |= _compare(path, [file for file in to_read if file.file not in found.whole], sizes, by_digest, num_threads)
    found.whole = {file.file for file in to_read if faults[file.file] is None}
    found.faults = [*of_descriptions, *(fault for fault in faults.values() if fault is not None)]
    found.faults += _check_made_from(path, found)
    if unknown:
        found.notes.append(f"the shards that {unknown[0]} lists are known when that file is whole")
    elif all(fault.file == MANIFEST or not fault.file.startswith(GENERATIONS) for fault in of_descriptions):
        found.faults += _unlisted(path, {file.file for file in files}, found, is_locked=is_locked)
    else:
        found.notes.append("which files no generation lists is known when each generation's file is whole")
    found.num_shards, found.num_shards_read = len(shards), len(chosen)
    found.num_files += len(files) - len(shards) + max(1, len(generations(path)))
    found.num_bytes = sum(file.num_bytes or sizes[file.file] or 0 for file in files)
    found.num_bytes_read = sum(sizes[file.file] or 0 for file in to_read)
    return found


def _sizes(path: Path, files: list[ListedFile]) -> dict[str, int | None]:
    """Return the size of each file, or ``None`` if there is no such file."""
    sizes: dict[str, int | None] = {}
    copy = copy_at(path)
    if copy:
        found = copy.files(SHARD_FOLDER)
        return {file.file: found[file.file].num_bytes if file.file in found else None for file in files}
    for file in files:
        try:
            status = os.stat(f"{path}/{file.file}")  # noqa: PTH116 - a third of Path's time, and there may be 40,000
        except (FileNotFoundError, NotADirectoryError):
            sizes[file.file] = None
        except OSError as error:
            raise_if_stopped(error, path / file.file)
            raise DamageError(f"{path / file.file}: cannot be reached: {error.strerror}") from None
        else:
            sizes[file.file] = status.st_size if stat.S_ISREG(status.st_mode) else None
    return sizes


def _chosen(shards: list[ListedFile], share: float, seed: int) -> set[int]:
    """Return the shards that are read: the share of them, rounded up."""
    count = min(len(shards), math.ceil(share * len(shards)))
    return set(random.Random(seed).sample(range(len(shards)), count))  # noqa: S311 - a sample, not a secret


def _compare(
    path: Path,
    files: list[ListedFile],
    sizes: dict[str, int | None],
    by_digest: dict[str, ListedFile],
    num_threads: int | None,
) -> dict[str, Fault | None]:
    """Read the files and compare their digests, several at once. The thread that hashes needs no other work."""
    threads = max(1, min(num_threads or os.cpu_count() or 1, _MOST_THREADS, len(files)))
    jobs = (partial(file.check_bytes, path, sizes[file.file] or 0, by_digest) for file in files)
    faults: dict[str, Fault | None] = {}
    done = 0
    total = sum(sizes[file.file] or 0 for file in files)
    with Progress("verify", -(-total // _MB), "megabyte") as progress:
        for file, fault in zip(files, in_order(jobs, threads), strict=True):
            faults[file.file] = fault
            done += sizes[file.file] or 0
            progress.reach(progress.total if done == total else done // _MB)
    return faults


def _check_made_from(path: Path, found: Verification) -> list[Fault]:
    """Check the description of the raw data. No reader needs it, so a copy without it is whole."""
    try:
        data = (path / MADE_FROM).read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise_if_stopped(error, path / MADE_FROM)
        return [Fault(kind="altered", file=MADE_FROM, problem=f"cannot be read: {error.strerror}")]
    found.num_files += 1
    seal = Seal.of(data)
    if seal.is_broken or (seal.stated is None and not _is_older_record(data)):
        kind: Any = "truncated" if is_cut(data) else "altered"
        return [Fault(kind=kind, file=MADE_FROM, problem="its bytes differ from those that were written")]
    if seal.stated is None:
        found.notes.append(f"{MADE_FROM} {_OLDER}")
    return []


def _is_older_record(data: bytes) -> bool:
    """Return whether the bytes are a description as vlapipe wrote it when it had no digest yet."""
    try:
        return set(json.loads(data)) == {"options", "episodes"}
    except (ValueError, TypeError):
        return False


def _unlisted(path: Path, listed: set[str], found: Verification, *, is_locked: bool) -> list[Fault]:
    """Return the files in the shards' folder that are not listed, and files beside it that vlapipe has left behind."""
    of_earlier = named_by_digest(path)
    names = of_earlier | {entry.name for entry in path.glob(f"{TEMP_PREFIX}*")}
    names |= {f"{GENERATIONS}/{entry.name}" for entry in (path / GENERATIONS).glob(f"{TEMP_PREFIX}*")}
    copy = copy_at(path)
    if copy:
        names |= {name for name in copy.files(SHARD_FOLDER) if name.startswith(SHARD_FOLDER)}
    for folder, _, files in os.walk(path / SHARD_FOLDER):
        within = Path(folder).relative_to(path).as_posix()
        names |= {f"{within}/{name}" for name in files}
    is_in_use = not is_locked and (path / WORK_FOLDER).is_dir() and _is_in_use(path)
    if is_in_use:  # files that are not listed may be those of its next generation
        found.notes.append("another command is writing there")
        return []
    faults = []
    if copy:  # another machine may be about to list them
        since_s = time.time() - DAY_S
        lately = {name for name, each in copy.files(SHARD_FOLDER).items() if each.modified_s > since_s}
        young = lately & (names - listed)
        if young:
            found.notes.append(f"{_count(len(young), 'file')} that no generation lists, less than a day old")
        names -= young
    for name in sorted(names - listed):
        is_stale = name in of_earlier
        problem = "of an earlier ingest; the dataset does not list it" if is_stale else "the dataset does not list it"
        faults.append(Fault(kind="stale" if is_stale else "unlisted", file=name, problem=problem, is_listed=False))
    if not is_locked and (path / WORK_FOLDER).is_dir():
        problem = "left behind by a command that was killed"
        faults.append(Fault(kind="unlisted", file=WORK_FOLDER, problem=problem, is_listed=False))
    return faults


def _is_in_use(path: Path) -> bool:
    try:
        with (path / WORK_FOLDER / "lock").open("rb") as lock:
            return try_lock(lock.fileno()) is False
    except OSError:
        return False

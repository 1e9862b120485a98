"""The folder in which a command prepares a generation, and the locks that keep gc and repair away meanwhile.

Several commands may prepare generations at the same time: which one comes next is decided by the generation's name and
not by a lock. A lock only tells whether the files in a work folder, and files that no generation lists yet, have an
owner that lives. Where a file system has no locks nothing is lost; gc then waits until such files are a day old. So it
does in a store, where the locks are those of the local copy and other machines do not see them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path

from vlapipe.pipeline.shards.format.atomic import remove_folder, sweep_temporaries, try_lock
from vlapipe.pipeline.shards.manifest.manifest import SHARD_FOLDER, WORK_FOLDER
from vlapipe.pipeline.shards.stores.copies import copy_at, look_again, remove_files
from vlapipe.pipeline.shards.verify.faults import files_of_all_generations
from vlapipe.pipeline.shards.verify.verify import DAY_S, named_by_digest
from vlapipe.schemas.errors import DamageError, UsageError

__all__ = ["UNTIDY", "locked_alone", "remove_unlisted", "work_folder"]

UNTIDY = "untidy"  # a file that says: a command was killed, or lost its commit, so there may be unlisted files
_LOCK = "lock"
_WAIT_S = 30.0
_PAUSE_S = 0.02


@contextlib.contextmanager
def work_folder(dataset: Path, name: str, *, resumes: bool = False) -> Iterator[Path]:
    """Yield a folder for one command. A command that was killed finds what it left there, by the same ``name``.

    In the end the folder is removed, and so are files of killed commands and lost commits if no other command is at
    work. With ``resumes`` an error leaves the folder as it is.

    Raises:
        UsageError: the same command, or gc or repair, is at work.
    """
    with _locked(dataset, shared=True) as lock:
        work = dataset / WORK_FOLDER / name
        if work.exists():
            (work.parent / UNTIDY).touch()
        work.mkdir(exist_ok=True)
        is_done = False
        try:
            with (work / _LOCK).open("a") as own:
                if try_lock(own.fileno()) is False:
                    resumes = True  # the folder is the other command's
                    raise UsageError(f"{dataset}: the same command is already at work there", "wait for it")
                sweep_temporaries(work)
                yield work
            is_done = True
        finally:
            if is_done:
                remove_folder(work)
            elif not resumes:
                shutil.rmtree(work, ignore_errors=True)  # the first error is to be told
            if try_lock(lock.fileno()) is not False:
                _tidy(dataset)


@contextlib.contextmanager
def locked_alone(dataset: Path) -> Iterator[tuple[Path, bool]]:
    """Keep all other commands from changing the dataset. Yields a folder, and whether the file system has locks.

    In the end, what killed commands left in the work folder is removed.
    """
    with _locked(dataset, shared=False) as lock:
        own = dataset / WORK_FOLDER / "alone"
        own.mkdir(exist_ok=True)
        sweep_temporaries(own)
        has_locks = try_lock(lock.fileno()) is not None
        try:
            yield own, has_locks
        except BaseException:
            shutil.rmtree(own, ignore_errors=True)  # the first error is to be told
            with contextlib.suppress(OSError):
                _tidy(dataset)
            raise
        for folder in (dataset / WORK_FOLDER).iterdir() if has_locks else [own]:
            if folder.is_dir():
                remove_folder(folder)
        _tidy(dataset)


@contextlib.contextmanager
def _locked(dataset: Path, *, shared: bool) -> Iterator[TextIOWrapper]:
    lock = _lock(dataset, shared=shared)
    try:
        yield lock
    finally:
        lock.close()


def _lock(dataset: Path, *, shared: bool) -> TextIOWrapper:
    """Lock the dataset's work folder. Who leaves last removes it, so the lock may be that of a removed file."""
    deadline = time.monotonic() + _WAIT_S
    path = dataset / WORK_FOLDER / _LOCK
    while True:
        path.parent.mkdir(exist_ok=True)
        try:
            lock = path.open("a")
        except FileNotFoundError:
            continue
        if try_lock(lock.fileno(), shared=shared) is not False and _is_the_file(lock, path):
            return lock
        lock.close()
        if time.monotonic() > deadline:
            raise UsageError(f"{dataset}: another command is writing there", "wait for it")
        time.sleep(_PAUSE_S)


def _is_the_file(lock: TextIOWrapper, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except OSError:
        return False


def _tidy(dataset: Path) -> None:
    """Remove what killed commands and lost commits left, and the work folder if nothing else is in it.

    Nobody else is at work.
    """
    work = dataset / WORK_FOLDER
    if (work / UNTIDY).exists():
        with contextlib.suppress(DamageError):  # of a generation's file: nobody knows then what it lists
            remove_unlisted(dataset)
            (work / UNTIDY).unlink()
    if [entry.name for entry in work.iterdir()] == [_LOCK]:
        (work / _LOCK).unlink()
        with contextlib.suppress(OSError):
            work.rmdir()


def remove_unlisted(dataset: Path, *, older_than_s: float | None = None) -> dict[str, int]:
    """Remove files with names as vlapipe gives them that no generation lists. Returns their names and sizes.

    Raises:
        DamageError: the file of a generation is damaged, so nobody knows what it lists.
    """
    copy = copy_at(dataset)
    look_again()
    unlisted = sorted(named_by_digest(dataset) - files_of_all_generations(dataset).keys())
    if copy:
        older_than_s = older_than_s or DAY_S
        there = copy.files(SHARD_FOLDER)
        found = {name: (there[name].num_bytes, there[name].modified_s) for name in unlisted if name in there}
    else:
        found = {name: _size_and_time(dataset / name) for name in unlisted}
    old = [name for name, (_, when) in found.items() if older_than_s is None or time.time() - when > older_than_s]
    remove_files(dataset, old)
    return {name: found[name][0] for name in old}


def _size_and_time(path: Path) -> tuple[int, float]:
    status = path.stat()
    if status.st_nlink > 1:  # linked by a merge, just now perhaps, and the file itself is older
        return status.st_size, max(status.st_mtime, status.st_ctime)
    return status.st_size, status.st_mtime

"""Locks open files, shared or exclusively. The system releases the locks of a process that dies.

A lock belongs to the open file. A map of the file (``file_maps``) keeps the lock: a mapped file stays locked until the
map is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import IO

from vlapipe.pipeline.shards.format.atomic import try_lock

__all__ = ["Locked", "is_locked", "lock_shared", "locked_exclusively", "remove_unlocked"]


@dataclass(frozen=True)
class Locked:
    """A file that this process has locked exclusively, and its path."""

    path: Path
    file: BufferedRandom


@contextlib.contextmanager
def locked_exclusively(path: Path) -> Iterator[Locked | None]:
    """Create ``path`` if necessary, wait for an exclusive lock on it, and yield the locked file.

    Yields ``None`` if another process has renamed or removed the file meanwhile. At the end of the block the file is
    removed, unless the block renamed it. If the file system has no locks, or another user owns the file, no process
    waits: each one gets a file of its own beside ``path``.
    """
    held = _open_alone(path) or _open_own(path)
    with held.file:
        if not _is_at(held.file, held.path):
            yield None
            return
        try:
            yield held
        finally:
            if _is_at(held.file, held.path):
                held.path.unlink()


def _open_alone(path: Path) -> Locked | None:
    try:
        file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "rb+")  # noqa: PTH123, SIM115
    except OSError:
        return None
    taken: bool | None = False
    while taken is False and _is_at(file, path):
        lock_shared(file)  # waits for the process that writes the file, but not for the processes that read it later
        taken = try_lock(file.fileno())
    if taken is None:
        file.close()
        return None
    return Locked(path, file)


def _open_own(path: Path) -> Locked:
    own = path.with_name(f"{path.name}-{os.getpid()}-{os.urandom(6).hex()}")
    file = own.open("xb+")
    try_lock(file.fileno())
    return Locked(own, file)


def lock_shared(file: IO[bytes]) -> bool:
    """Take a shared lock on an open file, for reading. Returns ``False`` if the file has been removed meanwhile."""
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_SH)
    return os.fstat(file.fileno()).st_nlink > 0


def is_locked(path: Path) -> bool:
    """Whether a process maps or writes the file; ``False`` if the file system has no locks or the file is not there."""
    try:
        with path.open("rb") as file:
            return try_lock(file.fileno()) is False
    except OSError:
        return False


def remove_unlocked(path: Path, *, if_unknown: bool) -> bool:
    """Remove a file unless a living process has locked it. Returns whether the file was removed.

    ``if_unknown``: whether to remove the file on a file system without locks.
    """
    with contextlib.suppress(OSError), path.open("rb+") as file:
        taken = try_lock(file.fileno())
        if (if_unknown if taken is None else taken) and _is_at(file, path):
            path.unlink()
            return True
    return False


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        there = path.stat()
    except OSError:
        return False
    return os.path.samestat(os.fstat(file.fileno()), there)

"""Files that are held by a lock for as long as they are open, so that a process that dies lets go of them.

The lock belongs to the open file, and a map (``maps``) holds it: what is mapped stays locked until the map is gone.
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
    """A file that this process holds alone, and its name."""

    path: Path
    file: BufferedRandom


@contextlib.contextmanager
def locked_exclusively(path: Path) -> Iterator[Locked | None]:
    """``path``, made if need be, once everybody else has let go of it; removed in the end unless it was renamed.

    ``None`` if it was renamed or removed meanwhile. Where there are no locks, or the file is another user's, everybody
    goes on at once, each with a file of its own beside an empty ``path``.
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
        lock_shared(file)  # waits for who makes it; not for those who read it then, for as long as they like
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
    """Hold an open file together with others who read it; ``False`` if it has been removed meanwhile."""
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_SH)
    return os.fstat(file.fileno()).st_nlink > 0


def is_locked(path: Path) -> bool:
    """Whether some process has the file mapped, or is writing it; ``False`` where nobody can tell."""
    try:
        with path.open("rb") as file:
            return try_lock(file.fileno()) is False
    except OSError:
        return False


def remove_unlocked(path: Path, *, if_unknown: bool) -> bool:
    """Remove a file unless a living process holds it; whether this did remove it.

    ``if_unknown`` says whether to do so on a file system without locks, where nobody can tell.
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

"""Puts a file under its final name whole or not at all: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path

__all__ = ["TEMP_PREFIX", "fsync_folder", "sweep_temporaries", "temporary_file", "try_lock", "write_bytes"]

TEMP_PREFIX = ".vlapipe-tmp-"


@contextlib.contextmanager
def temporary_file(folder: Path) -> Iterator[tuple[Path, BufferedRandom]]:
    """An open file under a temporary name in ``folder``; the caller renames it, otherwise it is removed.

    Raises:
        OSError: what the system refused; it names the folder, although a ``write`` that fails names nothing.
    """
    path = folder / f"{TEMP_PREFIX}{os.getpid()}-{os.urandom(6).hex()}"
    try:
        with path.open("xb+") as file:
            yield path, file
    except OSError as error:
        if error.filename in (None, str(path)):
            error.filename = str(folder)
        raise
    finally:
        with contextlib.suppress(OSError):  # a disk that failed must not hide why
            path.unlink(missing_ok=True)


def fsync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a small file atomically, replacing what was there."""
    with temporary_file(path.parent) as (temporary, file):
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        temporary.rename(path)
    fsync_folder(path.parent)


def try_lock(handle: int) -> bool | None:
    """Take an open file or folder for this process until it closes it; ``False`` if another one holds it.

    ``None`` on a file system without locks: nobody can hold it there, and everybody may go on.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def sweep_temporaries(folder: Path) -> int:
    """Remove what killed runs of ours left in ``folder``, whose lock the caller holds; returns how many."""
    left = list(folder.glob(f"{TEMP_PREFIX}*"))
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)

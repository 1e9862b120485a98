"""Writes files atomically (temporary name, fsync, rename, fsync of the folder), and takes exclusive locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path

__all__ = [
    "TEMP_PREFIX",
    "fsync_folder",
    "sweep_temporaries",
    "temporary_file",
    "try_lock",
    "whole_file",
    "write_bytes",
]

TEMP_PREFIX = ".vlapipe-tmp-"


@contextlib.contextmanager
def temporary_file(folder: Path) -> Iterator[tuple[Path, BufferedRandom]]:
    """Yield the path and an open temporary file in ``folder``. If the caller does not rename the file, it is removed.

    Raises:
        OSError: the system refused an operation. The error names the folder, even if the original error named no file.
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
        with contextlib.suppress(OSError):  # an error here must not hide the first error
            path.unlink(missing_ok=True)


def fsync_folder(folder: Path) -> None:
    """Sync a folder, so that renames in it survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def whole_file(path: Path, *, folder: Path | None = None) -> Iterator[Path]:
    """Yield the path of an empty temporary file. What the caller writes there becomes the file ``path``.

    The file is synced and renamed when the caller is done, and an existing file is replaced. After an error there is no
    new file. The temporary file lies in ``folder``, by default beside ``path``.
    """
    with temporary_file(folder or path.parent) as (temporary, file):
        yield temporary
        os.fsync(file.fileno())
        temporary.rename(path)
    fsync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a small file atomically. An existing file is replaced."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def try_lock(handle: int) -> bool | None:
    """Try to take an exclusive lock on an open file or folder, without waiting. Closing the file releases the lock.

    Returns ``True`` if this process has the lock now, ``False`` if another holder has it, and ``None`` if the file
    system has no locks. With ``None`` the caller may go on.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def sweep_temporaries(folder: Path) -> int:
    """Remove the temporary files that killed processes left in ``folder``. Returns their number.

    The caller must hold the folder's lock.
    """
    left = list(folder.glob(f"{TEMP_PREFIX}*"))
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)

"""Writes files atomically (temporary name, fsync, rename, fsync of the folder), and takes exclusive locks."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path

__all__ = [
    "TEMP_PREFIX",
    "fsync_folder",
    "link_new",
    "remove_folder",
    "sweep_temporaries",
    "temporary_file",
    "try_lock",
    "whole_file",
    "write_bytes",
]

TEMP_PREFIX = ".vlapipe-tmp-"
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
_NO_REPLACE = 1  # flag of renameat2
_HERE = -100  # AT_FDCWD


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
    except OSError as error:  # which names no file
        error.filename = str(folder)
        raise
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


def write_bytes(path: Path, data: bytes, *, folder: Path | None = None) -> None:
    """Write a small file atomically. An existing file is replaced. The temporary file lies in ``folder``, if given."""
    with whole_file(path, folder=folder) as temporary:
        temporary.write_bytes(data)


def link_new(source: Path, target: Path) -> bool:
    """Give a whole, synced file the name ``target``, unless that name is taken. Of several callers one wins.

    ``source`` may keep its own name too. Returns whether this call gave the name.

    Raises:
        OSError: the file system can do this neither by a hard link nor by a rename that replaces nothing.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _rename_new(source, target)
    fsync_folder(target.parent)
    return True


def _rename_new(source: Path, target: Path) -> bool:
    """Rename a file, unless the new name is taken. Linux alone has this call, for most file systems without links."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    failed = rename is None or rename(_HERE, os.fsencode(source), _HERE, os.fsencode(target), _NO_REPLACE)
    number = errno.ENOSYS if rename is None else ctypes.get_errno()
    if failed and number == errno.EEXIST:
        return False
    if failed:
        raise OSError(number, "has neither hard links nor a rename that replaces nothing", str(target.parent))
    fsync_folder(target.parent)
    return True


def remove_folder(folder: Path) -> None:
    """Remove a folder with all that is in it.

    Raises:
        OSError: something cannot be removed. The error names the folder.
    """
    try:
        shutil.rmtree(folder)
    except OSError as error:
        error.filename = str(folder)
        raise


def try_lock(handle: int, *, shared: bool = False) -> bool | None:
    """Try to lock an open file or folder without waiting: alone, or ``shared`` with others that lock it so.

    Closing the file releases the lock. Returns ``True`` if this process has the lock now, ``False`` if another holder
    has it, and ``None`` if the file system has no locks. With ``None`` the caller may go on.
    """
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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

"""Lists one folder of recordings: its files with size and time, its folders, what is left out. No file is opened."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vlapipe.schemas.errors import UsageError, is_text, printable
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["Listing", "RawFile", "is_ignored", "list_folder"]

_IGNORED_NAMES = {"Thumbs.db", "desktop.ini"}
_OF_ZARR = {"zarr.json", ".zgroup", ".zarray", ".zmetadata"}  # a folder with one of them is a Zarr store


@dataclass(frozen=True, slots=True)
class RawFile:
    """A file's path relative to the dataset (``/`` between parts), its size, and the time of its last change.

    A Zarr store that is a folder counts as one file: its size is that of all its files, its time is the newest one.
    """

    path: str
    num_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Listing:
    """What one folder holds. ``files`` and ``folders`` are in the order of names.

    ``misnamed`` are paths left out because of their names, in a printable form. ``outside`` are links that lead out of
    the dataset; they are followed.
    """

    files: dict[str, RawFile]  # by name
    folders: dict[str, None]
    num_ignored: int = 0
    misnamed: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()


def list_folder(root: Path, folder: str, real_root: str) -> Listing | None:
    """Returns what a folder below ``root`` holds, or ``None`` if the folder's path is too long to be opened.

    Links are followed, except links that lead back up. Names that are not UTF-8 cannot be written into a dataset or a
    report. They are left out and listed, as are paths that are too long to be opened.

    Args:
        root: the dataset's folder.
        folder: the folder's path relative to ``root``; ``"."`` is ``root``.
        real_root: the real path of ``root``.

    Raises:
        UsageError: the folder cannot be listed.
        StoppedError: the disk, the network or a limit is at fault.
    """
    entries = _entries(root / folder)
    if entries is None:
        return None
    start = "" if folder == "." else f"{folder}/"
    files: list[tuple[str, RawFile]] = []
    folders: list[str] = []
    misnamed: list[str] = []
    outside: list[str] = []
    above: frozenset[str] | None = None  # the real paths of the folder and of those that hold it
    num_ignored = 0
    for entry in entries:
        name = entry.name
        path = start + name
        if is_ignored(name):
            num_ignored += 1
            continue
        if not is_text(name):
            misnamed.append(printable(path))
            continue
        kind, is_link = _kind(entry), entry.is_symlink()
        if kind == "other":  # a pipe or another special file, or a broken link
            num_ignored += 1
            continue
        if is_link and not os.path.realpath(entry.path).startswith(real_root.rstrip("/") + "/"):
            outside.append(path)
        if kind == "file":
            status = _status(entry)
            if status is None:
                misnamed.append(printable(path))
            else:
                files.append((name, RawFile(path, status.st_size, status.st_mtime_ns)))
            continue
        store = _zarr_store(entry.path, path)
        if store is not None:
            files.append((name, store))
            continue
        if is_link:
            above = above if above is not None else _real_paths(root, folder)
            if os.path.realpath(entry.path) in above:  # only a link can lead to a folder that holds this one
                num_ignored += 1
                continue
        folders.append(name)
    return Listing(
        files=dict(sorted(files)),
        folders=dict.fromkeys(sorted(folders)),
        num_ignored=num_ignored,
        misnamed=tuple(misnamed),
        outside=tuple(outside),
    )


def is_ignored(name: str) -> bool:
    """Returns whether ``name`` is one that file managers and archivers leave behind."""
    return name.startswith(".") or name in _IGNORED_NAMES


def _real_paths(root: Path, folder: str) -> frozenset[str]:
    path = PurePosixPath(folder)
    return frozenset(os.path.realpath(root / each) for each in (path, *path.parents))


def _zarr_store(place: str, path: str) -> RawFile | None:
    """Returns the folder as one file if it is a Zarr store, else ``None``. Links within a store are not followed."""
    if not any(os.path.lexists(f"{place}/{name}") for name in _OF_ZARR):
        return None
    num_bytes, newest = 0, 0
    for folder, _, names in os.walk(place):
        for name in names:
            status = os.lstat(f"{folder}/{name}")  # a store has 100,000 files
            num_bytes, newest = num_bytes + status.st_size, max(newest, status.st_mtime_ns)
    return RawFile(path, num_bytes, newest)


def _entries(folder: Path) -> Iterable[os.DirEntry[str]] | None:
    """Returns a folder's entries, or ``None`` if the folder's path is too long to be opened."""
    try:
        return _one_by_one(os.scandir(folder), folder)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise _not_listed(error, folder) from None


def _one_by_one(entries: os._ScandirIterator[str], folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yields entries without keeping them: each keeps what was asked about its file, 700 bytes."""
    with entries:
        while True:
            try:
                entry = next(entries, None)
            except OSError as error:
                raise _not_listed(error, folder) from None
            if entry is None:
                return
            yield entry


def _not_listed(error: OSError, folder: Path) -> UsageError:
    raise_if_stopped(error, folder)
    return UsageError(f"{folder}: cannot be listed: {error.strerror}", "check its permissions")


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Returns a file's size and date, or ``None`` if the file's path is too long to be opened."""
    try:
        return entry.stat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else "other"
    except OSError:  # a link to itself
        return "other"

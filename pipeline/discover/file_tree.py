"""Walks a folder once, and finds files in it by the schema's patterns. No file is opened."""

from __future__ import annotations

import errno
import fnmatch
import os
import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from vlapipe.schemas.errors import UsageError, is_text, printable
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["FileTree", "Found", "RawFile", "excluded_by", "is_ignored", "match_end", "natural_order", "walk"]

_IGNORED_NAMES = {"Thumbs.db", "desktop.ini"}
_OF_ZARR = {"zarr.json", ".zgroup", ".zarray", ".zmetadata"}  # a folder with one of them is a Zarr store
_PLACEHOLDER = re.compile(r"(\{camera\}|\{stem\})")
_WILD = re.compile(r"[*?\[]|\{camera\}|\{stem\}")
_WILD_SIGN = re.compile(r"([*?\[])")
_DIGITS = re.compile(r"(\d+)")
_LAST = chr(0x10FFFF)


@dataclass(frozen=True)
class RawFile:
    """A file's path relative to the dataset (``/`` between parts), its size, and the time of its last change.

    A Zarr store that is a folder counts as one file: its size is that of all its files, its time is the newest one.
    """

    path: str
    num_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Found:
    """A file that fits a pattern, and the values of ``{camera}`` and ``{stem}`` in its path."""

    file: RawFile
    camera: str | None
    stem: str | None


class FileTree:
    """The files and folders below ``root``, by their paths relative to ``root``."""

    def __init__(
        self,
        root: Path,
        files: list[RawFile],
        folders: list[str],
        num_ignored: int,
        misnamed: Iterable[str] = (),
        outside: Iterable[str] = (),
    ) -> None:
        self.root = root
        self.files = {file.path: file for file in sorted(files, key=lambda file: file.path)}
        self.folders = folders
        self.num_ignored = num_ignored
        self.misnamed = tuple(sorted(misnamed))  # paths left out because of their names, in a printable form
        self.outside = tuple(sorted(outside))  # links that lead out of the root; they are followed
        self._paths = list(self.files)
        self._found: dict[tuple[str, str], list[Found]] = {}

    def below(self, folder: str) -> list[RawFile]:
        """Returns every file below a folder; ``"."`` is the root."""
        return [self.files[path] for path in self._starting_with("" if folder == "." else f"{folder}/")]

    def find(self, folder: str, pattern: str, stem: str | None = None) -> list[Found]:
        """Returns the files below ``folder`` that fit a pattern, sorted by name, folder by folder.

        ``*``, ``?`` and ``[...]`` stay within one part of the path. ``{camera}`` is any text within one part.
        ``{stem}`` is exactly ``stem``, or any text if ``stem`` is ``None``.
        """
        if stem is None or "{stem}" not in pattern:
            # Cached, because the same search is repeated for each episode of a flat folder.
            if (folder, pattern) not in self._found:
                self._found[folder, pattern] = self._find(folder, pattern)
            return self._found[folder, pattern]
        # Escaped, so that brackets in a name are not read as a pattern.
        return self._find(folder, pattern.replace("{stem}", _WILD_SIGN.sub(r"[\1]", stem)))

    def _find(self, folder: str, pattern: str) -> list[Found]:
        start = "" if folder == "." else f"{folder}/"
        wild = _WILD.search(pattern)
        if wild is None:  # one look-up, however many episodes lie in the folder
            file = self.files.get(start + pattern)
            return [Found(file, None, None)] if file else []
        parts = pattern.count("/") + 1
        found = []
        for path in self._starting_with(start + pattern[: wild.start()]):
            names = path[len(start) :]
            match = match_end(names, pattern) if names.count("/") + 1 == parts else None
            if match is not None:
                found.append(Found(self.files[path], match.get("camera"), match.get("stem")))
        return sorted(found, key=lambda one: one.file.path.split("/"))

    def _starting_with(self, prefix: str) -> list[str]:
        return self._paths[bisect_left(self._paths, prefix) : bisect_left(self._paths, prefix + _LAST)]


def match_end(path: str, pattern: str) -> dict[str, str] | None:
    """Returns the placeholders' values if the last parts of ``path`` fit ``pattern`` part by part; else ``None``."""
    parts = pattern.split("/")
    names = path.split("/")[-len(parts) :]
    if len(names) < len(parts):
        return None
    values: dict[str, str] = {}
    for name, part in zip(names, parts, strict=True):
        match = _regex_of(part).fullmatch(name)
        if match is None:
            return None
        values |= match.groupdict()
    return values


def excluded_by(path: str, patterns: Iterable[str]) -> str | None:
    """Returns the first pattern that fits ``path`` or a folder above it; ``None`` if none does.

    A pattern without ``/`` fits a name alone. In others ``*`` also stands for ``/``, and for nothing before the first
    ``/``: ``*/failure/*`` fits ``failure/episode_1`` too.
    """
    parts = path.split("/")
    above = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    for pattern in patterns:
        wanted = pattern.rstrip("/")
        if "/" not in wanted:
            fits = any(fnmatch.fnmatchcase(part, wanted) for part in parts)
        else:
            fits = any(fnmatch.fnmatchcase(each, wanted.lstrip("/")) for each in above) or any(
                fnmatch.fnmatchcase(f"/{each}", wanted) for each in above
            )
        if fits:
            return pattern
    return None


@lru_cache(maxsize=4096)
def _regex_of(part: str) -> re.Pattern[str]:
    """Returns the regex of one part of a pattern; ``{camera}`` and ``{stem}`` become groups (shortest match)."""
    regex = ""
    for piece in _PLACEHOLDER.split(part):
        if _PLACEHOLDER.fullmatch(piece):
            name = piece[1:-1]
            regex += f"(?P={name})" if f"(?P<{name}>" in regex else f"(?P<{name}>.+?)"
        else:
            translated = fnmatch.translate(piece)
            regex += translated[: translated.rindex(")") + 1]  # without the end-of-text anchor
    return re.compile(regex)


def walk(root: Path) -> FileTree:
    """Returns every file and folder below ``root``. Links are followed, except links that lead back up.

    Names that are not UTF-8 cannot be written into a dataset or a report. They are left out and listed, as are paths
    that are too long to be opened.

    Raises:
        UsageError: a folder cannot be listed.
        StoppedError: the disk, the network or a limit is at fault.
    """
    files: list[RawFile] = []
    folders: list[str] = []
    misnamed: list[str] = []
    outside: list[str] = []
    num_ignored = 0
    real_root = os.path.realpath(root)
    pending = [("", real_root, frozenset([real_root]))]  # folder, its real path, and the real paths above it
    while pending:
        folder, place, above = pending.pop()
        entries = _list(root / folder)
        if entries is None:
            misnamed.append(printable(folder))
            folders.remove(folder)
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if is_ignored(entry.name):
                num_ignored += 1
            elif not is_text(entry.name):
                misnamed.append(printable(path))
            elif (kind := _kind(entry)) == "folder":
                outside += [path] if _leads_outside(entry, real_root) else []
                store = _zarr_store(root / path, path)
                if store is not None:
                    files.append(store)
                    continue
                is_link = entry.is_symlink()
                real = os.path.realpath(entry.path) if is_link else f"{place}/{entry.name}"
                if is_link and real in above:  # only a link can lead to a folder that holds this one
                    num_ignored += 1
                    continue
                folders.append(path)
                pending.append((path, real, above | {real}))
            elif kind == "other":  # a pipe or another special file, or a broken link
                num_ignored += 1
            else:
                status = _status(entry)
                if status is None:
                    misnamed.append(printable(path))
                else:
                    outside += [path] if _leads_outside(entry, real_root) else []
                    files.append(RawFile(path, status.st_size, status.st_mtime_ns))
    return FileTree(root, files, sorted(folders), num_ignored, misnamed, outside)


def _leads_outside(entry: os.DirEntry[str], real_root: str) -> bool:
    if not entry.is_symlink():
        return False
    return not os.path.realpath(entry.path).startswith(real_root.rstrip("/") + "/")


def _zarr_store(place: Path, path: str) -> RawFile | None:
    """Returns the folder as one file if it is a Zarr store, else ``None``. Links within a store are not followed."""
    if not any(os.path.lexists(place / name) for name in _OF_ZARR):
        return None
    num_bytes, newest = 0, 0
    for folder, _, names in os.walk(place):
        for name in names:
            status = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - a store has 100,000 files
            num_bytes, newest = num_bytes + status.st_size, max(newest, status.st_mtime_ns)
    return RawFile(path, num_bytes, newest)


def natural_order(name: str) -> list[tuple[int, str]]:
    """Returns a sort key by which numbers count as numbers: ``frame_2`` comes before ``frame_10``."""
    return [(int(part) if part.isdecimal() else -1, part) for part in _DIGITS.split(name)]


def is_ignored(name: str) -> bool:
    """Returns whether ``name`` is one that file managers and archivers leave behind."""
    return name.startswith(".") or name in _IGNORED_NAMES


def _list(folder: Path) -> list[os.DirEntry[str]] | None:
    """Returns a folder's entries, or ``None`` if the folder's path is too long to be opened."""
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise_if_stopped(error, folder)
        raise UsageError(f"{folder}: cannot be listed: {error.strerror}", "check its permissions") from None


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

"""Finds files below a folder by the schema's patterns. Folders are listed as they are asked for. No file is opened."""

from __future__ import annotations

import fnmatch
import os
import re
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from vlapipe.pipeline.discover.listing import Listing, RawFile, list_folder
from vlapipe.schemas.errors import printable

__all__ = [
    "FileTree",
    "Found",
    "WholeTree",
    "Walk",
    "escaped",
    "excluded_by",
    "join",
    "match_end",
    "natural_order",
    "walk",
]

_PLACEHOLDER = re.compile(r"(\{camera\}|\{stem\})")
_WILD = re.compile(r"[*?\[]|\{camera\}|\{stem\}")
_WILD_SIGN = re.compile(r"([*?\[])")
_DIGITS = re.compile(r"(\d+)")
_LAST = chr(0x10FFFF)
_KEPT_FILES = 20_000  # files of listings that stay in memory
_KEPT_SEARCHES = 16


@dataclass(frozen=True, slots=True)
class Found:
    """A file that fits a pattern, and the values of ``{camera}`` and ``{stem}`` in its path."""

    file: RawFile
    camera: str | None
    stem: str | None


class FileTree:
    """The files and folders below ``root``, by their paths relative to ``root``.

    A folder is listed when it is asked for. The listings of the last folders stay in memory, so that the memory does
    not grow with the files.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.kept_files: float = _KEPT_FILES
        self._real_root = os.path.realpath(root)
        self._listings: OrderedDict[str, Listing | None] = OrderedDict()
        self._names: dict[str, list[str]] = {}
        self._num_kept = 0
        self._found: OrderedDict[tuple[str, str], list[Found]] = OrderedDict()

    def listing(self, folder: str) -> Listing | None:
        """Returns what a folder holds; ``None`` if its path is too long to be opened. ``"."`` is the root.

        Raises:
            UsageError: the folder cannot be listed.
            StoppedError: the disk, the network or a limit is at fault.
        """
        if folder in self._listings:
            self._listings.move_to_end(folder)
            return self._listings[folder]
        found = self._listings[folder] = list_folder(self.root, folder, self._real_root)
        self._num_kept += 1 + (len(found.files) if found else 0)
        while self._num_kept > self.kept_files and len(self._listings) > 1:
            gone, listing = self._listings.popitem(last=False)
            self._names.pop(gone, None)
            self._num_kept -= 1 + (len(listing.files) if listing else 0)
        return found

    def find(self, folder: str, pattern: str, stem: str | None = None) -> list[Found]:
        """Returns the files below ``folder`` that fit a pattern, sorted by name, folder by folder.

        ``*``, ``?`` and ``[...]`` stay within one part of the path. ``{camera}`` is any text within one part.
        ``{stem}`` is exactly ``stem``, or any text if ``stem`` is ``None``.
        """
        if stem is not None and "{stem}" in pattern:
            return self._find(folder, pattern.replace("{stem}", escaped(stem)))
        # Kept, because the same search is repeated for each episode of a flat folder.
        if (folder, pattern) not in self._found:
            self._found[folder, pattern] = self._find(folder, pattern)
            if len(self._found) > _KEPT_SEARCHES:
                self._found.popitem(last=False)
        return self._found[folder, pattern]

    def _find(self, folder: str, pattern: str) -> list[Found]:
        *above, last = pattern.split("/")
        places: list[tuple[str, dict[str, str]]] = [(folder, {})]
        for part in above:
            places = [
                (join(place, name), values | more)
                for place, values in places
                if (listing := self.listing(place)) is not None
                for name, more in _fitting(listing.folders, list(listing.folders), part)
            ]
        found = []
        for place, values in places:
            listing = self.listing(place)
            if listing is not None:
                for name, more in _fitting(listing.files, self._names_in(place, listing), last):
                    every = values | more
                    found.append(Found(listing.files[name], every.get("camera"), every.get("stem")))
        return found

    def _names_in(self, folder: str, listing: Listing) -> list[str]:
        if folder not in self._names:
            self._names[folder] = list(listing.files)
        return self._names[folder]


def _fitting(there: Container[str], names: list[str], part: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the names that fit one part of a pattern, with the values of its placeholders. ``names`` are in order."""
    wild = _WILD.search(part)
    if wild is None:  # one look-up, however many files lie in the folder
        if part in there:
            yield part, {}
        return
    prefix = part[: wild.start()]
    regex = _regex_of(part)
    for name in names[bisect_left(names, prefix) : bisect_left(names, prefix + _LAST)]:
        match = regex.fullmatch(name)
        if match is not None:
            yield name, match.groupdict()


@dataclass
class Walk:
    """Visits folders, each once, and counts what they leave out."""

    tree: FileTree
    num_ignored: int = 0
    misnamed: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def visit(self, folder: str) -> Listing:
        """Returns what a folder holds: nothing if its path is too long to be opened."""
        listing = self.tree.listing(folder)
        if listing is None:
            self.misnamed.append(printable(folder))
            return Listing({}, {})
        self.num_ignored += listing.num_ignored
        self.misnamed += listing.misnamed
        self.outside += listing.outside
        return listing

    def below(self, folder: str) -> Iterator[tuple[str, Listing]]:
        """Yields the folder and every folder below it, each with what it holds; a folder comes before those in it."""
        pending = [folder]
        while pending:
            place = pending.pop()
            listing = self.visit(place)
            yield place, listing
            pending += [join(place, name) for name in reversed(listing.folders)]


class WholeTree(FileTree):
    """A tree of which every folder has been listed. ``files`` holds all files by path, in the order of paths."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.kept_files = float("inf")
        walked = Walk(self)
        files = [file for _, listing in walked.below(".") for file in listing.files.values()]
        self.files = {file.path: file for file in sorted(files, key=lambda file: file.path)}
        self.num_ignored = walked.num_ignored
        self.misnamed = tuple(sorted(walked.misnamed))
        self.outside = tuple(sorted(walked.outside))
        self._paths = list(self.files)

    def below(self, folder: str) -> list[RawFile]:
        """Returns every file below a folder; ``"."`` is the root."""
        prefix = "" if folder == "." else f"{folder}/"
        return [
            self.files[path]
            for path in self._paths[bisect_left(self._paths, prefix) : bisect_left(self._paths, prefix + _LAST)]
        ]


def walk(root: Path) -> WholeTree:
    """Returns every file and folder below ``root``.

    Raises:
        UsageError: a folder cannot be listed.
        StoppedError: the disk, the network or a limit is at fault.
    """
    return WholeTree(root)


def join(folder: str, name: str) -> str:
    """Returns the path of what is called ``name`` in a folder; ``"."`` is the root."""
    return name if folder == "." else f"{folder}/{name}"


def escaped(text: str) -> str:
    """Returns a pattern that fits ``text`` alone: brackets in a name are no pattern."""
    return _WILD_SIGN.sub(r"[\1]", text)


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


def natural_order(name: str) -> list[tuple[int, str]]:
    """Returns a sort key by which numbers count as numbers: ``frame_2`` comes before ``frame_10``."""
    return [(int(part) if part.isdecimal() else -1, part) for part in _DIGITS.split(name)]

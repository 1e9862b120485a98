"""The arrays of a container by name. An array is loaded only when a caller asks for it, and never by unpickling."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.refused import RefusedError
from vlapipe.pipeline.read.text import first_line
from vlapipe.pipeline.shards.format.npy_header import steadily
from vlapipe.pipeline.stream_rows import SourceFile
from vlapipe.schemas.errors import StoppedError
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.surroundings import raise_if_stopped, stopped_by
from vlapipe.schemas.toml_table import did_you_mean

__all__ = [
    "NUMBERS",
    "ArrayEntry",
    "ArrayFiles",
    "Part",
    "forget_sources",
    "load_array",
    "refuse_array",
    "source_of",
    "stop_for",
]

NUMBERS = "iufb"  # kinds of dtype
_MOST_NUMBERS = 1 << 37  # of an array; only a damaged header states more
_READ_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Part:
    """The rows ``start <= row < stop`` of every array that has ``num_rows`` rows; other arrays are loaded whole."""

    start: int
    stop: int
    num_rows: int


@dataclass(frozen=True, kw_only=True)
class ArrayEntry:
    """An array that is not loaded yet.

    ``load(rows)`` returns the rows of the slice, or all rows if ``rows`` is ``None``. ``shape`` and ``dtype`` are
    ``None`` if only loading tells them. ``unwritten(rows)`` returns the first of these rows that the file does not
    hold, so that it is read as a fill value.
    """

    file: str  # relative to the dataset
    load: Callable[[slice | None], Any]
    shape: tuple[int, ...] | None = None
    dtype: np.dtype[Any] | None = None
    unwritten: Callable[[slice | None], int | None] | None = None


@dataclass(frozen=True, kw_only=True)
class ArrayFiles:
    """The arrays of an episode by name. Findings call the set of files ``label``.

    If the episode is a part of its container, arrays with a row a frame are cut to the part when they are loaded.
    """

    label: str
    arrays: Mapping[str, ArrayEntry]
    part: Part | None = None
    hashed: Future[SourceFile] | None = None

    @property
    def source(self) -> SourceFile:
        """Returns size and SHA-256 of the files, which another thread computes while the arrays are read."""
        assert self.hashed is not None, "opened without a digest"
        return self.hashed.result()

    def find(self, names: tuple[str, ...], findings: Findings, *, or_else: str | None = None) -> str | None:
        """Returns the first of ``names`` that exists, else ``or_else`` if it exists, else ``None`` with a finding."""
        for name in (*names, or_else):
            if name in self.arrays:
                return name
        accepted = [*names, or_else] if or_else else names
        expected = "an array " + " or ".join(repr(name) for name in accepted)
        found = f"none of it; {did_you_mean(names[0], self.arrays)}"
        findings.add("npz.missing_array", self.label, column=names[0], expected=expected, found=found)
        return None

    def file_of(self, name: str) -> str:
        """Returns the path of the file that holds the array."""
        return self.arrays[name].file

    def load(self, name: str, findings: Findings, *, kinds: str = NUMBERS) -> NDArray[Any] | None:
        """Returns an array of numbers, or ``None`` if the array holds something else or is damaged.

        ``kinds`` are the kinds of dtype that are accepted: texts too, for example.
        """
        array = load_array(lambda: self.load_any(name), self.file_of(name), name, findings, kinds=kinds)
        if array is not None:
            self.check_written(name, findings)
        return array

    def load_any(self, name: str) -> Any:
        """Returns an array of any kind, cut to the episode's part; raises whatever a damaged file makes of it."""
        entry, part = self.arrays[name], self.part
        if part is None:
            return entry.load(None)
        if entry.shape is not None:
            return entry.load(self.rows_of(name))
        loaded = entry.load(None)
        return loaded[part.start : part.stop] if len(np.atleast_1d(loaded)) >= part.num_rows else loaded

    def rows_of(self, name: str) -> slice | None:
        """Returns the rows of the array that belong to the episode, ``None`` for all of them."""
        shape, part = self.arrays[name].shape, self.part
        has_rows = part is not None and shape and shape[0] >= part.num_rows
        return slice(part.start, part.stop) if part is not None and has_rows else None

    def check_written(self, name: str, findings: Findings) -> None:
        """Reports rows that the file does not hold: a library reads zeros in their place, without a word."""
        entry = self.arrays[name]
        try:
            row = None if entry.unwritten is None else entry.unwritten(self.rows_of(name))
        except Exception as error:  # noqa: BLE001 - a damaged index of chunks fails in a dozen ways
            refuse_array(error, entry.file, name, findings)
            return
        if row is not None:
            expected, found = "rows that were written", f"none from row {row}"
            findings.add("npz.not_written", entry.file, column=name, expected=expected, found=found)


def load_array(
    load: Callable[[], Any], label: str, name: str, findings: Findings, *, kinds: str = NUMBERS
) -> NDArray[Any] | None:
    """Calls ``load`` and returns its result if that is an array of one of ``kinds``, else ``None``."""
    try:
        array = steadily(load)
    except Exception as error:  # noqa: BLE001 - a damaged member fails in a dozen ways
        refuse_array(error, label, name, findings)
        return None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds:
        found = str(array.dtype) if isinstance(array, np.ndarray) else "no array"
        findings.add("npz.dtype", label, column=name, expected="numbers", found=found)
        return None
    return array


def refuse_array(error: Exception, label: str, name: str, findings: Findings) -> None:
    """Adds the finding about an array whose loading raised ``error``.

    Raises:
        StoppedError: the disk or the memory is at fault, and not the array.
    """
    stop_for(error, label)
    if isinstance(error, RefusedError):
        code, expected, found = error.code, error.expected, error.found
    elif str(error).startswith("Object arrays"):
        code, expected, found = "npz.object_array", "an array of numbers", "Python objects"
    else:
        code, expected, found = "npz.unreadable", "a whole array", first_line(error)
    findings.add(code, label, column=name, expected=expected, found=found)


def stop_for(error: Exception, label: str) -> None:
    """Raises ``StoppedError`` if the disk or the memory is at fault; a damaged header may ask for any memory."""
    if isinstance(error, OSError | StoppedError):
        raise_if_stopped(error, label)
    elif isinstance(error, MemoryError) and math.prod(getattr(error, "shape", ())) < _MOST_NUMBERS:
        raise stopped_by(error, label) from None


def source_of(root: Path, files: list[str], label: str) -> SourceFile:
    """Returns size and SHA-256 of files, or of all files of a folder, one after the other in the order given.

    A container of many episodes is read once for this, not once an episode. Links within a folder are not followed.

    Raises:
        OSError: a file cannot be read.
    """
    stamps = tuple(stamp for file in files for stamp in _stamps(root / file))
    with _locks_lock:
        lock = _locks.setdefault(stamps[:1], Lock())
    with lock:  # threads that read episodes of one file wait for its digest instead of computing it too
        sha256 = _digest(stamps)
    num_bytes = sum(size for _, size, _ in stamps)
    return SourceFile(path=label, num_files=len(stamps), num_bytes=num_bytes, sha256=sha256)


def forget_sources() -> None:
    """Forgets what was known of folders. A folder may change meanwhile without a new date of its own."""
    _stamps_of_folder.cache_clear()
    with _locks_lock:
        _locks.clear()


_Stamp = tuple[str, int, int]  # path, bytes, date
_locks: dict[tuple[_Stamp, ...], Lock] = {}
_locks_lock = Lock()


def _stamps(path: Path) -> tuple[_Stamp, ...]:
    status = path.stat()
    if path.is_dir():
        return _stamps_of_folder(str(path), status.st_mtime_ns)
    return ((str(path), status.st_size, status.st_mtime_ns),)


@lru_cache(maxsize=64)
def _stamps_of_folder(folder: str, mtime_ns: int) -> tuple[_Stamp, ...]:
    """Returns the files of a folder. They are listed once, because a store may have 100,000 files."""
    del mtime_ns
    stamps = []
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    stamps.append((entry.path, status.st_size, status.st_mtime_ns))
    return tuple(sorted(stamps))


@lru_cache(maxsize=256)
def _digest(stamps: tuple[_Stamp, ...]) -> str:
    sha256 = hashlib.sha256()
    for path, _, _ in stamps:
        with Path(path).open("rb") as file:
            while piece := file.read(_READ_AT_ONCE):
                sha256.update(piece)
    return sha256.hexdigest()

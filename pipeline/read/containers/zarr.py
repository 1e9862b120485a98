"""Opens Zarr stores of format 2 and 3, folders and ZIP files: arrays by their paths, some rows at a time.

A store's files say where its parts are, and a library follows them. Here a part is found by the array's own path alone,
is never a link, and never becomes more bytes than the array's shape says.
"""

from __future__ import annotations

import json
import os
import stat
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.discover.file_tree import natural_order
from vlapipe.pipeline.discover.proportion import limit_bytes
from vlapipe.pipeline.read.containers.arrays import ArrayEntry, stop_for
from vlapipe.pipeline.read.containers.lazy import LazyArrays
from vlapipe.pipeline.read.containers.names import fits_parts
from vlapipe.pipeline.read.containers.zarr_array import ZarrArray, parse_zarr
from vlapipe.pipeline.read.refused import RefusedError, refuse_size
from vlapipe.pipeline.read.text import first_line
from vlapipe.schemas.findings import Findings

__all__ = ["ZarrStore", "open_zarr", "open_zarr_store"]

_MOST_DESCRIBED = 4 << 20  # bytes of a description
_MOST_NAMES = 20_000
_MOST_DEPTH = 32  # folders in folders of a ZIP
_GROUPS = (".zgroup", "zarr.json")
_MOST_CHUNKS = 1 << 22  # of one array that is read at once


class _Files(Protocol):
    def size(self, key: str) -> int | None: ...

    def read(self, key: str, most: int) -> bytes | None: ...

    def below(self, folder: str) -> list[str]: ...


class _Folder:
    """The files of a store that is a folder. A link is refused, wherever it leads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: set[str] = set()  # folders that are no links

    def size(self, key: str) -> int | None:
        folder, _, _ = key.rpartition("/")
        self._refuse_links(folder)
        try:
            status = os.lstat(f"{self._path}/{key}")
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISLNK(status.st_mode) or not stat.S_ISREG(status.st_mode):
            raise RefusedError("npz.outside", "a file of the store", f"a link at {key!r}")
        return status.st_size

    def read(self, key: str, most: int) -> bytes | None:
        size = self.size(key)
        if size is None:
            return None
        if size > most:
            raise ValueError(f"{key}: {size:,} bytes, more than {most:,}")
        with open(f"{self._path}/{key}", "rb", opener=_without_links) as file:
            return file.read(most + 1)

    def below(self, folder: str) -> list[str]:
        self._refuse_links(folder)
        try:
            with os.scandir(f"{self._path}/{folder}") as found:
                return sorted(entry.name for entry in found if entry.is_dir(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _refuse_links(self, folder: str) -> None:
        if folder in self._known:
            return
        at = str(self._path)
        for part in folder.split("/") if folder else ():
            if part in ("", ".", ".."):
                raise RefusedError("npz.outside", "a path within the store", repr(folder))
            at += f"/{part}"
            if os.path.islink(at):  # noqa: PTH114
                raise RefusedError("npz.outside", "a folder of the store", f"a link at {folder!r}")
        self._known.add(folder)


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


class _Zip:
    """The members of a store that is a ZIP file."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._members = {member.filename: member for member in archive.infolist() if not member.is_dir()}
        self._lock = Lock()
        self._below: dict[str, set[str]] = {}
        for name in self._members:
            parts = name.split("/", _MOST_DEPTH)[:-1]  # what lies deeper is not listed
            for i, part in enumerate(parts):
                self._below.setdefault("/".join(parts[:i]), set()).add(part)

    def size(self, key: str) -> int | None:
        member = self._members.get(key)
        return None if member is None else member.file_size

    def read(self, key: str, most: int) -> bytes | None:
        member = self._members.get(key)
        if member is None:
            return None
        if member.file_size > most:
            raise ValueError(f"{key}: {member.file_size:,} bytes, more than {most:,}")
        with self._lock, self._archive.open(member) as file:
            return file.read(most + 1)

    def below(self, folder: str) -> list[str]:
        return sorted(self._below.get(folder, ()))


class ZarrStore:
    """One open store. Thread-safe."""

    def __init__(self, files: _Files) -> None:
        self._files = files

    def array(self, path: str) -> _Array | None:
        """Returns the array at ``path``, or member ``b`` of the records of ``a`` at ``a.b``; ``None`` if there is none.

        Raises:
            RefusedError: the array is of a kind that is not read.
            Exception: the array's description is damaged.
        """
        described = self._describe(path)
        if described is not None:
            return _Array(self._files, path, parse_zarr(described), ())
        head, _, member = path.rpartition(".")
        described = self._describe(head) if head else None
        if described is None:
            return None
        array = parse_zarr(described)
        return _Array(self._files, head, array, (member,)) if member in (array.dtype.names or ()) else None

    def groups(self, pattern: str) -> list[str]:
        """Returns the paths of the groups that fit ``pattern`` part by part, in natural order."""
        found = [""]
        for part in pattern.strip("/").split("/"):
            found = [
                f"{group}/{name}".lstrip("/")
                for group in found
                for name in self._files.below(group)
                if fits_parts(name, part)
            ]
        return sorted((path for path in found if self._is_group(path)), key=natural_order)

    def names(self, base: str = "") -> list[str]:
        """Returns the paths of the arrays below ``base``, relative to it."""
        found: list[str] = []
        pending = [base]
        while pending and len(found) < _MOST_NAMES:
            group = pending.pop()
            for name in self._files.below(group):
                path = f"{group}/{name}".lstrip("/")
                if self._is_array(path):
                    found.append(path.removeprefix(f"{base}/") if base else path)
                elif self._is_group(path):
                    pending.append(path)
        return sorted(found)

    def attributes(self, path: str) -> dict[str, Any]:
        """Returns the attributes of a group."""
        start = f"{path}/" if path else ""
        given = self._json(f"{start}.zattrs")
        if given is None:
            given = (self._json(f"{start}zarr.json") or {}).get("attributes")
        return given if isinstance(given, dict) else {}

    def _is_array(self, path: str) -> bool:
        """Returns whether there is an array; a damaged description counts, so that loading the array reports it."""
        try:
            return self._describe(path) is not None
        except (OSError, ValueError, RecursionError):
            return True

    def _is_group(self, path: str) -> bool:
        start = f"{path}/" if path else ""
        return any(self._files.size(f"{start}{name}") is not None for name in _GROUPS)

    def _describe(self, path: str) -> dict[str, Any] | None:
        start = f"{path}/" if path else ""
        described = self._json(f"{start}.zarray")
        if described is not None:
            return described
        described = self._json(f"{start}zarr.json")
        return described if described is not None and described.get("node_type") == "array" else None

    def _json(self, key: str) -> dict[str, Any] | None:
        text = self._files.read(key, _MOST_DESCRIBED)
        if text is None:
            return None
        found = json.loads(text)
        if not isinstance(found, dict):
            raise RefusedError("npz.unreadable", "a JSON object", f"{type(found).__name__} in {key}")
        return found


class _Array:
    """One array of an open store, or one member of its records."""

    def __init__(self, files: _Files, path: str, described: ZarrArray, members: tuple[str, ...]) -> None:
        self._files, self._path, self._described, self._members = files, path, described, members
        dtype = described.dtype[members[0]] if members else described.dtype
        base, inner = dtype.subdtype or (dtype, ())
        self.dtype: np.dtype[Any] = base
        self.shape: tuple[int, ...] = (*described.shape, *inner)

    def load(self, rows: slice | None = None) -> NDArray[Any]:
        """Returns the rows, all by default. Chunks that are not there are filled with the array's fill value.

        Raises:
            RefusedError: a codec is missing, or the array asks for more memory than its store can fill.
            Exception: a chunk is damaged.
        """
        array = self._described
        start, stop = self._range(rows)
        shape = (stop - start, *array.shape[1:]) if array.shape else ()
        present, stored = self._present(start, stop)
        refuse_size(shape, array.dtype.itemsize, stored)
        refuse_size(array.chunks, array.dtype.itemsize, stored)
        fill = _fill(array)
        out = np.full(shape, fill, dtype=array.dtype) if len(present) < self._count(start, stop) else None
        if out is None:
            out = np.empty(shape, dtype=array.dtype)
        for at, size in present:
            key = self._key(at)
            data = self._files.read(key, max(size, 0))
            if data is None or len(data) != size:
                raise OSError(f"{key} changed while it was read")
            chunk = self._decoded(key, data)
            if not array.shape:
                return np.asarray(chunk.reshape(()))
            begin = [i * c for i, c in zip(at, array.chunks, strict=True)]
            first, last = max(begin[0], start), min(begin[0] + array.chunks[0], stop)
            into, taken = [slice(first - start, last - start)], [slice(first - begin[0], last - begin[0])]
            for b, c, n in zip(begin[1:], array.chunks[1:], array.shape[1:], strict=True):
                into.append(slice(b, min(b + c, n)))
                taken.append(slice(0, min(c, n - b)))
            out[tuple(into)] = chunk[tuple(taken)]
        return out[self._members[0]] if self._members else out

    def unwritten(self, rows: slice | None = None) -> int | None:
        """Returns the first of the rows of which a chunk is not in the store."""
        start, stop = self._range(rows)
        for at in self._described.chunks_of(start, stop):
            if self._files.size(self._key(at)) is None:
                return max(at[0] * self._described.chunks[0], start) if at else 0
        return None

    def _decoded(self, key: str, data: bytes) -> NDArray[Any]:
        try:
            return self._described.decode(data)
        except (RefusedError, MemoryError):
            raise
        except Exception as error:
            raise ValueError(f"chunk {key}: {first_line(error)}") from error

    def _range(self, rows: slice | None) -> tuple[int, int]:
        if not self._described.shape:
            return 0, 1
        start, stop, _ = (rows or slice(None)).indices(self._described.shape[0])
        return start, max(start, stop)

    def _key(self, at: tuple[int, ...]) -> str:
        key = self._described.key(at)
        return f"{self._path}/{key}" if self._path else key

    def _count(self, start: int, stop: int) -> int:
        array = self._described
        if not array.shape:
            return 1
        count = -(-stop // array.chunks[0]) - start // array.chunks[0] if stop > start else 0
        for n, c in zip(array.shape[1:], array.chunks[1:], strict=True):
            count *= -(-n // c)
        return count

    def _present(self, start: int, stop: int) -> tuple[list[tuple[tuple[int, ...], int]], int]:
        """Returns the chunks that are in the store, each with its bytes, and the bytes of all of them."""
        count = self._count(start, stop)
        if count > _MOST_CHUNKS:
            raise RefusedError("npz.too_large", f"at most {_MOST_CHUNKS:,} chunks", f"{count:,}")
        found, total = [], 0
        for at in self._described.chunks_of(start, stop):
            size = self._files.size(self._key(at))
            if size is not None:
                if size > limit_bytes(self._described.chunk_bytes):
                    raise RefusedError(
                        "npz.too_large", f"a chunk of {self._described.chunk_bytes:,} bytes", f"{size:,}"
                    )
                found.append((at, size))
                total += size
        return found, total


def _fill(array: ZarrArray) -> Any:
    if array.objects is not None:
        return "" if array.objects == "vlen-utf8" else b""
    if array.fill is None or array.dtype.names:
        return np.zeros((), dtype=array.dtype)[()]
    return np.array(array.fill).astype(array.dtype)[()]  # texts such as "NaN" too


def open_zarr_store(path: Path, stack: ExitStack) -> ZarrStore:
    """Opens a store, which stays open as long as ``stack``.

    Raises:
        OSError: there is no such store.
        zipfile.BadZipFile: the file is no ZIP, or cut short.
    """
    if path.is_dir():
        return ZarrStore(_Folder(path))
    return ZarrStore(_Zip(stack.enter_context(zipfile.ZipFile(path))))


def open_zarr(
    path: Path, label: str, base: str | None, stack: ExitStack, findings: Findings
) -> Mapping[str, ArrayEntry] | None:
    """Returns the arrays of the store by name; ``None`` with a finding if it cannot be opened."""
    try:
        store = open_zarr_store(path, stack)
    except Exception as error:  # noqa: BLE001 - a damaged ZIP fails in a dozen ways
        stop_for(error, label)
        findings.add("npz.unreadable", label, expected="a Zarr store", found=first_line(error))
        return None

    def entry(name: str) -> ArrayEntry | None:
        try:
            array = store.array(name)
        except Exception as error:  # noqa: BLE001 - a damaged description fails in a dozen ways
            stop_for(error, label)
            why = error if isinstance(error, RefusedError) else _damaged(error)
            return ArrayEntry(file=label, load=why.instead_of_loading)
        if array is None:
            return None
        return ArrayEntry(file=label, load=array.load, shape=array.shape, dtype=array.dtype, unwritten=array.unwritten)

    return LazyArrays(entry, store.names, base, groups=store.groups, attributes=store.attributes)


def _damaged(error: Exception) -> RefusedError:
    return RefusedError("npz.unreadable", "a description of an array", first_line(error))

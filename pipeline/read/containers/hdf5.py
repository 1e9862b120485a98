"""Opens HDF5 files: arrays by their paths, some rows at a time. Nothing outside the file is read, nothing is executed.

The library would follow links into other files, and open other files for virtual and external storage. So every link is
looked at before it is followed, and every array before it is read.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.discover.file_tree import natural_order
from vlapipe.pipeline.discover.proportion import MOST_FREE, limit_bytes
from vlapipe.pipeline.read.containers.arrays import ArrayEntry, stop_for
from vlapipe.pipeline.read.containers.lazy import LazyArrays
from vlapipe.pipeline.read.containers.names import fits_parts
from vlapipe.pipeline.read.refused import RefusedError, refuse_size
from vlapipe.pipeline.read.text import first_line
from vlapipe.schemas.extras import need
from vlapipe.schemas.findings import Findings

__all__ = ["Hdf5File", "open_hdf5", "open_hdf5_file"]

_MOST_LINKS = 32  # soft links on the way to an array
_MOST_DEPTH = 32
_MOST_NAMES = 5_000  # arrays and groups that are opened for a list of names; each takes 0.2 ms
_MOST_ATTRIBUTES = 1_000  # of a group
_MOST_ATTRIBUTE = 64 << 10  # bytes of an attribute; larger ones are no metadata
_MOST_SINGLE = 256  # members of a group that is searched for single values; in a larger one lie episodes
_DEFLATE, _SHUFFLE = 1, 2
_FILTERS = {
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32026: "blosc2",
}


class Hdf5File:
    """One open file. Thread-safe as far as h5py is: it lets one thread read at a time."""

    def __init__(self, file: Any, num_bytes: int) -> None:
        self._file = file
        self._num_bytes = num_bytes

    def array(self, path: str) -> _Array | None:
        """Returns the array at ``path``, ``None`` if there is none; ``a.b`` is member ``b`` of the compound ``a``.

        Raises:
            RefusedError: a link on the way leads out of the file.
        """
        import h5py

        found = self._find(path)
        if isinstance(found, h5py.Dataset):
            return _Array(found, (), self._num_bytes)
        head, _, member = path.rpartition(".")
        members: list[str] = []
        while head:
            members.insert(0, member)
            found = self._find(head)
            if isinstance(found, h5py.Dataset):
                return _Array(found, tuple(members), self._num_bytes) if _member(found.dtype, members) else None
            head, _, member = head.rpartition(".")
        return None

    def groups(self, pattern: str) -> list[str]:
        """Returns the paths of groups that fit ``pattern``, in natural order. Links out of the file are passed over."""
        import h5py

        found = [("", self._file)]
        for part in pattern.strip("/").split("/"):
            below = []
            for path, group in found:
                for name in _names(group):
                    if fits_parts(name, part):
                        child = self._child(group, name, path, 0, quiet=True)
                        if isinstance(child, h5py.Group):
                            below.append((f"{path}/{name}".lstrip("/"), child))
            found = below
        return sorted((path for path, _ in found), key=natural_order)

    def names(self, base: str = "") -> list[str]:
        """Returns the paths of the arrays below ``base``, relative to it; compound arrays by their members."""
        import h5py

        start = self._find(base)
        found: list[str] = []
        pending = [("", start, 0)] if isinstance(start, h5py.Group) else []
        seen, left = set(), _MOST_NAMES
        while pending and left > 0:
            path, group, depth = pending.pop()
            address = h5py.h5o.get_info(group.id).addr
            if address in seen or depth > _MOST_DEPTH:
                continue
            seen.add(address)
            names = _names(group)[:left]
            left -= len(names)
            for name in names:
                child = self._child(group, name, path, 0, quiet=True)
                inner = f"{path}/{name}" if path else name
                if isinstance(child, h5py.Group):
                    pending.append((inner, child, depth + 1))
                elif isinstance(child, h5py.Dataset):
                    found += [f"{inner}.{m}" for m in _member_names(child.dtype)] or [inner]
        return sorted(found)

    def attributes(self, path: str) -> dict[str, Any]:
        """Returns what a group says of itself: its attributes, and its arrays that are a single text or number.

        What is large or not plain is left out.
        """
        import h5py

        found = self._find(path)
        if found is None:
            return {}
        plain = self._single_values(found, path)
        for name in itertools.islice(found.attrs, _MOST_ATTRIBUTES):
            try:
                attribute = h5py.h5a.open(found.id, name.encode())
                if attribute.get_storage_size() <= _MOST_ATTRIBUTE and not _is_reference(attribute.dtype):
                    plain[name] = found.attrs[name]
            except (OSError, TypeError, ValueError, RuntimeError, KeyError):
                continue
        return plain

    def _single_values(self, group: Any, path: str) -> dict[str, Any]:
        """Returns the arrays of a group that have no rows: a lab may keep the instruction in one of them."""
        import h5py

        if not isinstance(group, h5py.Group) or len(group) > _MOST_SINGLE:
            return {}
        single: dict[str, Any] = {}
        for name in group:
            # h5py's own objects take ten times as long to make, and nearly all arrays have rows.
            with contextlib.suppress(KeyError, OSError, ValueError, RuntimeError):  # RefusedError is a ValueError
                if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
                    continue
                child = h5py.h5o.open(group.id, name.encode())
                if not isinstance(child, h5py.h5d.DatasetID) or child.shape not in ((), (1,)):
                    continue
                is_text = h5py.check_string_dtype(child.dtype) is not None
                array = self.array(f"{path}/{name}") if is_text or child.shape == () else None
                if array is not None and child.get_storage_size() <= _MOST_ATTRIBUTE:
                    single[name] = array.load()
        return single

    def _find(self, path: str, depth: int = 0) -> Any:
        node, at = self._file, ""
        for part in path.split("/"):
            if part in ("", "."):
                continue
            node = self._child(node, part, at, depth)
            at = f"{at}/{part}"
            if node is None:
                return None
        return node

    def _child(self, group: Any, name: str, path: str, depth: int, *, quiet: bool = False) -> Any:
        """Returns the object that a link of ``group`` leads to, ``None`` if there is none.

        Raises:
            RefusedError: the link leads out of the file; if ``quiet``, the result is ``None``.
        """
        import h5py

        if not isinstance(group, h5py.Group) or not group.id.links.exists(name.encode()):
            return None
        kind = group.id.links.get_info(name.encode()).type
        try:
            if kind == h5py.h5l.TYPE_HARD:
                return group[name]
            if kind != h5py.h5l.TYPE_SOFT:
                raise RefusedError("npz.outside", "an array in the file itself", f"a link to another file at {name!r}")
            target = group.id.links.get_val(name.encode()).decode("utf-8", "surrogateescape")
            if depth >= _MOST_LINKS:
                raise RefusedError("npz.outside", "a link that leads to an array", f"links in a circle at {name!r}")
            return self._find(target if target.startswith("/") else f"{path}/{target}", depth + 1)
        except RefusedError:
            if quiet:
                return None
            raise
        except (KeyError, OSError, RuntimeError, ValueError) as error:  # the object that a link leads to is damaged
            if quiet:
                return None
            raise RefusedError("npz.unreadable", "a whole object", f"{first_line(error)} at {name!r}") from None


class _Array:
    """One array of an open file, or one member of its rows."""

    def __init__(self, dataset: Any, members: tuple[str, ...], num_bytes: int) -> None:
        self._dataset, self._members = dataset, members
        self._file_bytes = num_bytes
        dtype = _member(dataset.dtype, members)
        assert dtype is not None
        base, inner = dtype.subdtype or (dtype, ())
        self.dtype: np.dtype[Any] = base
        self.shape: tuple[int, ...] = (*(dataset.shape or ()), *inner)

    def load(self, rows: slice | None = None) -> NDArray[Any]:
        """Returns the rows, all by default, of a numeric dtype, bytes, or texts and bytes as objects.

        Raises:
            RefusedError: the array is of a kind that is not read, or asks for more memory than its file can fill.
        """
        import h5py

        dataset = self._dataset
        if dataset.shape is None:
            raise RefusedError("npz.shape", "an array", "an empty dataspace")
        dtype = dataset.dtype
        if _is_reference(dtype):
            raise RefusedError("npz.object_array", "an array of numbers", "references to other objects")
        self._refuse_storage()
        if h5py.check_vlen_dtype(dtype) is not None or (
            h5py.check_string_dtype(dtype) is not None and dtype.kind == "O"
        ):
            return self._load_objects(rows)
        if dtype.hasobject:
            raise RefusedError("npz.object_array", "an array of numbers", "records with texts or references in them")
        if not dataset.shape:
            return np.asarray(dataset[()])
        start, stop, _ = (rows or slice(None)).indices(dataset.shape[0])
        if self._members:
            values = dataset.fields(self._members[0])[start:stop]
            for member in self._members[1:]:
                values = values[member]
            return np.asarray(values)
        chunks = _chunks_outside_the_lock(dataset, start, stop)
        return np.asarray(dataset[start:stop]) if chunks is None else chunks

    def unwritten(self, rows: slice | None = None) -> int | None:
        """Returns the first of the rows that was never written, so that it would be read as a fill value."""
        dataset = self._dataset
        if not dataset.shape or not dataset.size:
            return None
        start, stop, _ = (rows or slice(None)).indices(dataset.shape[0])
        if start >= stop:
            return None
        if not dataset.id.get_storage_size():
            return start
        if dataset.chunks is None:
            return None
        across = math.prod(-(-n // c) for n, c in zip(dataset.shape[1:], dataset.chunks[1:], strict=True))
        length = dataset.chunks[0]
        expected = across * -(-dataset.shape[0] // length)
        if expected <= dataset.id.get_num_chunks():
            return None
        counts: dict[int, int] = {}

        def count(chunk: Any) -> None:
            counts[chunk.chunk_offset[0]] = counts.get(chunk.chunk_offset[0], 0) + 1

        dataset.id.chunk_iter(count)
        for first in range(start // length * length, stop, length):
            if counts.get(first, 0) < across:
                return max(first, start)
        return None

    def _refuse_storage(self) -> None:
        import h5py

        dataset = self._dataset
        made = dataset.id.get_create_plist()
        if dataset.is_virtual:
            raise RefusedError("npz.outside", "an array in the file itself", "a virtual one, of other files' arrays")
        if made.get_external_count():
            raise RefusedError("npz.outside", "an array in the file itself", "one whose numbers lie in another file")
        for i in range(made.get_nfilters()):
            code, _, _, name = made.get_filter(i)
            if not h5py.h5z.filter_avail(code) and not _find_plugin(code):
                named = name.decode("utf-8", "replace").strip("\0") or _FILTERS.get(code, "")
                said = f"filter {code}" + (f" ({named.split(':')[0].split(';')[0].strip()})" if named else "")
                raise RefusedError("npz.codec", "an array that can be unpacked", f"{said}, which is not installed here")
        stored = min(dataset.id.get_storage_size(), self._file_bytes)
        refuse_size(dataset.shape, dataset.dtype.itemsize, stored)
        if dataset.chunks:
            refuse_size(dataset.chunks, dataset.dtype.itemsize, stored)
        elif stored and math.prod(dataset.shape) * dataset.dtype.itemsize > stored:
            found = f"{math.prod(dataset.shape) * dataset.dtype.itemsize:,} bytes in a file of {self._file_bytes:,}"
            raise RefusedError("npz.unreadable", "a whole array", found)

    def _load_objects(self, rows: slice | None) -> NDArray[Any]:
        """Returns texts as ``str`` or bytes, and arrays of unequal length as arrays, in an array of objects.

        Many rows may name one large object of the file, so the rows are read a few at a time and counted.
        """
        dataset = self._dataset
        if not dataset.shape:
            return np.array([dataset[()]], dtype=object).reshape(())
        start, stop, _ = (rows or slice(None)).indices(dataset.shape[0])
        row_items = max(1, math.prod(dataset.shape[1:]))
        at_once = max(1, min(256, MOST_FREE // max(self._file_bytes * row_items, 1)))
        most, taken = limit_bytes(0) + 2 * self._file_bytes, 0
        found = np.empty((stop - start, *dataset.shape[1:]), dtype=object)
        for at in range(start, stop, at_once):
            block = dataset[at : min(at + at_once, stop)]
            taken += sum(_size_of(item) for item in block.flat)
            if taken > most:
                expected = f"at most {most:,} bytes in a file of {self._file_bytes:,}"
                raise RefusedError("npz.too_large", expected, f"more by row {at}")
            found[at - start : at - start + len(block)] = block
        return found


def _size_of(item: Any) -> int:
    return int(item.nbytes) if isinstance(item, np.ndarray) else len(item)


def _names(group: Any) -> list[str]:
    """Returns the names of a group's links; none of them is followed."""
    return sorted(name.decode("utf-8", "surrogateescape") for name in group.id)


def _is_reference(dtype: np.dtype[Any]) -> bool:
    import h5py

    inner = h5py.check_vlen_dtype(dtype)
    if inner is not None and not isinstance(inner, type):
        return _is_reference(inner)
    return h5py.check_ref_dtype(dtype) is not None


def _member(dtype: np.dtype[Any], members: Any) -> np.dtype[Any] | None:
    for member in members:
        if dtype.names is None or member not in dtype.names:
            return None
        dtype = dtype[member]
    return dtype


def _member_names(dtype: np.dtype[Any], above: str = "") -> list[str]:
    found: list[str] = []
    for name in dtype.names or ():
        found += _member_names(dtype[name], f"{above}{name}.") or [f"{above}{name}"]
    return found


def _find_plugin(code: int) -> bool:
    """Returns whether the package of filters, if it is installed, has this filter."""
    import h5py

    with contextlib.suppress(ImportError):
        import hdf5plugin  # type: ignore[import-not-found]  # noqa: F401
    return bool(h5py.h5z.filter_avail(code))


def _chunks_outside_the_lock(dataset: Any, start: int, stop: int) -> NDArray[Any] | None:
    """Returns rows of an array packed by deflate, unpacked here; ``None`` if the library has to read them.

    h5py unpacks under a lock that all threads of a process share. Here only the packed bytes are read under that lock.
    """
    chunk, shape, dtype = dataset.chunks, dataset.shape, dataset.dtype
    made = dataset.id.get_create_plist()
    filters = [made.get_filter(i)[0] for i in range(made.get_nfilters())]
    if chunk is None or filters not in ([_DEFLATE], [_SHUFFLE, _DEFLATE]) or dtype.kind not in "iufb":
        return None
    if dtype.kind == "b" or dtype.subdtype or stop <= start:
        return None
    num_bytes = math.prod(chunk) * dtype.itemsize
    out = np.empty((stop - start, *shape[1:]), dtype=dtype)
    for index in np.ndindex(*(-(-n // c) for n, c in zip((stop, *shape[1:]), chunk, strict=True))):
        begin = tuple(i * c for i, c in zip(index, chunk, strict=True))
        if begin[0] + chunk[0] <= start:
            continue
        if dataset.id.get_chunk_info_by_coord(begin).byte_offset is None:
            return None
        mask, packed = dataset.id.read_direct_chunk(begin)
        if mask:
            return None
        inflate = zlib.decompressobj()
        raw = inflate.decompress(packed, num_bytes + 1)
        if len(raw) != num_bytes:
            raise OSError(f"the chunk at row {begin[0]} holds another number of bytes than the file says")
        if len(filters) == 2 and dtype.itemsize > 1:
            raw = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, -1).T.tobytes()
        values = np.frombuffer(raw, dtype).reshape(chunk)
        first, last = max(begin[0], start), min(begin[0] + chunk[0], stop)
        ends = tuple(min(b + c, n) for b, c, n in zip(begin, chunk, shape, strict=True))[1:]
        into = (slice(first - start, last - start), *(slice(b, e) for b, e in zip(begin[1:], ends, strict=True)))
        out[into] = values[
            (slice(first - begin[0], last - begin[0]), *(slice(0, e - b) for b, e in zip(begin[1:], ends, strict=True)))
        ]
    return out


@contextlib.contextmanager
def open_hdf5_file(path: Path) -> Iterator[Hdf5File]:
    """Opens a file for reading. h5py must be installed.

    Raises:
        OSError: the file cannot be opened, is cut short, or is being written.
    """
    import h5py

    with h5py.File(os.fspath(path), "r") as file:
        yield Hdf5File(file, path.stat().st_size)


def open_hdf5(
    path: Path, label: str, base: str | None, stack: ExitStack, findings: Findings
) -> Mapping[str, ArrayEntry] | None:
    """Returns the arrays of the file by name; ``None`` with a finding if it cannot be opened.

    Raises:
        UsageError: h5py is not installed.
    """
    need("h5py", "hdf5", label)
    try:
        file = stack.enter_context(open_hdf5_file(path))
    except BlockingIOError:
        findings.add("npz.unreadable", label, expected="a finished file", found="one that another program writes")
        return None
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        stop_for(error, label)
        findings.add("npz.unreadable", label, expected="an HDF5 file", found=first_line(error))
        return None

    def entry(name: str) -> ArrayEntry | None:
        try:
            array = file.array(name)
        except RefusedError as refused:
            return ArrayEntry(file=label, load=refused.instead_of_loading)
        except Exception as error:  # noqa: BLE001 - a damaged file fails in a dozen ways, wherever it is looked into
            stop_for(error, label)
            damaged = RefusedError("npz.unreadable", "a whole HDF5 file", first_line(error))
            return ArrayEntry(file=label, load=damaged.instead_of_loading)
        if array is None:
            return None
        return ArrayEntry(file=label, load=array.load, shape=array.shape, dtype=array.dtype, unwritten=array.unwritten)

    return LazyArrays(entry, file.names, base, groups=file.groups, attributes=file.attributes)

"""Long images: those of a camera that are too many for memory lie in a file without a name, and are mapped.

A camera of one long episode may record more than a machine has memory, and a shard holds whole episodes. Up to
``MOST_HELD`` bytes a camera lies in ordinary memory. More go to a file beside the shard that is being built. The file
has no name, so it is gone with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import threading
import weakref
from array import array
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import IO, Any, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vlapipe.pipeline.shards.format.atomic import TEMP_PREFIX
from vlapipe.schemas.surroundings import stopped_by

__all__ = ["MOST_HELD", "LongImages", "Pieces", "empty_images", "hand_back", "picked"]

MOST_HELD = 128 << 20  # bytes of one array in ordinary memory
_EVERY_S = 0.1  # in which a disk or a decoder brings some 100 MB into memory
_PICKED = 1024  # positions at once
_ZEROS = bytes(1 << 20)


class LongImages:
    """The place of long images while one shard is built. A context: what it maps does not stay in memory meanwhile.

    Mapped bytes count as this process's memory from the moment when they are written or read. A thread hands them back
    to the system every tenth of a second: they stay in its cache of files as long as it has room for them.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Take the folder of the files without names, by default that of the system for temporary files."""
        self.folder = Path(tempfile.gettempdir()) if folder is None else folder
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> LongImages:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the thread. Arrays that are mapped stay so for as long as somebody has them."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    @contextlib.contextmanager
    def of_this_thread(self) -> Iterator[None]:
        """Makes this the place of the images that this thread reads."""
        token = _here.set(self)
        try:
            yield
        finally:
            _here.reset(token)

    def file(self) -> IO[bytes]:
        """Returns a new file without a name."""
        with self._named():
            return tempfile.TemporaryFile(prefix=TEMP_PREFIX, dir=self.folder)

    def empty(self, num_bytes: int) -> NDArray[np.uint8]:
        """Returns bytes that can be written, mapped from a new file.

        Raises:
            StoppedError: the disk has no room for them. Later it would end the process, without a word.
        """
        with self.file() as file, self._named():
            _reserve(file, num_bytes)
            return self._mapped(file, mmap.ACCESS_WRITE)

    def whole(self, file: IO[bytes]) -> NDArray[np.uint8]:
        """Returns the bytes of a file that was written, read-only."""
        with self._named():
            file.flush()
            return self._mapped(file, mmap.ACCESS_READ)

    def write(self, file: IO[bytes], data: bytes) -> None:
        """Adds bytes to a file without a name."""
        with self._named():
            file.write(data)

    def _mapped(self, file: IO[bytes], access: int) -> NDArray[np.uint8]:
        mapped = mmap.mmap(file.fileno(), 0, access=access)
        with _lock:
            _maps.add(mapped)
            if self._thread is None:
                self._thread = threading.Thread(target=self._hand_back, name="vlapipe-long-images", daemon=True)
                self._thread.start()
        return np.frombuffer(mapped, dtype=np.uint8)

    def _hand_back(self) -> None:
        while not self._done.wait(_EVERY_S):
            hand_back()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Gives errors of a file without a name that of its folder."""
        try:
            yield
        except OSError as error:
            error.filename = str(self.folder)
            raise stopped_by(error, self.folder) from None


_maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
_lock = threading.Lock()
_here: ContextVar[LongImages | None] = ContextVar("long images", default=None)


def hand_back() -> None:
    """Hands the mapped bytes of all long images back to the system, which reads them again when they are needed."""
    if hasattr(mmap, "MADV_DONTNEED"):
        with _lock:
            for each in list(_maps):
                each.madvise(mmap.MADV_DONTNEED)  # of a shared map of a file: nothing that was written is lost


def empty_images(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Returns an array for images, whose values mean nothing yet: in memory, or mapped if it is large.

    Outside a ``LongImages`` of this thread, every array lies in memory.
    """
    kind, here = np.dtype(dtype), _here.get()
    num_bytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    if here is None or num_bytes <= MOST_HELD:
        return np.empty(shape, dtype=kind)
    return here.empty(num_bytes).view(kind).reshape(shape)


def picked(data: NDArray[np.uint8], at: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Returns ``data[at]``, read in steps, because the system maps 64 KB around each byte that is looked at."""
    if data.nbytes <= MOST_HELD:
        return data[at]
    found = np.empty(at.shape, dtype=np.uint8)
    for start in range(0, len(at), _PICKED):
        found[start : start + _PICKED] = data[at[start : start + _PICKED]]
        hand_back()
    return found


def _reserve(file: IO[bytes], num_bytes: int) -> None:
    """Has the disk keep room for a file, as a write into a map that finds none ends the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, num_bytes)
        return
    for start in range(0, num_bytes, len(_ZEROS)):
        file.write(_ZEROS[: num_bytes - start])
    file.flush()


class Pieces(Sequence[bytes]):
    """Pieces of bytes, such as image files, one after the other. Together they may be larger than the memory."""

    def __init__(self) -> None:
        self._here = _here.get()
        self._held: list[bytes] = []
        self._ends = array("q", [0])
        self._file: IO[bytes] | None = None
        self._order: Sequence[int] | None = None

    def append(self, piece: bytes) -> None:
        """Adds a piece at the end."""
        assert self._order is None, "sorted pieces take no more"
        self._ends.append(self._ends[-1] + len(piece))
        if self._here is not None and self._file is None and self._ends[-1] > MOST_HELD:
            self._file = self._here.file()
            for each in self._held:
                self._here.write(self._file, each)
            self._held = []
        if self._file is None or self._here is None:
            self._held.append(piece)
        else:
            self._here.write(self._file, piece)

    def __len__(self) -> int:
        """Returns the number of pieces."""
        return len(self._ends) - 1

    @overload
    def __getitem__(self, number: int) -> bytes: ...

    @overload
    def __getitem__(self, number: slice) -> list[bytes]: ...

    def __getitem__(self, number: int | slice) -> bytes | list[bytes]:
        """Returns a piece, or several."""
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        number = number if self._order is None else self._order[number]
        if self._file is None:
            return self._held[number]
        self._file.flush()
        start, stop = self._ends[number], self._ends[number + 1]
        return os.pread(self._file.fileno(), stop - start, start)

    @property
    def sizes(self) -> list[int]:
        """Returns the number of bytes of each piece."""
        sizes = np.diff(np.array(self._ends, dtype=np.int64)).tolist()
        return sizes if self._order is None else [sizes[each] for each in self._order]

    def taken(self) -> Iterator[bytes]:
        """Yields each piece once. What lies in memory is let go of."""
        for number in range(len(self)):
            yield self[number]
            if self._file is None:
                self._held[number if self._order is None else self._order[number]] = b""

    def sort(self, order: Sequence[int]) -> None:
        """Puts the pieces into another order: ``order`` has their present numbers."""
        self._order = order if self._order is None else [self._order[each] for each in order]

    def joined(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Returns the pieces end to end; piece ``i`` is ``data[offset[i]:offset[i + 1]]``. Pieces are not sorted."""
        assert self._order is None
        offset = np.array(self._ends, dtype=np.int64)
        if self._file is None or self._here is None:
            return np.frombuffer(b"".join(self._held), dtype=np.uint8), offset
        return self._here.whole(self._file), offset

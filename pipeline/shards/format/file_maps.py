"""Maps of whole files, read-only: each keeps no file open, is counted, and lasts as long as any array on it is held.

Python's own ``mmap`` keeps a second descriptor of its file (up to 3.12 always), so that a process may map fewer files
than it may open. Here the system's call is made directly.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import sys
import weakref
from functools import cache
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from vlapipe.schemas.surroundings import max_map_count

__all__ = ["are_many_maps", "map_file", "most_maps"]

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FAILED = ctypes.c_void_p(-1).value
# On Linux a map holds the open file that it was made of, and with it the file's lock. Elsewhere a descriptor must.
_MAP_HOLDS_LOCK = sys.platform == "linux"
_live: set[int] = set()  # addresses; to add and to remove one is a single step for all threads


def map_file(file: IO[bytes]) -> NDArray[np.uint8]:
    """All bytes of an open file, which may be closed then; a lock on it lasts as long as the map.

    The map is gone when the last array on it is. A file that becomes shorter meanwhile kills the process when it is
    read: whoever asks answers for that.

    Raises:
        OSError: there are too many maps, or too little memory.
        ValueError: the file is empty.
    """
    size = os.fstat(file.fileno()).st_size
    if not size:
        raise ValueError("an empty file cannot be mapped")
    address = _LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    if address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(file.name))
    memory = _Memory(address, size)
    _live.add(address)
    descriptor = None if _MAP_HOLDS_LOCK else os.dup(file.fileno())
    weakref.finalize(memory, _unmap, address, size, descriptor).atexit = False
    # A memmap, so that users can tell that it is one, and its slices.
    whole: Any = np.asarray(memory).view(np.memmap)
    whole._mmap, whole.filename, whole.mode, whole.offset = memory, os.path.realpath(file.name), "r", 0
    return cast(NDArray[np.uint8], whole)


class _Memory:
    """What NumPy asks of whoever lends it memory: https://numpy.org/doc/stable/reference/arrays.interface.html.

    It cannot be made writable, as an array on a buffer of ctypes can: to write to such a map ends the process.
    """

    def __init__(self, address: int, size: int) -> None:
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": (size,), "data": (address, True)}


def _unmap(address: int, size: int, descriptor: int | None) -> None:
    _live.discard(address)
    _LIBC.munmap(address, size)
    if descriptor is not None:
        os.close(descriptor)


@cache
def most_maps() -> int:
    """How many maps of files this process should have at most: half of what it may.

    torch, CUDA, threads and malloc need the other half, and fail in many ways where there is none left.
    """
    most = max_map_count()
    if most is None:  # then each map keeps a file open
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = min(soft, 1 << 16) if soft != resource.RLIM_INFINITY else 1 << 16
    return most // 2


def are_many_maps() -> bool:
    """Whether some maps should be let go of before another is made."""
    return len(_live) >= most_maps()

"""Maps whole files read-only. A map keeps no file open, and lasts until the last array on it is gone. Maps are counted.

Python's own ``mmap`` keeps a duplicate descriptor of its file (up to 3.12 always), so the limit of open files would
limit the number of maps. This module calls the system's ``mmap`` directly.
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
# On Linux a map keeps the open file, and so the file's lock. On other systems a descriptor must keep the lock.
_MAP_HOLDS_LOCK = sys.platform == "linux"
_live: set[int] = set()  # addresses of the maps; add and discard are atomic, so threads need no lock


def map_file(file: IO[bytes]) -> NDArray[np.uint8]:
    """Map all bytes of an open file. You may close the file afterwards; a lock on the file lasts as long as the map.

    The map ends when the last array on it is gone. If the file becomes shorter meanwhile, reading the map kills the
    process. The caller must make sure that the file does not become shorter.

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
    # The array is a memmap, so that users can recognize the array and its slices as mapped.
    whole: Any = np.asarray(memory).view(np.memmap)
    whole._mmap, whole.filename, whole.mode, whole.offset = memory, os.path.realpath(file.name), "r", 0
    return cast(NDArray[np.uint8], whole)


class _Memory:
    """Memory for a NumPy array, by the protocol of https://numpy.org/doc/stable/reference/arrays.interface.html.

    The array cannot be made writable, because writing to a read-only map kills the process. An array on a ctypes
    buffer could be made writable.
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
    """Returns the maximum number of file maps that this process should have: half of the system's limit.

    torch, CUDA, threads and malloc need the other half, and fail in many ways if no map is left.
    """
    most = max_map_count()
    if most is None:  # not Linux: each map keeps a file open
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = min(soft, 1 << 16) if soft != resource.RLIM_INFINITY else 1 << 16
    return most // 2


def are_many_maps() -> bool:
    """Whether this process should drop some maps before it creates another one."""
    return len(_live) >= most_maps()

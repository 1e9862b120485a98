"""Reads the header of an NPY file. NumPy parses it with Python's own parser, which fails by chance in threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any, TypeVar

import numpy as np

__all__ = ["read_npy_header", "steadily"]

_Result = TypeVar("_Result")
_TRIES = 20


def steadily(read: Callable[[], _Result]) -> _Result:
    """Returns ``read()``, called again if Python's parser failed for another thread's sake.

    Python 3.11 and 3.12 count the depth of an expression for all threads together, so two threads that parse at the
    same time may raise ``SystemError`` (recursion depth mismatch) for a good header.
    """
    for _ in range(_TRIES):
        try:
            return read()
        except SystemError as error:
            if "recursion depth" not in str(error):
                raise
    return read()


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Returns shape, whether the order is Fortran's, and dtype. ``file`` then stands at the first value.

    Raises:
        ValueError: it is no header.
        EOFError: the file ends in the header.
    """
    start = file.tell()

    def read() -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
        file.seek(start)
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        return tuple(shape), bool(fortran), dtype

    return steadily(read)

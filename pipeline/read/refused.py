"""Why an array of a container is not read, and how much an array may claim to hold before any memory is taken."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vlapipe.pipeline.discover.proportion import holes_of, limit_bytes

__all__ = ["RefusedError", "refuse_holes", "refuse_size"]


class RefusedError(ValueError):
    """An array is refused: the finding's code, what was expected, and what was found."""

    def __init__(self, code: str, expected: str, found: str) -> None:
        super().__init__(code, expected, found)
        self.code, self.expected, self.found = code, expected, found

    def __str__(self) -> str:
        return f"expected {self.expected}, found {self.found}"

    def instead_of_loading(self, rows: slice | None) -> Any:
        """Raises the error: stands in for the function that loads the array."""
        del rows
        raise self


def refuse_holes(path: Path) -> None:
    """Raises if hardly any of a large file is on the disk.

    Raises:
        RefusedError: the file is nearly all holes, which are read as zeros.
        OSError: there is no such file.
    """
    found = holes_of(path)
    if found is not None:
        raise RefusedError("file.too_large", "a file without holes", found)


def refuse_size(shape: Iterable[int], item_bytes: int, stored_bytes: int) -> None:
    """Raises if an array's shape asks for far more memory than its file has bytes for.

    Raises:
        RefusedError: the shape is of a damaged or hostile file.
    """
    shape = tuple(shape)
    num_bytes = math.prod(shape) * item_bytes
    if num_bytes > limit_bytes(stored_bytes):
        expected = f"at most {limit_bytes(stored_bytes):,} bytes, for it is stored in {stored_bytes:,}"
        raise RefusedError("npz.too_large", expected, f"shape {shape}, {num_bytes:,} bytes")

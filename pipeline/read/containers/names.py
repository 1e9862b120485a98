"""Patterns and the order of names within a container: ``*`` stays within one part, and numbers are compared as such."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

__all__ = ["fits_parts", "is_named_as_array", "natural"]

_DIGITS = re.compile(r"(\d+)")


def fits_parts(path: str, pattern: str) -> bool:
    """Returns whether ``path`` has as many parts as ``pattern``, and each part fits."""
    names, wanted = path.strip("/").split("/"), pattern.strip("/").split("/")
    return len(names) == len(wanted) and all(fnmatchcase(n, w) for n, w in zip(names, wanted, strict=True))


def is_named_as_array(file: str) -> bool:
    """Returns whether a file may hold one array, called by the file's name: ``.npy``, or no extension (comma2k19)."""
    return PurePosixPath(file).suffix in (".npy", "")


def natural(name: str) -> list[tuple[int, str]]:
    """Returns a key that sorts ``demo_2`` before ``demo_10``."""
    return [(int(part), part) if part.isdigit() else (-1, part) for part in _DIGITS.split(name)]

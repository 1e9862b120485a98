"""Names within a container and of containers: ``*`` of a pattern stays within one part."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import PurePosixPath

__all__ = ["fits_parts", "is_named_as_array"]


def fits_parts(path: str, pattern: str) -> bool:
    """Returns whether ``path`` has as many parts as ``pattern``, and each part fits."""
    names, wanted = path.strip("/").split("/"), pattern.strip("/").split("/")
    return len(names) == len(wanted) and all(fnmatchcase(n, w) for n, w in zip(names, wanted, strict=True))


def is_named_as_array(file: str) -> bool:
    """Returns whether a file may hold one array, called by the file's name: ``.npy``, or no extension (comma2k19)."""
    return PurePosixPath(file).suffix in (".npy", "")

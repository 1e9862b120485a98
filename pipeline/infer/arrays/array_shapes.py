"""Reads the names, shapes and dtypes of the arrays in NPZ and NPY files, and single arrays, for guessing.

A file that cannot be opened has no arrays here; the reader says why when the schema is tried.
"""

from __future__ import annotations

import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Shapes", "load_first", "shapes_of"]

Shapes = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
_BROKEN = (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)


def shapes_of(paths: list[Path]) -> Shapes:
    """Return the shape and dtype of each array of an NPZ file, or of NPY files by their names. Reads headers only."""
    found: Shapes = {}
    if paths[0].suffix.lower() == ".npy":
        for path in paths:
            with suppress(*_BROKEN), path.open("rb") as file:
                found[path.stem] = _read_header(file)
        return found
    with suppress(*_BROKEN), zipfile.ZipFile(paths[0]) as archive:
        for member in archive.namelist():
            if member.endswith(".npy"):
                with archive.open(member) as packed:
                    found[member.removesuffix(".npy")] = _read_header(packed)
    return found


def load_first(path: Path, name: str, most: int) -> NDArray[Any] | None:
    """Return the first ``most`` rows of an array, or ``None`` if it cannot be read."""
    with suppress(*_BROKEN):
        if path.suffix.lower() == ".npy":
            return np.array(np.load(path.with_name(f"{name}.npy"), mmap_mode="r", allow_pickle=False)[:most])
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive[name][:most])
    return None


def _read_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype

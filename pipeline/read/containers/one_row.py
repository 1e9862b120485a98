"""Arrays of which each file holds one row, as CALVIN records: the files are joined in the order given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.containers.arrays import ArrayEntry
from vlapipe.pipeline.read.refused import RefusedError
from vlapipe.schemas.findings import Findings

__all__ = ["rows_of_files"]

Open = Callable[[list[str], ExitStack, Findings], Mapping[str, ArrayEntry] | None]


def rows_of_files(files: list[str], open_one: Open, findings: Findings) -> Mapping[str, ArrayEntry] | None:
    """Returns the arrays of files that hold one row each; ``None`` with a finding if the first cannot be opened.

    A file is opened for each array, and closed again: an episode may have 100,000 of them.

    Args:
        files: the files, in the order of their rows.
        open_one: opens a list of one file.
        findings: collects the faults.
    """
    with ExitStack() as stack:
        first = open_one(files[:1], stack, findings)
        if first is None:
            return None
        return {name: ArrayEntry(file=files[0], load=_Loader(name, files, open_one)) for name in first}


class _Loader:
    """Loads one array, row by row."""

    def __init__(self, name: str, files: list[str], open_one: Open) -> None:
        self._name, self._files, self._open = name, files, open_one

    def __call__(self, rows: slice | None) -> NDArray[Any]:
        files = self._files if rows is None else self._files[rows]
        out: NDArray[Any] | None = None
        for row, file in enumerate(files):
            value = self._load_one(file)
            if out is None:
                out = np.empty((len(files), *value.shape), dtype=value.dtype)
            if value.shape != out.shape[1:] or value.dtype != out.dtype:
                expected = f"shape {out.shape[1:]}, {out.dtype}, as in {files[0]}"
                raise RefusedError("npz.shape", expected, f"{value.shape}, {value.dtype} in {file}")
            out[row] = value
        return np.empty(0) if out is None else out

    def _load_one(self, file: str) -> NDArray[Any]:
        found = Findings()
        with ExitStack() as stack:
            arrays = self._open([file], stack, found)
            if arrays is None:
                finding = next(iter(found))
                raise RefusedError(finding.code, finding.expected, f"{finding.found} in {file}")
            if self._name not in arrays:
                raise RefusedError("npz.missing_array", f"an array {self._name!r} in each file", f"none in {file}")
            try:
                value = np.asarray(arrays[self._name].load(None))
            except (RefusedError, MemoryError):
                raise
            except Exception as error:
                if str(error).startswith("Object arrays"):
                    raise RefusedError("npz.object_array", "an array of numbers", f"Python objects in {file}") from None
                raise ValueError(f"{file}: {error}") from error
        if value.dtype.hasobject:
            raise RefusedError("npz.object_array", "an array of numbers", f"Python objects in {file}")
        return value

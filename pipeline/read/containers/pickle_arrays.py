"""Opens pickles of arrays, such as BridgeData's: a dictionary of arrays, or a list with a dictionary a row."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.containers.arrays import ArrayEntry
from vlapipe.pipeline.read.containers.safe_pickle import PickleError, load_plain
from vlapipe.pipeline.read.refused import RefusedError, refuse_size
from vlapipe.schemas.findings import Findings

__all__ = ["open_pickle"]

_MOST_BYTES = 1 << 30


def open_pickle(
    path: Path, label: str, base: str | None, stack: ExitStack, findings: Findings
) -> dict[str, ArrayEntry] | None:
    """Returns the arrays of a pickle; ``None`` with a finding if it is damaged or would run code.

    The entries of nested dictionaries are called ``outer/inner``. A list of dictionaries has one row a dictionary. A
    pickle that is one array, or one list of rows, has one entry, called like the file. With ``base``, names count from
    that dictionary. Findings call the file ``label``.
    """
    del stack
    size = path.stat().st_size
    if size > _MOST_BYTES:
        expected, found = f"at most {_MOST_BYTES >> 20} MiB", f"{size >> 20} MiB"
        findings.add("npz.too_large", label, expected=expected, found=found)
        return None
    try:
        value = load_plain(path.read_bytes())
    except PickleError as error:
        findings.add("npz.pickle", label, expected="a pickle of plain values and arrays", found=str(error))
        return None
    arrays: dict[str, ArrayEntry] = {}
    _add(value, "", PurePosixPath(label).stem, label, size, arrays)
    if not base:
        return arrays
    start = f"{base}/"
    below = {name.removeprefix(start): entry for name, entry in arrays.items() if name.startswith(start)}
    return {**below, **{f"/{name}": entry for name, entry in arrays.items()}}


def _add(value: Any, name: str, stem: str, label: str, size: int, arrays: dict[str, ArrayEntry]) -> None:
    if isinstance(value, dict):
        for key, each in value.items():
            _add(each, f"{name}/{key}" if name else str(key), stem, label, size, arrays)
        return
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        keys = [key for key in value[0] if all(key in row for row in value)]
        for key in keys:
            _add([row[key] for row in value], f"{name}/{key}" if name else str(key), stem, label, size, arrays)
        return

    def load(rows: slice | None) -> NDArray[Any]:
        array = _array_of(value, size)
        return array if rows is None else array[rows]

    shape = value.shape if isinstance(value, np.ndarray) else None
    dtype = value.dtype if isinstance(value, np.ndarray) else None
    arrays[name or stem] = ArrayEntry(file=label, load=load, shape=shape, dtype=dtype)


def _array_of(value: Any, size: int) -> NDArray[Any]:
    """Returns a value as an array; a list becomes one row an entry.

    Raises:
        RefusedError: the value is no array, or its rows differ.
    """
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, list):
        return np.asarray(value)
    if value and all(isinstance(each, str) for each in value):
        texts = np.empty(len(value), dtype=object)
        texts[:] = value
        return texts
    rows = [_array_of(each, size) if isinstance(each, list) else np.asarray(each) for each in value]
    kinds = {(row.shape, row.dtype.kind) for row in rows}
    if len({shape for shape, _ in kinds}) != 1 or any(kind not in "biuf" for _, kind in kinds):
        found = "none" if not rows else f"shapes {sorted({row.shape for row in rows})}"[:80]
        raise RefusedError("npz.shape", "rows of numbers, all of one shape", found)
    refuse_size((len(rows), *rows[0].shape), rows[0].itemsize, size)
    return np.stack(rows)

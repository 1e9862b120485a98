"""Reads the same windows from HDF5 with h5py, sample by sample, tuned for speed. The data is in the page cache.

Each layout is opened in the process that reads. The data is uncompressed. Samples are plain h5py slices, which have a
fast path in C and are faster than ``read_direct`` and than the low-level calls.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from loader_peers import ACTION_STRIDE, REACH, STATE_ROWS, Way, Windows, collate_bare
from torch.utils.data import Dataset

__all__ = ["hdf5_ways", "write_hdf5"]

CHUNK_ROWS = 1000  # about one episode
CACHE_BYTES = 256_000_000  # HDF5's default is 1 MB; with all 1.8 GB in the cache, chunks were read no faster


class Hdf5Samples(Dataset[Any]):
    """State and action from one table, with one read a sample. Only rows are used where both windows are complete."""

    def __init__(self, path: Path, layout: str, windows: Windows) -> None:
        self._path, self._layout = path, layout
        self._row = windows.whole_rows().tolist()
        self._table: h5py.Dataset | None = None

    def _open(self) -> h5py.Dataset:
        # The number of slots is a prime, a hundred times the number of chunks.
        return h5py.File(self._path, rdcc_nbytes=CACHE_BYTES, rdcc_nslots=400_009, rdcc_w0=0)[self._layout]

    def __getitem__(self, i: int) -> Any:
        if self._table is None:
            self._table = self._open()
        row = self._row[i % len(self._row)]
        both = self._table[row - STATE_ROWS + 1 : row + REACH]
        return both[:STATE_ROWS, :12], both[STATE_ROWS - 1 :: ACTION_STRIDE, 12:]


class Hdf5Apart(Hdf5Samples):
    """State and action from separate arrays: two reads of fewer bytes."""

    def _open(self) -> h5py.Dataset:
        table = super()._open()
        self._action = table.parent["action"]
        return table

    def __getitem__(self, i: int) -> Any:
        if self._table is None:
            self._table = self._open()
        row = self._row[i % len(self._row)]
        # Rows are read contiguously and strided in memory, because HDF5's own strided selection is slower.
        return self._table[row - STATE_ROWS + 1 : row + 1], self._action[row : row + REACH][::ACTION_STRIDE]


def write_hdf5(path: Path, windows: Windows) -> Path:
    """Write the two arrays apart, and both in one table, contiguous and in chunks."""
    if path.exists():
        return path
    unfinished = path.with_suffix(".unfinished")
    shape = (len(windows.state), windows.state.shape[1] + windows.action.shape[1])
    with h5py.File(unfinished, "w", libver="latest") as file:
        file["state"], file["action"] = windows.state, windows.action
        tables = [file.create_dataset("together", shape, np.float32)]
        chunks = (min(CHUNK_ROWS, shape[0]), shape[1])
        tables.append(file.create_dataset("chunked", shape, np.float32, chunks=chunks))
        for start in range(0, shape[0], 100 * CHUNK_ROWS):
            rows = slice(start, start + 100 * CHUNK_ROWS)
            for table in tables:
                table[rows] = np.concatenate([windows.state[rows], windows.action[rows]], axis=1)
    unfinished.rename(path)
    return path


def hdf5_ways(path: Path, windows: Windows) -> dict[str, Way]:
    """Return all ways to read: contiguous and in chunks, together and apart."""
    return {
        "one table": (Hdf5Samples(path, "together", windows), collate_bare),
        "one table in chunks": (Hdf5Samples(path, "chunked", windows), collate_bare),
        "two arrays": (Hdf5Apart(path, "state", windows), collate_bare),
    }

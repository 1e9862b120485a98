"""Reads some rows of arrays that a Zarr shard stores compressed, by the blocks that hold them."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.blosc_blocks import decode_bytes
from vlapipe.pipeline.shards.zip_members import data_offset

__all__ = ["ZarrRows"]


class ZarrRows:
    """Arrays of one shard, on a map of it; safe to use from several threads."""

    def __init__(self, path: Path, whole: NDArray[np.uint8]) -> None:
        """Read the shard's directory; ``whole`` is a map of it. Fails in many ways if it is not a whole shard."""
        self._arrays: dict[str, _Array] = {}
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if member.filename.count("/") == 2 and member.filename.endswith("/zarr.json"):
                    array = _Array.parse(json.loads(archive.read(member)))
                    if array is not None:
                        self._arrays[member.filename.removesuffix("/zarr.json")] = array
            # Each member's head is read by its own small read: only those of arrays that may be asked for.
            self._places = {
                member.filename: (data_offset(file, member), member.file_size)
                for member in archive.infolist()
                if "/c/" in member.filename and member.filename.partition("/c/")[0] in self._arrays
            }
        self._bytes = whole.view(np.ndarray)

    def __contains__(self, name: object) -> bool:
        """Whether rows of an array can be read without reading all of it."""
        return name in self._arrays

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start <= i < stop`` of an array, ``(stop - start, ...)`` as it was stored.

        Fails in many ways if the shard is damaged there.
        """
        array = self._arrays[name]
        out = np.empty((stop - start, *array.shape[1:]), dtype=array.dtype)
        for at in range(start // array.chunk_rows, -(-stop // array.chunk_rows)):
            first = at * array.chunk_rows
            begin, end = max(start, first), min(stop, first + array.chunk_rows)
            rows = out[begin - start : end - start]
            if not array.by_column:
                key = "/".join([name, "c", str(at), *["0"] * (len(array.shape) - 1)])
                rows[...] = self._run(array, key, begin - first, end - first).reshape(rows.shape)
                continue
            for column in range(array.shape[1]):
                rows[:, column] = self._run(array, f"{name}/c/{at}/{column}", begin - first, end - first)
        return out

    def _run(self, array: _Array, key: str, start: int, stop: int) -> NDArray[Any]:
        offset, size = self._places[key]
        encoded = self._bytes[offset : offset + size]
        row_bytes = array.chunk_row_bytes
        run = decode_bytes(encoded, start * row_bytes, stop * row_bytes, array.chunk_rows * row_bytes)
        return run.view(array.dtype)


@dataclass(frozen=True, kw_only=True)
class _Array:
    """How a compressed array lies: zarr_chunks of ``chunk_rows``, each of one column or of all of them."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_rows: int
    by_column: bool

    @classmethod
    def parse(cls, metadata: dict[str, Any]) -> _Array | None:
        """From an array's metadata; ``None`` if only whole zarr_chunks can be decoded, or all of it can be mapped."""
        if [codec["name"] for codec in metadata.get("codecs", [])] != ["bytes", "blosc"]:
            return None
        shape = tuple(metadata["shape"])
        chunk = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
        by_column = len(shape) == 2 and chunk[1] == 1
        if not by_column and chunk[1:] != shape[1:]:
            return None
        dtype = np.dtype(metadata["data_type"])
        return cls(shape=shape, dtype=dtype, chunk_rows=chunk[0], by_column=by_column)

    @property
    def chunk_row_bytes(self) -> int:
        """Bytes of a zarr_chunk's row."""
        return self.dtype.itemsize * (1 if self.by_column else int(np.prod(self.shape[1:], dtype=int)))

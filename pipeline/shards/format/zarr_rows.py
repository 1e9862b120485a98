"""Reads some rows of compressed arrays in a Zarr shard. Decodes only the Blosc blocks that contain these rows.

A Blosc buffer begins with a header of 16 bytes: versions, flags, item size, then the number of bytes of the data, of a
block and of the buffer. Then an int32 for each block is the block's byte offset (C-Blosc 1's README_CHUNK_FORMAT).
numcodecs decodes only whole buffers. So this module puts a new header before a single block, which makes the block a
whole buffer.
"""

from __future__ import annotations

import json
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from vlapipe.pipeline.shards.format.zip_file import data_offset

__all__ = ["ZarrRows", "decode_bytes"]


class ZarrRows:
    """Reads rows of the compressed arrays of one shard, from a map of the shard. Thread-safe."""

    def __init__(self, path: Path, whole: NDArray[np.uint8]) -> None:
        """Read the shard's directory. ``whole`` is a map of the shard. A damaged shard may raise any exception."""
        self._arrays: dict[str, _Array] = {}
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if member.filename.count("/") == 2 and member.filename.endswith("/zarr.json"):
                    array = _Array.parse(json.loads(archive.read(member)))
                    if array is not None:
                        self._arrays[member.filename.removesuffix("/zarr.json")] = array
            # Each local header costs a small read, so read only the headers of arrays that can be decoded by rows.
            self._places = {
                member.filename: (data_offset(file, member), member.file_size)
                for member in archive.infolist()
                if "/c/" in member.filename and member.filename.partition("/c/")[0] in self._arrays
            }
        self._bytes = whole.view(np.ndarray)

    def __contains__(self, name: object) -> bool:
        """Whether rows of the array ``name`` can be decoded without decoding the whole array."""
        return name in self._arrays

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Returns the rows ``start <= i < stop`` of an array, ``(stop - start, ...)``, in the stored dtype.

        A damaged shard may raise any exception.
        """
        array = self._arrays[name]
        out = np.empty((stop - start, *array.shape[1:]), dtype=array.dtype)
        for at in range(start // array.chunk_rows, -(-stop // array.chunk_rows)):
            first = at * array.chunk_rows
            begin, end = max(start, first), min(stop, first + array.chunk_rows)
            rows = out[begin - start : end - start]
            if not array.by_column:
                key = "/".join([name, "c", str(at), *["0"] * (len(array.shape) - 1)])
                rows[...] = self._piece(array, key, begin - first, end - first).reshape(rows.shape)
                continue
            for column in range(array.shape[1]):
                rows[:, column] = self._piece(array, f"{name}/c/{at}/{column}", begin - first, end - first)
        return out

    def _piece(self, array: _Array, key: str, start: int, stop: int) -> NDArray[Any]:
        offset, size = self._places[key]
        encoded = self._bytes[offset : offset + size]
        row_bytes = array.chunk_row_bytes
        piece = decode_bytes(encoded, start * row_bytes, stop * row_bytes, array.chunk_rows * row_bytes)
        return piece.view(array.dtype)


@dataclass(frozen=True, kw_only=True)
class _Array:
    """The chunks of a compressed array: each zarr_chunk has ``chunk_rows`` rows of one column or of all columns."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunk_rows: int
    by_column: bool

    @classmethod
    def parse(cls, metadata: dict[str, Any]) -> _Array | None:
        """Parse an array's metadata. Returns ``None`` if the codec is not Blosc or the zarr_chunks are not rows."""
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
        """Number of bytes of one row of a zarr_chunk."""
        return self.dtype.itemsize * (1 if self.by_column else int(np.prod(self.shape[1:], dtype=int)))


_HEAD = struct.Struct("<BBBBIII")
_IS_COPY, _IS_NOT_SPLIT = 0x02, 0x10


class _Head(NamedTuple):
    version: int
    codec_version: int
    flags: int
    item_bytes: int
    num_bytes: int  # decoded bytes of the buffer
    block_bytes: int  # decoded bytes of a block; the last block may have fewer
    buffer_bytes: int  # encoded bytes of the buffer, with its header


def decode_bytes(buffer: NDArray[np.uint8], start: int, stop: int, num_bytes: int) -> NDArray[np.uint8]:
    """Returns the decoded bytes ``start <= i < stop`` of a Blosc buffer that decodes to ``num_bytes`` bytes.

    Raises:
        ValueError: ``buffer`` is not a Blosc buffer of ``num_bytes`` bytes.
        RuntimeError: a block cannot be decoded.
    """
    problem = f"expected a Blosc buffer of {num_bytes} bytes in {len(buffer)}"
    if len(buffer) < _HEAD.size:
        raise ValueError(problem)
    head = _Head._make(_HEAD.unpack(buffer[: _HEAD.size].tobytes()))
    if head.num_bytes != num_bytes or head.buffer_bytes != len(buffer) or not head.block_bytes:
        raise ValueError(problem)
    if head.flags & _IS_COPY:
        decoded = buffer[_HEAD.size + start : _HEAD.size + stop]
    else:
        first = start // head.block_bytes
        blocks = _decode_blocks(buffer, head, first, -(-stop // head.block_bytes))
        decoded = blocks[start - first * head.block_bytes : stop - first * head.block_bytes]
    if len(decoded) != stop - start:
        raise ValueError(problem)
    return decoded


def _decode_blocks(buffer: NDArray[np.uint8], head: _Head, first: int, stop: int) -> NDArray[np.uint8]:
    """Returns the decoded bytes of the blocks ``first <= i < stop``."""
    num_blocks = -(-head.num_bytes // head.block_bytes)
    starts = buffer[_HEAD.size : _HEAD.size + 4 * num_blocks].view("<i4")
    ends = np.sort(starts)  # Blosc's threads may have stored the blocks in any order
    decoded = []
    for i in range(first, stop):
        begin = int(starts[i])
        after = int(np.searchsorted(ends, begin, side="right"))
        data = buffer[begin : int(ends[after]) if after < num_blocks else head.buffer_bytes].tobytes()
        size = min(head.block_bytes, head.num_bytes - i * head.block_bytes)
        # Blosc may split a block into one stream for each byte of the items, but never a short last block.
        flags = head.flags | _IS_NOT_SPLIT if size < head.block_bytes else head.flags
        place = _HEAD.size + 4
        of_its_own = head._replace(flags=flags, num_bytes=size, block_bytes=size, buffer_bytes=place + len(data))
        decoded.append(blosc.decompress(_HEAD.pack(*of_its_own) + struct.pack("<i", place) + data))
    return np.frombuffer(decoded[0] if len(decoded) == 1 else b"".join(decoded), dtype=np.uint8)

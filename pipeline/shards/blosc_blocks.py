"""Decodes a few bytes out of the middle of a Blosc buffer, by the blocks that hold them instead of all of it.

The buffer begins with 16 bytes: versions, flags, item size, then the bytes of data, of a block and of the buffer. An
int32 for each block says where it begins (C-Blosc 1's README_CHUNK_FORMAT). A block with such a head of its own is a
whole buffer again, which numcodecs decodes; numcodecs itself decodes whole buffers only.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

__all__ = ["decode_bytes"]

_HEAD = struct.Struct("<BBBBIII")
_IS_COPY, _IS_NOT_SPLIT = 0x02, 0x10


class _Head(NamedTuple):
    version: int
    codec_version: int
    flags: int
    item_bytes: int
    num_bytes: int  # of the data
    block_bytes: int  # of the data of each block; the last one may have less
    buffer_bytes: int


def decode_bytes(buffer: NDArray[np.uint8], start: int, stop: int, num_bytes: int) -> NDArray[np.uint8]:
    """Bytes ``start <= i < stop`` of the ``num_bytes`` that the buffer holds.

    Raises:
        ValueError: it is not a Blosc buffer of so many bytes.
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
    """The data of the blocks ``first <= i < stop``."""
    num_blocks = -(-head.num_bytes // head.block_bytes)
    starts = buffer[_HEAD.size : _HEAD.size + 4 * num_blocks].view("<i4")
    ends = np.sort(starts)  # threads may have put blocks in any order
    decoded = []
    for i in range(first, stop):
        begin = int(starts[i])
        after = int(np.searchsorted(ends, begin, side="right"))
        data = buffer[begin : int(ends[after]) if after < num_blocks else head.buffer_bytes].tobytes()
        size = min(head.block_bytes, head.num_bytes - i * head.block_bytes)
        # A block cut short at the end is never split into one stream a byte of the items.
        flags = head.flags | _IS_NOT_SPLIT if size < head.block_bytes else head.flags
        place = _HEAD.size + 4
        of_its_own = head._replace(flags=flags, num_bytes=size, block_bytes=size, buffer_bytes=place + len(data))
        decoded.append(blosc.decompress(_HEAD.pack(*of_its_own) + struct.pack("<i", place) + data))
    return np.frombuffer(decoded[0] if len(decoded) == 1 else b"".join(decoded), dtype=np.uint8)

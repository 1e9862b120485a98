"""Decodes a few bytes out of the middle of a Blosc buffer, by the blocks that hold them instead of all of it.

The buffer begins with 16 bytes: versions, flags, item size, then the bytes of data, of a block and of the buffer. An
int32 for each block says where it begins (C-Blosc 1's README_CHUNK_FORMAT). A block with such a head of its own is a
whole buffer again, which numcodecs decodes; numcodecs itself decodes whole buffers only.
"""

from __future__ import annotations

import struct

import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

__all__ = ["decode_bytes"]

_HEAD = struct.Struct("<BBBBIII")
_STARTS = _HEAD.size
_IS_COPY, _IS_NOT_SPLIT = 0x02, 0x10


def decode_bytes(buffer: NDArray[np.uint8], start: int, stop: int, num_bytes: int) -> NDArray[np.uint8]:
    """Bytes ``start <= i < stop`` of the ``num_bytes`` that the buffer holds.

    Raises:
        ValueError: it is not a Blosc buffer of so many bytes.
        RuntimeError: a block cannot be decoded.
    """
    if len(buffer) < _STARTS:
        raise ValueError(f"expected a Blosc buffer, found {len(buffer)} bytes")
    version, codec_version, flags, item_bytes, of_data, of_block, of_buffer = _HEAD.unpack(buffer[:_STARTS].tobytes())
    if of_data != num_bytes or of_buffer != len(buffer) or not of_block:
        raise ValueError(f"expected a Blosc buffer of {num_bytes} bytes, found one of {of_data}")
    if flags & _IS_COPY:
        return buffer[_STARTS + start : _STARTS + stop]
    num_blocks = -(-of_data // of_block)
    starts = buffer[_STARTS : _STARTS + 4 * num_blocks].view("<i4")
    ends = np.sort(starts)  # threads may have put blocks in any order
    decoded = []
    for i in range(start // of_block, -(-stop // of_block)):
        begin = int(starts[i])
        after = int(np.searchsorted(ends, begin, side="right"))
        data = buffer[begin : int(ends[after]) if after < num_blocks else of_buffer].tobytes()
        size = min(of_block, of_data - i * of_block)
        # A block cut short at the end is never split into one stream a byte of the items.
        of_its_own = flags | _IS_NOT_SPLIT if size < of_block else flags
        head = _HEAD.pack(version, codec_version, of_its_own, item_bytes, size, size, _STARTS + 4 + len(data))
        decoded.append(blosc.decompress(head + struct.pack("<i", _STARTS + 4) + data))
    joined = np.frombuffer(decoded[0] if len(decoded) == 1 else b"".join(decoded), dtype=np.uint8)
    first = start // of_block * of_block
    return joined[start - first : stop - first]

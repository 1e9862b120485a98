"""One file of the cache: a header that says what it holds, then the blocks of one shard; mapped once.

The header is JSON behind a signature and its length; the data begins at the next multiple of 4096 bytes. A file that
does not have the size and the blocks that the layout asks for is not used.
"""

from __future__ import annotations

import json
import os
import struct
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.cache_layout import Block, Layout
from vlapipe.pipeline.shards.format.file_map import map_file

__all__ = ["Blocks", "entry_header", "map_blocks", "map_entry", "read_header"]

Blocks = dict[str, NDArray[Any]]

_START = struct.Struct("<12sI")  # signature, bytes of JSON
_SIGNATURE = b"vlapipe view"
_PAGE = 4096
_MAX_HEADER = 1 << 20


def entry_header(layout: Layout, described: dict[str, Any]) -> bytes:
    """The head of an entry's file, filled up to where its data begins; ``described`` is for whoever looks at it."""
    document = json.dumps({**described, "blocks": _describe(layout)}).encode()
    head = _START.pack(_SIGNATURE, len(document)) + document
    return head + bytes(-len(head) % _PAGE)


def read_header(file: IO[bytes]) -> dict[str, Any] | None:
    """What the header says, or ``None`` if the file is not an entry; leaves the file where the data begins."""
    head = file.read(_START.size)
    if len(head) < _START.size:
        return None
    signature, num_bytes = _START.unpack(head)
    if signature != _SIGNATURE or num_bytes > _MAX_HEADER:
        return None
    try:
        document = json.loads(file.read(num_bytes))
    except ValueError:
        return None
    file.seek(-(-(_START.size + num_bytes) // _PAGE) * _PAGE)
    return document if isinstance(document, dict) else None


def map_entry(file: IO[bytes], layout: Layout) -> Blocks | None:
    """The blocks on one read-only map of an open file, or ``None`` if it is not the entry that ``layout`` asks for."""
    header = read_header(file)
    if header is None or header.get("blocks") != _describe(layout):
        return None
    start = file.tell()
    # A file that is shorter than its map kills the process with SIGBUS when it is read: look first.
    if os.fstat(file.fileno()).st_size != start + layout.num_bytes:
        return None
    return map_blocks(file, start, layout, writable=False)


def map_blocks(file: IO[bytes], start: int, layout: Layout, *, writable: bool) -> Blocks:
    """The blocks on one map of a file whose data begins at ``start``."""
    whole = np.memmap(file, dtype=np.uint8, mode="r+") if writable else map_file(file)
    blocks: Blocks = {}
    for name, block in layout.blocks.items():
        data = whole[start + block.offset : start + block.offset + block.num_bytes]
        blocks[name] = data.view(block.dtype).reshape(block.num_rows, block.num_columns)
    return blocks


def _describe(layout: Layout) -> dict[str, Any]:
    return {name: _describe_block(block) for name, block in layout.blocks.items()}


def _describe_block(block: Block) -> dict[str, Any]:
    shape = [block.num_rows, block.num_columns]
    return {"fields": list(block.fields), "dtype": block.dtype.str, "shape": shape, "offset": block.offset}

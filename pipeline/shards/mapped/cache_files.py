"""The cache folder of shards: its path, the list of its files, the format of a file, and how to map a file.

A file begins with a signature, the length of the JSON header, and the header, which describes the file. The data of
one shard begins at the next multiple of 4096 bytes. A file is not used if its size or blocks differ from the layout.
The folder may contain other files. Only files with vlapipe's names are read or removed.
"""

from __future__ import annotations

import json
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.format.file_maps import map_file
from vlapipe.pipeline.shards.mapped.layout import Block, Layout
from vlapipe.pipeline.shards.stores.copies import CACHE_VARIABLE, user_cache
from vlapipe.schemas.sizes import parse_size

__all__ = [
    "Blocks",
    "CacheFile",
    "Kind",
    "cache_folder",
    "cache_limit",
    "entry_header",
    "entry_path",
    "list_cache",
    "map_blocks",
    "map_entry",
    "read_header",
    "temporary_path",
]

SIZE_VARIABLE = "VLAPIPE_CACHE_SIZE"
# An unpacked shard is called "mapped" ("view" by older versions), and one as it was fetched from a store "fetched".
_ENTRY = re.compile(r"vlapipe-([0-9a-f]{32})\.(?:mapped|view|fetched)\Z")
_TEMPORARY = re.compile(r"\.vlapipe-[0-9a-f]{32}\.(?:mapped|view|fetched)(-[0-9]+-[0-9a-f]{12})?\Z")


Kind = Literal["mapped", "fetched"]


@dataclass(frozen=True, kw_only=True)
class CacheFile:
    """A file of the cache. ``key`` is ``None`` for a temporary file, whose process is still writing it or has died."""

    path: Path
    key: str | None
    num_bytes: int
    last_used_s: float  # since the epoch


def cache_folder(dataset: Path | None, chosen: Path | None) -> Path:
    """Returns the cache folder: ``chosen``, else ``$VLAPIPE_CACHE_DIR``, else in the dataset, else the user's cache."""
    is_told = chosen is not None or os.environ.get(CACHE_VARIABLE)
    if not is_told and dataset is not None and os.access(dataset, os.W_OK):
        return dataset / ".cache"
    return user_cache(chosen)


def cache_limit(chosen: int | None) -> int | None:
    """Returns the cache's limit in bytes: ``chosen``, else ``$VLAPIPE_CACHE_SIZE``, else ``None`` (no limit).

    Raises:
        UsageError: the variable is not a size.
    """
    text = os.environ.get(SIZE_VARIABLE)
    return parse_size(text) if chosen is None and text else chosen


def entry_path(folder: Path, key: str, kind: Kind = "mapped") -> Path:
    """Returns the file of an unpacked or a fetched shard. ``key`` is 32 hexadecimal digits."""
    return folder / f"vlapipe-{key}.{kind}"


def temporary_path(folder: Path, key: str, kind: Kind = "mapped") -> Path:
    """Returns the temporary file of a shard that is being unpacked or fetched. The process that does it locks it."""
    return folder / f".vlapipe-{key}.{kind}"


def list_cache(folder: Path) -> list[CacheFile]:
    """Returns the cache's files in ``folder``, the least recently used first."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            match = _ENTRY.match(entry.name)
            if match is None and _TEMPORARY.match(entry.name) is None:
                continue
            try:
                stat = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            key = match[1] if match else None
            path = Path(entry.path)
            found.append(CacheFile(path=path, key=key, num_bytes=stat.st_size, last_used_s=stat.st_mtime))
    return sorted(found, key=lambda file: file.last_used_s)


Blocks = dict[str, NDArray[Any]]

_START = struct.Struct("<12sI")  # signature, bytes of JSON
_SIGNATURE = b"vlapipe mmap"
_PAGE = 4096
_MAX_HEADER = 1 << 20


def entry_header(layout: Layout, described: dict[str, Any]) -> bytes:
    """Returns the head of an entry's file, padded to the beginning of the data. ``described`` is for information."""
    document = json.dumps({**described, "blocks": _describe(layout)}).encode()
    head = _START.pack(_SIGNATURE, len(document)) + document
    return head + bytes(-len(head) % _PAGE)


def read_header(file: IO[bytes]) -> dict[str, Any] | None:
    """Returns the header's JSON, or ``None`` if the file is not an entry. Seeks to the beginning of the data."""
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
    """Maps an open file read-only and returns its blocks, or ``None`` if the file does not match ``layout``."""
    header = read_header(file)
    if header is None or header.get("blocks") != _describe(layout):
        return None
    start = file.tell()
    # Reading a map beyond the end of its file kills the process with SIGBUS, so check the size first.
    if os.fstat(file.fileno()).st_size != start + layout.num_bytes:
        return None
    return map_blocks(file, start, layout, writable=False)


def map_blocks(file: IO[bytes], start: int, layout: Layout, *, writable: bool) -> Blocks:
    """Maps a file whose data begins at byte offset ``start``, and returns its blocks ``(num_rows, num_columns)``."""
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

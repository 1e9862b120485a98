"""The Zarr shard format: a ZIP of a Zarr v3 group, which plain ``zarr.open_group(ZipStore(...))`` opens.

zarr writes the metadata of each array and reads its zarr_chunks back. This module encodes the zarr_chunks by calling
numcodecs directly, the codecs that zarr itself calls, so that threads can encode in parallel.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import IO, Any

import numpy as np
import zarr
from numcodecs import Blosc
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore, ZipStore

from vlapipe.pipeline.shards.format.codec import Codec
from vlapipe.pipeline.shards.format.joined import Block, Joined
from vlapipe.pipeline.shards.format.zip_file import Encoded, Member, StoredArray, data_offset
from vlapipe.schemas.errors import UsageError

__all__ = ["find_stored_zarr", "zarr_group_member", "zarr_members", "zarr_reads_back", "zarr_reads_into"]

_CHUNK_BYTES = 8 << 20


def zarr_group_member(name: str) -> Member:
    """Returns the member with a group's metadata. The name of the root group is empty."""
    document = json.dumps({"attributes": {}, "zarr_format": 3, "node_type": "group"}).encode()
    return _document(f"{name}/zarr.json" if name else "zarr.json", name, document)


def zarr_members(name: str, array: Joined, codec: Codec) -> list[Member]:
    """Returns the members of one array: all zarr_chunks, then the metadata.

    A zarr_chunk of zeros is stored too, because zarr reads a missing zarr_chunk as zeros and damage would go unnoticed.
    """
    chunk = _zarr_chunk_shape(array, codec)
    metadata = _document(f"{name}/zarr.json", name, _metadata(name, array, chunk, codec))
    if codec.name == "none":
        grid = "/".join(["c", *["0"] * len(chunk)])
        jobs = [partial(_stored, array, block) for block in array.blocks(_CHUNK_BYTES, within_parts=True)]
        return [*([Member(name=f"{name}/{grid}", array=name, jobs=jobs)] if jobs else []), metadata]
    members = [
        Member(name=f"{name}/{key}", array=name, jobs=[partial(_encode, array, block, chunk[0], codec)])
        for key, block in sorted(_zarr_chunks(array, chunk).items())
    ]
    return [*members, metadata]


def _document(name: str, array: str, document: bytes) -> Member:
    return Member(name=name, array=array, jobs=[lambda: Encoded(document, document)])


def _metadata(name: str, array: Joined, chunk: tuple[int, ...], codec: Codec) -> bytes:
    members: dict[str, Any] = {}
    options: dict[str, Any] = {"compressors": None}
    if codec.name == "pcodec":
        options["serializer"] = _pcodec(codec.level)
    elif codec.name != "none":
        shuffle: Any = "shuffle" if array.dtype.itemsize > 1 else "noshuffle"
        options["compressors"] = [BloscCodec(cname=_blosc_name(codec), clevel=codec.level, shuffle=shuffle)]
    zarr.create_array(
        store=MemoryStore(members), name=name, shape=array.shape, chunks=chunk, dtype=array.dtype, **options
    )
    document: bytes = members[f"{name}/zarr.json"].to_bytes()
    return document


def _blosc_name(codec: Codec) -> Any:
    return "zstd" if codec.name == "zstd" else "lz4"


def _pcodec(level: int) -> Any:
    try:
        import pcodec  # noqa: F401
        from zarr.codecs.numcodecs import PCodec
    except ImportError:
        raise UsageError("--codec pcodec: the package pcodec is not installed", "pip install pcodec") from None
    return PCodec(level=level)


def _encoder(codec: Codec, dtype: np.dtype[Any]) -> Any:
    if codec.name == "pcodec":
        from numcodecs import PCodec

        return PCodec(level=codec.level)
    shuffle = Blosc.SHUFFLE if dtype.itemsize > 1 else Blosc.NOSHUFFLE
    return Blosc(_blosc_name(codec), codec.level, shuffle)


def _encode(array: Joined, block: Block, chunk_rows: int, codec: Codec) -> Encoded:
    values = array.read(block)
    missing = chunk_rows - len(values)
    if missing:  # pad the last zarr_chunk to the length of the others
        values = np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])
    data = bytes(_encoder(codec, array.dtype).encode(values))
    return Encoded(data, data)


def _stored(array: Joined, block: Block) -> Encoded:
    data = array.read(block).reshape(-1).view(np.uint8).data
    return Encoded(data, data)


def _zarr_chunk_shape(array: Joined, codec: Codec) -> tuple[int, ...]:
    """Returns a zarr_chunk's shape: the whole array if uncompressed, one column if narrow, else rows of about 8 MiB."""
    if codec.name == "none":
        return tuple(max(1, n) for n in array.shape)
    num_rows, row_bytes = array.shape[0], array.dtype.itemsize * int(np.prod(array.shape[1:]))
    if array.is_narrow:
        return (max(1, min(num_rows, _CHUNK_BYTES // array.dtype.itemsize)), 1)
    return (max(1, min(num_rows, _CHUNK_BYTES // max(1, row_bytes))), *array.shape[1:])


def _zarr_chunks(array: Joined, chunk: tuple[int, ...]) -> dict[str, Block]:
    """Returns each zarr_chunk's key and block: an interval of rows, of one column if the array is narrow."""
    rows = array.shape[0]
    columns = range(array.shape[1]) if array.is_narrow else [None]
    chunks: dict[str, Block] = {}
    for (i, start), column in product(enumerate(range(0, rows, chunk[0])), columns):
        indices = [i, *([column] if column is not None else [0] * (len(chunk) - 1))]
        chunks["/".join(["c", *map(str, indices)])] = Block(start, min(start + chunk[0], rows), column)
    return chunks


def zarr_reads_back(store: ZipStore, name: str, array: Joined) -> list[Callable[[], bool]]:
    """Returns jobs that read the array through zarr, one zarr_chunk a job, and compare it with ``array``."""
    stored = zarr.open_array(store, path=name, mode="r")
    if stored.shape != array.shape or stored.dtype != array.dtype:
        return [lambda: False]
    return [partial(_reads_back, stored, array, block) for block in _zarr_chunks(array, stored.chunks).values()]


def _reads_back(stored: Any, array: Joined, block: Block) -> bool:
    rows = slice(block.start, block.stop)
    values: Any = stored[rows] if block.column is None else stored[rows, block.column]
    return array.equals(np.asarray(values), block)


def zarr_reads_into(store: ZipStore, name: str, out: NDArray[Any]) -> list[Callable[[], None]]:
    """Returns jobs that decode an array into ``out``, one zarr_chunk a job."""
    stored = zarr.open_array(store, path=name, mode="r")
    assert (stored.shape, stored.dtype) == (out.shape, out.dtype), name
    starts = [range(0, size, step) for size, step in zip(stored.shape, stored.chunks, strict=True)]
    return [
        partial(_read_into, stored, out, tuple(slice(i, i + n) for i, n in zip(at, stored.chunks, strict=True)))
        for at in product(*starts)
    ]


def _read_into(stored: Any, out: NDArray[Any], at: tuple[slice, ...]) -> None:
    out[at] = stored[at]


def find_stored_zarr(file: IO[bytes], archive: zipfile.ZipFile, name: str) -> StoredArray | None:
    """Returns the position of an uncompressed array in the shard.

    Returns ``None`` if the array is compressed, or has more than one zarr_chunk.
    """
    metadata = json.loads(archive.read(f"{name}/zarr.json"))
    shape = tuple(metadata["shape"])
    codecs = [codec["name"] for codec in metadata["codecs"]]
    if codecs != ["bytes"] or tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"]) != shape:
        return None
    chunk = archive.getinfo("/".join([name, "c", *["0"] * len(shape)]))
    dtype = np.dtype(metadata["data_type"])
    return StoredArray(offset=data_offset(file, chunk), shape=shape, dtype=dtype, fortran=False)

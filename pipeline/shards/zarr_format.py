"""The Zarr kind of shard: a ZIP of a Zarr v3 group that plain ``zarr.open_group(ZipStore(...))`` opens."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore, ZipStore

from vlapipe.pipeline.shards.aligned_zip import AlignedZip
from vlapipe.pipeline.shards.codec import Codec
from vlapipe.pipeline.shards.zip_members import StoredArray, data_offset
from vlapipe.schemas.errors import DamageError, UsageError

__all__ = ["find_stored_zarr", "read_zarr_array", "write_zarr_array", "write_zarr_group"]

_CHUNK_BYTES = 8 << 20
_NARROW = 64  # a field with at most this many columns is stored a column at a time


def write_zarr_group(archive: AlignedZip, name: str) -> None:
    """Add a group's metadata; the root's name is empty."""
    document = json.dumps({"attributes": {}, "zarr_format": 3, "node_type": "group"}).encode()
    archive.add(f"{name}/zarr.json" if name else "zarr.json", [document], len(document))


def write_zarr_array(archive: AlignedZip, name: str, array: NDArray[Any], codec: Codec) -> None:
    """Add one array. Every zarr_chunk is written, also one of zeros: a missing one would read as zeros unnoticed."""
    members: dict[str, Any] = {}
    options: dict[str, Any] = {"compressors": None}
    if codec.name == "pcodec":
        options["serializer"] = _pcodec(codec.level)
    elif codec.name != "none":
        options["compressors"] = [
            BloscCodec(
                cname="zstd" if codec.name == "zstd" else "lz4",
                clevel=codec.level,
                shuffle="shuffle" if array.dtype.itemsize > 1 else "noshuffle",
            )
        ]
    stored = zarr.create_array(
        store=MemoryStore(members),
        name=name,
        shape=array.shape,
        chunks=_zarr_chunk_shape(array, codec),
        dtype=array.dtype,
        config={"write_empty_chunks": True},
        **options,
    )
    stored[...] = array
    # zarr also writes the metadata of parent groups, which the caller has written once.
    for key in sorted(key for key in members if key.startswith(f"{name}/")):
        data = members[key].to_bytes()
        archive.add(key, [data], len(data))


def _pcodec(level: int) -> Any:
    try:
        import pcodec  # noqa: F401
        from zarr.codecs.numcodecs import PCodec
    except ImportError:
        raise UsageError("--codec pcodec: the package pcodec is not installed", "pip install pcodec") from None
    return PCodec(level=level)


def _zarr_chunk_shape(array: NDArray[Any], codec: Codec) -> tuple[int, ...]:
    """Whole array if uncompressed (one run to map); a column at a time if narrow; otherwise rows of about 8 MiB."""
    if codec.name == "none":
        return tuple(max(1, n) for n in array.shape)
    row_bytes = array.dtype.itemsize * int(np.prod(array.shape[1:]))
    if array.ndim == 2 and array.shape[1] <= _NARROW:
        return (max(1, min(len(array), _CHUNK_BYTES // array.dtype.itemsize)), 1)
    return (max(1, min(len(array), _CHUNK_BYTES // max(1, row_bytes))), *array.shape[1:])


def read_zarr_array(path: Path, name: str) -> NDArray[Any]:
    """Read one array into memory, C-ordered.

    Raises:
        DamageError: it is not there, or cannot be read.
    """
    try:
        with ZipStore(path, mode="r") as store:
            array = zarr.open_array(store, path=name, mode="r")
            values: NDArray[Any] = np.ascontiguousarray(array[...])
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise DamageError(f"{path}: array {name} cannot be read: {error}", "copy it again, or ingest again") from None
    return values


def find_stored_zarr(file: IO[bytes], archive: zipfile.ZipFile, name: str) -> StoredArray | None:
    """Where an uncompressed array's single zarr_chunk lies in the shard; ``None`` if it is compressed or in several."""
    metadata = json.loads(archive.read(f"{name}/zarr.json"))
    shape = tuple(metadata["shape"])
    codecs = [codec["name"] for codec in metadata["codecs"]]
    if codecs != ["bytes"] or tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"]) != shape:
        return None
    chunk = archive.getinfo("/".join([name, "c", *["0"] * len(shape)]))
    dtype = np.dtype(metadata["data_type"])
    return StoredArray(offset=data_offset(file, chunk), shape=shape, dtype=dtype, fortran=False)

"""One stored shard, whichever kind: writes it whole and checked, reads its arrays, maps those that lie uncompressed."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.aligned_zip import AlignedZip
from vlapipe.pipeline.shards.atomic import fsync_folder, temporary_file
from vlapipe.pipeline.shards.codec import RAW, Codec
from vlapipe.pipeline.shards.npz_format import find_stored_npz, read_npz_array, write_npz_array
from vlapipe.pipeline.shards.zarr_format import (
    find_stored_zarr,
    read_zarr_array,
    write_zarr_array,
    write_zarr_group,
)
from vlapipe.schemas.errors import DamageError

__all__ = ["StoredShard", "map_arrays", "read_array", "shard_format_of", "write_shard"]

SUFFIX = {"npz": ".npz", "zarr": ".zarr.zip"}


@dataclass(frozen=True, kw_only=True)
class StoredShard:
    """What was written: name, size, digest, and each array's shape, dtype, codec and stored bytes."""

    file: str
    num_bytes: int
    sha256: str
    arrays: dict[str, dict[str, Any]]


def write_shard(
    folder: Path, index: int, arrays: Mapping[str, NDArray[Any]], *, shard_format: str, codec: Codec
) -> StoredShard:
    """Write a shard into ``folder`` under a name that carries its digest, after reading it back and comparing.

    JPEG bytes are never compressed again. The file becomes read-only: new bytes get a new name.

    Raises:
        DamageError: what was read back differs from what was written.
    """
    codecs = {name: RAW if name.endswith("/bytes") else codec for name in arrays}
    with temporary_file(folder) as (temporary, file):
        with AlignedZip(file) as archive:
            if shard_format == "zarr":
                for group in ["", *sorted({name.rpartition("/")[0] for name in arrays})]:
                    write_zarr_group(archive, group)
            write = write_zarr_array if shard_format == "zarr" else write_npz_array
            for name, array in arrays.items():
                write(archive, name, array, codecs[name])
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        num_bytes = file.seek(0, os.SEEK_END)
        stored_bytes = _stored_bytes(temporary)
        _compare(temporary, arrays, shard_format)
        name = f"shard-{index:05d}-{sha256[:8]}{SUFFIX[shard_format]}"
        temporary.chmod(0o444)
        temporary.rename(folder / name)
    fsync_folder(folder)
    described = {
        key: {
            "shape": list(array.shape),
            "dtype": str(array.dtype),
            "codec": str(codecs[key]),
            "bytes": stored_bytes[key],
        }
        for key, array in arrays.items()
    }
    return StoredShard(file=name, num_bytes=num_bytes, sha256=sha256, arrays=described)


def _stored_bytes(path: Path) -> dict[str, int]:
    """Stored bytes by array: of its ``.npy``, or of its zarr_chunks and metadata."""
    sizes: dict[str, int] = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename.endswith(".npy"):
                array = member.filename.removesuffix(".npy")
            else:
                array = "/".join(member.filename.split("/")[:2])
            sizes[array] = sizes.get(array, 0) + member.compress_size
    return sizes


def _compare(path: Path, arrays: Mapping[str, NDArray[Any]], shard_format: str) -> None:
    """Codecs have lied before: see DESIGN trap 1 in docs/decisions/0002. Compare every array, bit by bit."""
    mapped = map_arrays(path, shard_format)
    for name, array in arrays.items():
        back = mapped[name] if name in mapped else read_array(path, name, shard_format)
        same = back.shape == array.shape and back.dtype == array.dtype and np.array_equal(_bits(back), _bits(array))
        if not same:
            raise DamageError(f"{name} reads back differently from what was written", "choose another --codec")


def _bits(array: NDArray[Any]) -> NDArray[Any]:
    """The array's bytes as whole numbers, so that NaN equals itself and -0.0 differs from 0.0."""
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "f" else array


def shard_format_of(file: str) -> str:
    """``npz`` or ``zarr``, by the file's name."""
    return "npz" if file.endswith(SUFFIX["npz"]) else "zarr"


def read_array(path: Path, name: str, shard_format: str) -> NDArray[Any]:
    """Decode one array into memory; for arrays that are not in ``map_arrays``."""
    return read_npz_array(path, name) if shard_format == "npz" else read_zarr_array(path, name)


def map_arrays(path: Path, shard_format: str) -> dict[str, NDArray[Any]]:
    """Read-only arrays on one map of the file, for each array that lies uncompressed; nothing is copied.

    Raises:
        DamageError: the file is not a whole ZIP of this kind.
    """
    arrays: dict[str, NDArray[Any]] = {}
    try:
        whole = np.memmap(path, dtype=np.uint8, mode="r")
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if shard_format == "npz":
                    name, stored = member.filename.removesuffix(".npy"), find_stored_npz(file, member)
                elif member.filename.count("/") == 2 and member.filename.endswith("/zarr.json"):
                    name = member.filename.removesuffix("/zarr.json")
                    stored = find_stored_zarr(file, archive, name)
                else:
                    continue
                if stored is not None:
                    size = int(np.prod(stored.shape)) * stored.dtype.itemsize
                    flat = whole[stored.offset : stored.offset + size].view(stored.dtype)
                    arrays[name] = flat.reshape(stored.shape, order="F" if stored.fortran else "C")
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DamageError(f"{path}: not a whole shard: {error}", "copy it again, or ingest again") from None
    return arrays

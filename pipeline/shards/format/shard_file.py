"""Writes and reads a shard file, NPZ or Zarr: writes it atomically and verified, decodes arrays, maps raw arrays."""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from zarr.storage import ZipStore

from vlapipe.pipeline.shards.format.atomic import fsync_folder, temporary_file
from vlapipe.pipeline.shards.format.codec import RAW, Codec
from vlapipe.pipeline.shards.format.digest import RESTORE
from vlapipe.pipeline.shards.format.file_locks import lock_shared
from vlapipe.pipeline.shards.format.file_maps import map_file
from vlapipe.pipeline.shards.format.joined import Joined
from vlapipe.pipeline.shards.format.npz_format import (
    column_major_npz,
    find_stored_npz,
    npz_members,
    npz_reads_back,
    npz_reads_into,
)
from vlapipe.pipeline.shards.format.zarr_format import (
    find_stored_zarr,
    zarr_group_member,
    zarr_members,
    zarr_reads_back,
    zarr_reads_into,
)
from vlapipe.pipeline.shards.format.zip_file import AlignedZip, Member, StoredArray
from vlapipe.pipeline.shards.ordered_map import in_order
from vlapipe.schemas.errors import DamageError

__all__ = ["StoredShard", "map_arrays", "read_arrays", "read_into", "shard_format_of", "stored_sizes", "write_shard"]

_READ_BYTES = 1 << 20  # bytes that are read back at once; they fit into the CPU's cache
SUFFIX = {"npz": ".npz", "zarr": ".zarr.zip"}


@dataclass(frozen=True, kw_only=True)
class StoredShard:
    """A written shard: file name, size, digest, and each array's shape, dtype, codec and stored bytes."""

    file: str
    num_bytes: int
    sha256: str
    arrays: dict[str, dict[str, Any]]


def write_shard(
    folder: Path,
    index: int,
    arrays: Mapping[str, NDArray[Any] | Joined],
    *,
    shard_format: str,
    codec: Codec,
    num_threads: int = 1,
) -> StoredShard:
    """Write a shard into ``folder`` under a name that contains its digest. Reads the file back and compares it first.

    Images are never compressed. The file becomes read-only, because new bytes get a new name. ``num_threads`` threads
    compress and read back, and one more thread hashes. The bytes do not depend on ``num_threads``.

    Raises:
        DamageError: the arrays that were read back differ from the arrays that were written.
    """
    joined = {name: array if isinstance(array, Joined) else Joined([array]) for name, array in arrays.items()}
    codecs = _codecs(joined, codec)
    with temporary_file(folder) as (temporary, file):
        sha256, stored_bytes = _write_members(file, _members(joined, codecs, shard_format), num_threads)
        num_bytes = file.tell()
        with ThreadPoolExecutor(1) as syncing:
            synced = syncing.submit(os.fsync, file.fileno())  # the sync waits for the disk while the comparison runs
            _compare(temporary, joined, shard_format, num_threads)
            synced.result()
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
        for key, array in joined.items()
    }
    return StoredShard(file=name, num_bytes=num_bytes, sha256=sha256, arrays=described)


def stored_sizes(arrays: Mapping[str, NDArray[Any]], *, shard_format: str, codec: Codec) -> dict[str, int]:
    """Returns the stored bytes of these arrays by stream. Encodes the arrays, but writes no file."""
    joined = {name: Joined([array]) for name, array in arrays.items()}
    with Path(os.devnull).open("wb") as nowhere:
        _, stored = _write_members(nowhere, _members(joined, _codecs(joined, codec), shard_format), num_threads=1)
    by_stream: Counter[str] = Counter()
    for name, num_bytes in stored.items():
        by_stream[name.partition("/")[0]] += num_bytes
    return dict(by_stream)


def _codecs(arrays: Iterable[str], codec: Codec) -> dict[str, Codec]:
    """Returns the codec of each array. Images stay raw: JPEG is already compressed, and pixels must be mappable."""
    return {name: RAW if name.endswith(("/bytes", "/pixels")) else codec for name in arrays}


def _members(arrays: Mapping[str, Joined], codecs: Mapping[str, Codec], shard_format: str) -> list[Member]:
    if shard_format == "npz":
        return [member for name, array in arrays.items() for member in npz_members(name, array, codecs[name])]
    groups = ["", *sorted({name.rpartition("/")[0] for name in arrays})]
    members = [zarr_group_member(group) for group in groups]
    return members + [member for name, array in arrays.items() for member in zarr_members(name, array, codecs[name])]


def _write_members(file: IO[bytes], members: list[Member], num_threads: int) -> tuple[str, dict[str, int]]:
    """Write all members in order. Returns the file's SHA-256 and the stored bytes by array."""
    stored_bytes: dict[str, int] = {}
    sha256 = hashlib.sha256()
    with ThreadPoolExecutor(1) as hashing:
        hashed: list[Future[None]] = []

        def write(data: bytes | memoryview) -> None:
            hashed.append(hashing.submit(sha256.update, data))
            file.write(data)

        archive = AlignedZip(write)
        pieces = in_order((job for member in members for job in member.jobs), num_threads)
        for member in members:
            encoded = list(islice(pieces, len(member.jobs)))
            stored = archive.add(member.name, encoded, deflated=member.deflated)
            stored_bytes[member.array] = stored_bytes.get(member.array, 0) + stored
        archive.close()
        file.flush()
        for future in hashed:
            future.result()
    return sha256.hexdigest(), stored_bytes


def _compare(path: Path, arrays: Mapping[str, Joined], shard_format: str, num_threads: int) -> None:
    """Read back every array and compare it bit by bit, as codecs have returned wrong values (docs/decisions/0002)."""
    in_place = _find_stored(path, shard_format)
    jobs: list[tuple[str, Callable[[], bool]]] = []
    with contextlib.ExitStack() as stack:
        needs_zarr = shard_format == "zarr" and len(in_place) < len(arrays)
        store = stack.enter_context(_opened(path)) if needs_zarr else None
        for name, array in arrays.items():
            if name in in_place:
                jobs.append((name, partial(_stored_reads_back, path, in_place[name], array)))
            elif store:
                jobs += [(name, job) for job in zarr_reads_back(store, name, array)]
            else:
                jobs += [(name, job) for job in npz_reads_back(path, name, array)]
        for (name, _), same in zip(jobs, in_order((job for _, job in jobs), num_threads), strict=True):
            if not same:
                raise DamageError(f"{name} reads back differently from what was written", "choose another --codec")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ZipStore]:
    """Open a Zarr shard. zarr opens the file at the first read, and fails to close a store that it has not opened."""
    store = ZipStore(path, mode="r")
    try:
        yield store
    finally:
        with contextlib.suppress(AttributeError):
            store.close()


def _stored_reads_back(path: Path, stored: StoredArray, array: Joined) -> bool:
    """Read an uncompressed array and compare it. Reads into one buffer, because a map would fault in every page."""
    if stored.shape != array.shape or stored.dtype != array.dtype:
        return False
    row_shape = () if stored.fortran else array.shape[1:]
    buffer = np.empty(0, dtype=array.dtype)
    with path.open("rb", buffering=0) as file:
        file.seek(stored.offset)
        for block in array.blocks(_READ_BYTES, fortran=stored.fortran):
            shape = (block.stop - block.start, *row_shape)
            size = int(np.prod(shape))
            buffer = buffer if len(buffer) >= size else np.empty(size, dtype=array.dtype)
            values = buffer[:size]
            if file.readinto(values.view(np.uint8).data) != values.nbytes or not array.equals(
                values.reshape(shape), block
            ):
                return False
    return True


def shard_format_of(file: str) -> str:
    """Returns ``npz`` or ``zarr``, from the file's name."""
    return "npz" if file.endswith(SUFFIX["npz"]) else "zarr"


def read_into(path: Path, targets: Mapping[str, NDArray[Any]], shard_format: str, num_threads: int = 1) -> None:
    """Decode arrays into ``targets``, by name. Each target has the array's shape and dtype.

    Use this function for arrays that ``map_arrays`` does not return. If the shard is damaged, the function may raise
    any exception, so wrap the call in ``damage_or_bug`` or verify the digest.
    """
    if not targets:
        return
    jobs: list[Callable[[], None]] = []
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(_opened(path)) if shard_format == "zarr" else None
        for name, out in targets.items():
            jobs += zarr_reads_into(store, name, out) if store else npz_reads_into(path, name, out)
        for _ in in_order(jobs, num_threads):
            pass


def read_arrays(path: Path, kinds: Mapping[str, Mapping[str, Any]], num_threads: int = 1) -> dict[str, NDArray[Any]]:
    """Returns every array of a shard by name, in the order of ``kinds``: mapped if it is uncompressed, else decoded.

    An array that is stored column by column is column-major, so that it can be written again as it is. ``kinds`` is the
    manifest's description of the arrays. A damaged shard may raise any exception, as in ``read_into``.
    """
    shard_format = shard_format_of(path.name)
    _, arrays = map_arrays(path, shard_format)
    by_column = column_major_npz(path) if shard_format == "npz" else set()
    decoded = {
        name: np.empty(kind["shape"], kind["dtype"], order="F" if name in by_column else "C")
        for name, kind in kinds.items()
        if name not in arrays
    }
    read_into(path, decoded, shard_format, num_threads)
    arrays |= decoded
    return {name: arrays[name] for name in kinds}


def map_arrays(
    path: Path, shard_format: str, *, locked: bool = False
) -> tuple[NDArray[np.uint8], dict[str, NDArray[Any]]]:
    """Map the file once. Returns the map, and a read-only array on it for each uncompressed array, without a copy.

    With ``locked`` the map holds a shared lock on the file. A damaged shard may raise any other exception too, as in
    ``read_into``.

    Raises:
        DamageError: the file is not a complete ZIP.
    """
    arrays: dict[str, NDArray[Any]] = {}
    stored_arrays = _find_stored(path, shard_format)
    with path.open("rb") as file:
        if locked:
            lock_shared(file)
        whole = map_file(file)
    for name, stored in stored_arrays.items():
        size = int(np.prod(stored.shape)) * stored.dtype.itemsize
        flat = whole[stored.offset : stored.offset + size].view(stored.dtype)
        arrays[name] = flat.reshape(stored.shape, order="F" if stored.fortran else "C")
    return whole, arrays


def _find_stored(path: Path, shard_format: str) -> dict[str, StoredArray]:
    """Returns the position of each uncompressed array in the file."""
    arrays: dict[str, StoredArray] = {}
    try:
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
                    arrays[name] = stored
    except zipfile.BadZipFile as error:
        raise DamageError(f"{path}: not a whole shard: {error}", RESTORE) from None
    return arrays

"""The NPZ kind of shard: a ZIP of ``.npy`` members that plain ``numpy.load`` opens."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.aligned_zip import AlignedZip
from vlapipe.pipeline.shards.codec import Codec
from vlapipe.pipeline.shards.zip_members import StoredArray, data_offset
from vlapipe.schemas.errors import DamageError

__all__ = ["find_stored_npz", "read_npz_array", "write_npz_array"]

_SLICE_BYTES = 1 << 24


def write_npz_array(archive: AlignedZip, name: str, array: NDArray[Any], codec: Codec) -> None:
    """Add one array; Fortran-ordered arrays keep their order, which also compresses better."""
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    flat = (array.T if fortran else np.ascontiguousarray(array)).reshape(-1).view(np.uint8)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header,
        {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": fortran, "shape": array.shape},
    )
    parts: list[bytes | memoryview] = [header.getvalue()]
    parts += [flat[start : start + _SLICE_BYTES].data for start in range(0, len(flat), _SLICE_BYTES)]
    archive.add(f"{name}.npy", parts, len(parts[0]) + flat.nbytes, deflate_level=codec.level)


def read_npz_array(path: Path, name: str) -> NDArray[Any]:
    """Read one array into memory.

    Raises:
        DamageError: it is not there, or cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            array: NDArray[Any] = archive[name]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DamageError(f"{path}: array {name} cannot be read: {error}", "copy it again, or ingest again") from None
    return array


def find_stored_npz(file: IO[bytes], member: zipfile.ZipInfo) -> StoredArray | None:
    """Where an uncompressed array's data lies in the shard; ``None`` if it is compressed."""
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    start = data_offset(file, member)
    file.seek(start)
    np.lib.format.read_magic(file)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    return StoredArray(offset=file.tell(), shape=shape, dtype=dtype, fortran=fortran)

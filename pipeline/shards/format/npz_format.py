"""The NPZ shard format: a ZIP of ``.npy`` members, which plain ``numpy.load`` opens."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.format.codec import Codec
from vlapipe.pipeline.shards.format.joined import Block, Joined
from vlapipe.pipeline.shards.format.npy_header import read_npy_header
from vlapipe.pipeline.shards.format.zip_file import Encoded, Member, StoredArray, data_offset

__all__ = ["column_major_npz", "find_stored_npz", "npz_members", "npz_reads_back", "npz_reads_into"]

_SLICE_BYTES = 4 << 20
_SAMPLE_BYTES = 1 << 15
_FOUND_LITTLE = 1.02


def npz_members(name: str, array: Joined, codec: Codec) -> list[Member]:
    """Returns the member for one array. A column-major array stays column-major, which also compresses better.

    Each slice is deflated separately and ends on a byte boundary. So slices can be compressed in parallel and
    concatenated; a reader sees one deflate stream.
    """
    header = _header(array)
    stored = codec.name == "none"
    blocks = array.blocks(_SLICE_BYTES, fortran=array.is_fortran, within_parts=stored)
    if stored:
        jobs: list[Callable[[], Encoded]] = [partial(_same, header), *(partial(_stored, array, b) for b in blocks)]
    else:
        jobs = [partial(_deflate, header, codec.level, not blocks)]
        jobs += [partial(_deflate_block, array, b, codec.level, b is blocks[-1]) for b in blocks]
    return [Member(name=f"{name}.npy", array=name, jobs=jobs, deflated=not stored)]


def _header(array: Joined) -> bytes:
    header = io.BytesIO()
    description = {
        "descr": np.lib.format.dtype_to_descr(array.dtype),
        "fortran_order": array.is_fortran,
        "shape": array.shape,
    }
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


def _same(data: bytes) -> Encoded:
    return Encoded(data, data)


def _stored(array: Joined, block: Block) -> Encoded:
    data = _bytes_of(array.read(block))
    return Encoded(data, data)


def _deflate(data: bytes | memoryview, level: int, last: bool) -> Encoded:
    compressor = _compressor(level, _strategy(data, level))
    return Encoded(compressor.compress(data) + compressor.flush(zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH), data)


def _compressor(level: int, strategy: int) -> Any:
    return zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)


def _strategy(data: bytes | memoryview, level: int) -> int:
    """Returns the strategy for zlib: only Huffman codes if the search for repetitions finds almost nothing.

    The function compresses the beginning of the slice with both strategies. Huffman codes alone are three times as fast
    and suit noisy float columns; docs/decisions/0005-ingest-speed.md has the figures.
    """
    sample = data[:_SAMPLE_BYTES]
    size = {
        strategy: len(compressor.compress(sample) + compressor.flush())
        for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY)
        for compressor in [_compressor(level, strategy)]
    }
    found_little = size[zlib.Z_HUFFMAN_ONLY] <= _FOUND_LITTLE * size[zlib.Z_DEFAULT_STRATEGY]
    return zlib.Z_HUFFMAN_ONLY if found_little else zlib.Z_DEFAULT_STRATEGY


def _deflate_block(array: Joined, block: Block, level: int, last: bool) -> Encoded:
    return _deflate(_bytes_of(array.read(block)), level, last)


def _bytes_of(values: NDArray[Any]) -> memoryview:
    return values.reshape(-1).view(np.uint8).data


def npz_reads_back(path: Path, name: str, array: Joined) -> list[Callable[[], bool]]:
    """Returns one job, which reads the array with ``zipfile``, a slice at a time, and compares it with ``array``."""
    return [partial(_reads_back, path, name, array)]


def _reads_back(path: Path, name: str, array: Joined) -> bool:
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
        shape, fortran, dtype = read_npy_header(member)
        if shape != array.shape or fortran != array.is_fortran or dtype != array.dtype:
            return False
        row_shape = () if fortran else shape[1:]
        row_bytes = dtype.itemsize * int(np.prod(row_shape))
        for block in array.blocks(_SLICE_BYTES, fortran=array.is_fortran):
            rows = block.stop - block.start
            data = member.read(rows * row_bytes)
            if len(data) < rows * row_bytes:
                return False
            if not array.equals(np.frombuffer(data, dtype).reshape(rows, *row_shape), block):
                return False
        return not member.read(1)  # reading to the end also checks the CRC


def npz_reads_into(path: Path, name: str, out: NDArray[Any]) -> list[Callable[[], None]]:
    """Returns one job, which decodes an array into ``out``. There is only one, because a member is one stream."""
    return [partial(_read_into, path, name, out)]


def _read_into(path: Path, name: str, out: NDArray[Any]) -> None:
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
        shape, fortran, dtype = read_npy_header(member)
        assert (shape, dtype) == (out.shape, out.dtype), name
        # Follow the stored order: column by column, or row by row.
        for lines in out.T if fortran else [out]:
            line_bytes = dtype.itemsize * int(np.prod(lines.shape[1:], dtype=int))
            step = max(1, _SLICE_BYTES // max(1, line_bytes))
            for first in range(0, len(lines), step):
                part = lines[first : first + step]
                part[...] = np.frombuffer(member.read(len(part) * line_bytes), dtype).reshape(part.shape)


def column_major_npz(path: Path) -> set[str]:
    """Returns the names of the arrays that are stored column by column."""
    found = set()
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                _, fortran, _ = read_npy_header(member)
            found |= {name.removesuffix(".npy")} if fortran else set()
    return found


def find_stored_npz(file: IO[bytes], member: zipfile.ZipInfo) -> StoredArray | None:
    """Returns the position of an uncompressed array in the shard, or ``None`` if the array is compressed."""
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    start = data_offset(file, member)
    file.seek(start)
    shape, fortran, dtype = read_npy_header(file)
    return StoredArray(offset=file.tell(), shape=shape, dtype=dtype, fortran=fortran)

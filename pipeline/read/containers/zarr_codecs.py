"""Unpacks the chunks of Zarr arrays. A chunk never becomes more bytes than its array's shape allows.

Only codecs that are named here are used: a store can name any codec of the machine, among them one that unpickles.
"""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlapipe.pipeline.read.refused import RefusedError

__all__ = ["decode_images", "is_image_codec", "unpack"]

# Codecs of numcodecs that make as many bytes as they take, or a fixed number of times as many.
_PLAIN = {
    "adler32",
    "astype",
    "bitround",
    "crc32",
    "crc32c",
    "delta",
    "fixedscaleoffset",
    "fletcher32",
    "jenkins_lookup3",
    "packbits",
    "quantize",
    "shuffle",
}
_DTYPES = ("dtype", "astype", "encode_dtype", "decode_dtype")  # settings of filters
_WIDER = 16  # a filter may take numbers that are so many times as wide as the array's
_IMAGES = "imagecodecs_"


def unpack(codec: dict[str, Any], data: bytes | NDArray[Any], most: int) -> bytes | NDArray[Any]:
    """Returns what ``codec`` packed.

    Args:
        codec: its ``id`` and its settings, as Zarr 2 writes them.
        data: the packed bytes.
        most: limit on the bytes that come out.

    Raises:
        RefusedError: the codec is not known or not installed.
        Exception: the chunk is damaged, or would become more bytes than ``most``.
    """
    name = str(codec.get("id"))
    if name in _UNPACKERS:
        unpacked = _UNPACKERS[name](data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes(), most)
        if len(unpacked) > most:
            raise ValueError(f"a chunk that unpacks to more than its {most:,} bytes")
        return unpacked
    if name not in _PLAIN:
        raise RefusedError("npz.codec", "a codec that is installed", f"codec {name!r}")
    import numcodecs

    for key in _DTYPES:
        if key in codec and np.dtype(codec[key]).kind not in "iufb":
            raise RefusedError("npz.codec", "a filter of numbers", f"{name!r} of {codec[key]!r:.40}")
    decoded: bytes | NDArray[Any] = numcodecs.get_codec(codec).decode(data)
    num_bytes = decoded.nbytes if isinstance(decoded, np.ndarray) else len(decoded)
    if num_bytes > _WIDER * most:
        raise ValueError(f"a chunk that becomes {num_bytes:,} bytes in the filter {name!r}")
    return decoded


def is_image_codec(codec: dict[str, Any]) -> bool:
    """Returns whether the codec packs a chunk as an image file, as UMI packs frames as JPEG XL."""
    return str(codec.get("id")).startswith(_IMAGES)


def decode_images(codec: dict[str, Any], data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Returns a chunk that is an image file.

    Raises:
        RefusedError: the package of image codecs is not installed, or lacks this one.
        Exception: the image is damaged, or has another shape than the chunk.
    """
    name = str(codec["id"]).removeprefix(_IMAGES)
    try:
        import imagecodecs  # type: ignore[import-not-found,unused-ignore]

        decode = getattr(imagecodecs, f"{name}_decode")
    except (ImportError, AttributeError):
        found = f"codec {codec['id']!r}: pip install imagecodecs"
        raise RefusedError("npz.codec", "a codec that is installed", found) from None
    # The decoder compares the image's header with ``out`` before it takes memory for the image.
    out = np.empty(tuple(n for n in shape if n != 1) or (1,), dtype=dtype)
    decoded = np.asarray(decode(data, out=out))
    return decoded.reshape(shape)


def _deflate(window: int) -> Callable[[bytes, int], bytes]:
    def unpacked(data: bytes, most: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while data:
            packed = zlib.decompressobj(window)
            part = packed.decompress(data, most + 1 - size)
            if not packed.eof and size + len(part) <= most:
                raise EOFError("a chunk that is cut short")
            parts.append(part)
            size += len(part)
            if size > most:
                break
            data = packed.unused_data
        return b"".join(parts)

    return unpacked


def _bz2(data: bytes, most: int) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, most + 1)


def _lzma(data: bytes, most: int) -> bytes:
    return lzma.LZMADecompressor(memlimit=512 << 20).decompress(data, most + 1)


def _zstd(data: bytes, most: int) -> bytes:
    with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
        out = io.BytesIO()
        while (room := most + 1 - out.tell()) > 0 and (piece := stream.read(room)):
            out.write(piece)
        return out.getvalue()


def _blosc(data: bytes, most: int) -> bytes:
    from numcodecs import blosc

    # Versions, flags, item size, then the number of bytes: unpacked, of a block, packed.
    if (
        len(data) < 16
        or struct.unpack_from("<I", data, 4)[0] > most
        or struct.unpack_from("<I", data, 12)[0] != len(data)
    ):
        raise ValueError(f"no Blosc buffer of {len(data)} bytes that unpacks to at most {most:,}")
    unpacked: bytes = blosc.decompress(data)
    return unpacked


def _lz4(data: bytes, most: int) -> bytes:
    from numcodecs import lz4

    if len(data) < 4 or struct.unpack_from("<I", data)[0] > most:
        raise ValueError(f"no LZ4 buffer that unpacks to at most {most:,} bytes")
    unpacked: bytes = lz4.decompress(data)
    return unpacked


_UNPACKERS: dict[str, Callable[[bytes, int], bytes]] = {
    "blosc": _blosc,
    "bz2": _bz2,
    "gzip": _deflate(31),
    "lz4": _lz4,
    "lzma": _lzma,
    "zlib": _deflate(15),
    "zstd": _zstd,
}

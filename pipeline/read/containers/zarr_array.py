"""The description of one Zarr array, of format 2 or 3: shape, chunks, dtype, codecs and the names of its chunks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.containers.zarr_codecs import decode_images, is_image_codec, unpack
from vlapipe.pipeline.read.refused import RefusedError

__all__ = ["ZarrArray", "parse_zarr"]

_NUMBERS = {
    "bool": "?",
    **{f"int{n}": f"i{n // 8}" for n in (8, 16, 32, 64)},
    **{f"uint{n}": f"u{n // 8}" for n in (8, 16, 32, 64)},
    **{f"float{n}": f"f{n // 8}" for n in (16, 32, 64)},
}
_TEXTS = {"string": "vlen-utf8", "variable_length_bytes": "vlen-bytes", "bytes": "vlen-bytes"}
_MOST_ITEMS = 1 << 24  # texts of one chunk
_NOT_KEPT = {"vlen-utf8", "vlen-bytes"}  # codecs of numcodecs that make objects of bytes, and execute nothing


@dataclass(frozen=True, kw_only=True)
class ZarrArray:
    """One array. ``codecs`` are in the order in which they packed a chunk, each with the ``id`` of Zarr 2.

    ``axes`` are the array's axes in the order in which a chunk has them. ``objects`` is the codec of texts.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: Any
    codecs: tuple[dict[str, Any], ...]
    axes: tuple[int, ...]
    prefix: str = ""  # of the names of chunks
    separator: str = "."
    objects: str | None = None

    @property
    def chunk_bytes(self) -> int:
        """Returns the bytes of one unpacked chunk."""
        return math.prod(self.chunks) * self.dtype.itemsize

    def chunks_of(self, start: int, stop: int) -> Iterator[tuple[int, ...]]:
        """Yields the position of each chunk that holds rows ``start <= row < stop``, first rows first."""
        if not self.shape:
            yield ()
            return
        rows = range(start // self.chunks[0], -(-stop // self.chunks[0])) if stop > start else range(0)
        across = [range(-(-n // c)) for n, c in zip(self.shape[1:], self.chunks[1:], strict=True)]
        yield from itertools.product(rows, *across)

    def key(self, at: tuple[int, ...]) -> str:
        """Returns the name of a chunk."""
        named = self.separator.join(map(str, at)) if at else "" if self.prefix else "0"
        if not self.prefix:
            return named
        return f"{self.prefix}{self.separator}{named}" if named else self.prefix

    def decode(self, data: bytes) -> NDArray[Any]:
        """Returns one chunk, ``(chunks...)``.

        Raises:
            RefusedError: a codec is not read or not installed.
            Exception: the chunk is damaged.
        """
        codecs = list(self.codecs)
        most = self.chunk_bytes + (64 if self.objects is None else _MOST_ITEMS * 4 + 16 * len(data))
        shape = tuple(self.chunks[axis] for axis in self.axes)
        decoded: Any = data
        while codecs:
            codec = codecs.pop()
            if is_image_codec(codec):
                decoded = decode_images(codec, bytes(decoded), shape, self.dtype)
            else:
                decoded = unpack(codec, decoded, most)
        if self.objects is not None:
            return self._objects(bytes(decoded)).reshape(shape)
        if isinstance(decoded, np.ndarray):
            decoded = np.ascontiguousarray(decoded).view(np.uint8).reshape(-1)
        values = np.frombuffer(decoded, dtype=np.uint8)
        if len(values) != self.chunk_bytes:
            raise ValueError(f"a chunk of {len(values):,} bytes instead of {self.chunk_bytes:,}")
        return values.view(self.dtype).reshape(shape).transpose(np.argsort(self.axes))

    def _objects(self, data: bytes) -> NDArray[Any]:
        """Returns texts or bytes: their number, then for each its length and its bytes."""
        count = int.from_bytes(data[:4], "little")
        if count != math.prod(self.chunks):
            raise ValueError(f"a chunk of {count} texts instead of {math.prod(self.chunks)}")
        found = np.empty(count, dtype=object)
        at = 4
        for i in range(count):
            length = int.from_bytes(data[at : at + 4], "little")
            item = data[at + 4 : at + 4 + length]
            if len(item) != length or at + 4 > len(data):
                raise ValueError(f"text {i} of a chunk is cut short")
            found[i] = item.decode("utf-8") if self.objects == "vlen-utf8" else item
            at += 4 + length
        return found


def parse_zarr(described: dict[str, Any]) -> ZarrArray:
    """Parses ``.zarray`` or ``zarr.json`` of an array.

    Raises:
        RefusedError: the array is of a kind that is not read.
        Exception: the description is damaged.
    """
    array = _parse_3(described) if described.get("zarr_format") == 3 else _parse_2(described)
    sizes = (*array.shape, *array.chunks)
    if len(array.shape) != len(array.chunks) or not all(isinstance(n, int) for n in sizes):
        raise ValueError(f"shape {array.shape} in chunks of {array.chunks}")
    if any(n < 0 for n in array.shape) or any(n < 1 for n in array.chunks):
        raise ValueError(f"shape {array.shape} in chunks of {array.chunks}")
    return array


def _parse_2(described: dict[str, Any]) -> ZarrArray:
    filters = [dict(codec) for codec in described.get("filters") or ()]
    compressor = described.get("compressor")
    given, shape = described["dtype"], tuple(described["shape"])
    objects = None
    if given == "|O":
        last = filters.pop(0)["id"] if filters else "none"
        if last not in _NOT_KEPT:
            raise RefusedError("npz.object_array", "an array of numbers", f"Python objects (codec {last!r})")
        objects, dtype = last, np.dtype(object)
    else:
        dtype = _dtype_2(given)
    order = described.get("order", "C")
    return ZarrArray(
        shape=shape,
        chunks=tuple(described["chunks"]),
        dtype=dtype,
        fill=described.get("fill_value"),
        codecs=(*filters, *([dict(compressor)] if compressor else [])),
        axes=tuple(range(len(shape)))[:: -1 if order == "F" else 1],
        separator="/" if described.get("dimension_separator") == "/" else ".",
        objects=objects,
    )


def _dtype_2(given: Any) -> np.dtype[Any]:
    if isinstance(given, list):
        given = [(str(each[0]), _dtype_2(each[1]), *map(tuple, each[2:])) for each in given]
    elif not isinstance(given, str):
        raise RefusedError("npz.dtype", "numbers or texts", f"dtype {given!r}")
    dtype: np.dtype[Any] = np.dtype(given)
    if dtype.hasobject:
        raise RefusedError("npz.object_array", "an array of numbers", "Python objects")
    return dtype


def _parse_3(described: dict[str, Any]) -> ZarrArray:
    if described["chunk_grid"]["name"] != "regular":
        raise RefusedError("npz.codec", "chunks of one size", f"chunk grid {described['chunk_grid']['name']!r}")
    given, shape = described["data_type"], tuple(described["shape"])
    name = given["name"] if isinstance(given, dict) else given
    objects = _TEXTS.get(name)
    axes = tuple(range(len(shape)))
    order, codecs = "<", []
    for codec in described["codecs"]:
        known, settings = codec["name"], dict(codec.get("configuration") or {})
        if known == "transpose":
            axes = tuple(axes[i] for i in settings["order"])
        elif known == "bytes":
            order = ">" if settings.get("endian") == "big" else "<"
        elif known in ("vlen-utf8", "vlen-bytes"):
            objects = known
        else:
            codecs.append({**settings, "id": known.removeprefix("numcodecs.")})
    encoding = described.get("chunk_key_encoding") or {"name": "default"}
    separator = (encoding.get("configuration") or {}).get("separator", "/" if encoding["name"] == "default" else ".")
    return ZarrArray(
        shape=shape,
        chunks=tuple(described["chunk_grid"]["configuration"]["chunk_shape"]),
        dtype=np.dtype(object) if objects else _dtype_3(name, given, order),
        fill=described.get("fill_value"),
        codecs=tuple(codecs),
        axes=axes,
        prefix="c" if encoding["name"] == "default" else "",
        separator="/" if separator == "/" else ".",
        objects=objects,
    )


def _dtype_3(name: str, given: Any, order: str) -> np.dtype[Any]:
    if name in _NUMBERS:
        return np.dtype(f"{order}{_NUMBERS[name]}")
    settings = (given.get("configuration") or {}) if isinstance(given, dict) else {}
    if name == "fixed_length_utf32":
        return np.dtype(f"{order}U{int(settings['length_bytes']) // 4}")
    if name in ("null_terminated_bytes", "fixed_length_ascii"):
        return np.dtype(f"S{int(settings.get('length_bytes', settings.get('length_bits', 0) // 8))}")
    raise RefusedError("npz.dtype", "numbers or texts", f"data type {name!r}")

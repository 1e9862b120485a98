"""Checks the files of one camera: headers, whether each file is whole, and damage in those that look suspicious."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.discover.proportion import limit_bytes
from vlapipe.pipeline.read.images.damage import (
    decode_fault,
    has_odd_bytes,
    is_small,
    png_fault,
    small_among_neighbours,
)
from vlapipe.pipeline.read.images.jpeg import MAX_PIXELS, JpegHeader, check_end, read_jpeg_header
from vlapipe.pipeline.read.images.other_formats import format_of
from vlapipe.pipeline.read.images.png import PngHeader, read_png_header
from vlapipe.pipeline.shards.format.image_decode import is_png

__all__ = ["OF_SCHEMA", "Checked", "Fault", "check_images"]

# Faults that the schema has, not the image: nothing is left out because of them.
OF_SCHEMA = ("image.no_unit", "image.format", "image.not_depth")

# Encoders write up to 20 scans. A decoder passes over the whole image for each, so that 1 MB of scans takes minutes.
_MOST_SCANS = 200
_START_OF_SCAN = b"\xff\xda"

_Header = JpegHeader | PngHeader


@dataclass(frozen=True)
class Fault:
    """Why an image cannot be used: the code, what was expected, and what was found."""

    code: str
    expected: str
    found: str


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What the images are, by row: (height, width), or the fault; and the rows of each unusual kind, by code."""

    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    faults: dict[int, Fault] = field(default_factory=dict)
    kinds: dict[str, list[int]]


def check_images(data: NDArray[np.uint8], offset: NDArray[np.int64], decode: str, *, is_depth: bool = False) -> Checked:
    """Checks images that lie end to end: image ``i`` is ``data[offset[i]:offset[i + 1]]``.

    ``decode`` says which are decoded to find damage: "all", "suspects" or "none". Whatever it says, an image is decoded
    whose header is unlike the header of each one that was decoded before, because a decoder may refuse such a file.
    """
    checked = Checked(
        kinds={f"image.{kind}": [] for kind in ("gray", "progressive", "rotated", "alpha", "stray_bytes")}
    )
    camera = _Camera(decode, is_depth=is_depth)
    num_bytes = np.diff(offset)
    small, small_png = small_among_neighbours(num_bytes).tolist(), is_small(num_bytes).tolist()
    start = 0
    for row, end in enumerate(offset[1:].tolist()):
        image = data[start:end].data
        start = end
        found = camera.check(image, small[row], small_png[row])
        if isinstance(found, Fault):
            checked.faults[row] = found
            continue
        checked.sizes[row] = found[:2]
        for code in _kinds(found):
            checked.kinds[code].append(row)
    return checked


class _Camera:
    """Knows the headers of one camera's images so far: files with the same header need no parsing and no decoding."""

    def __init__(self, decode: str, *, is_depth: bool) -> None:
        self._decode, self._is_depth = decode, is_depth
        self._last: tuple[bytes, JpegHeader] | None = None  # the bytes of the header before
        self._decoded: set[object] = set()  # shapes of headers with which an image was decoded

    def check(self, image: memoryview, is_small_jpeg: bool, is_small_png: bool) -> _Header | Fault:
        """Returns the header of one image if it is whole and of a kind that training decodes."""
        if not len(image):
            return Fault("image.empty", "an image", "0 bytes")
        of_png = is_png(image)
        kind = "PNG" if of_png else "JPEG"
        try:
            header: _Header = read_png_header(image) if of_png else self._jpeg_header(image)
        except ValueError as error:
            return _no_header(image, kind, str(error))
        fault = self._unfit(header, image)
        if fault is not None:
            return fault
        shape = header[2:] if isinstance(header, PngHeader) else header.shape
        if self._is_suspect(image, header, is_small_jpeg, is_small_png) or shape not in self._decoded:
            complaint = png_fault(image) if of_png else decode_fault(image)
            if complaint is not None:
                return Fault("image.undecodable", f"a {kind} that can be decoded", complaint)
            self._decoded.add(shape)
        return header

    def _jpeg_header(self, image: memoryview) -> JpegHeader:
        if self._last is not None:
            before, header = self._last
            if bytes(image[: len(before)]) == before:
                check_end(image, header.scan)
                return header
        header = read_jpeg_header(image)
        end = header.scan + 2 + int.from_bytes(image[header.scan + 2 : header.scan + 4], "big")
        self._last = bytes(image[:end]), header
        return header

    def _is_suspect(self, image: memoryview, header: _Header, is_small_jpeg: bool, is_small_png: bool) -> bool:
        if self._decode != "suspects":
            return self._decode == "all"
        if isinstance(header, PngHeader):
            return is_small_png
        return is_small_jpeg or bool(header.num_stray) or has_odd_bytes(image, is_progressive=header.is_progressive)

    def _unfit(self, header: _Header, image: memoryview) -> Fault | None:
        """Returns why an image with this header is not kept, if so."""
        of_png = isinstance(header, PngHeader)
        if header.height * header.width > MAX_PIXELS:
            size = f"{header.width}x{header.height}"
            return Fault("image.too_large", f"at most {MAX_PIXELS // 1_000_000} megapixels", size)
        num_bytes = header.height * header.width * (2 if self._is_depth else 3)
        if num_bytes > limit_bytes(len(image)):
            expected = f"at most {limit_bytes(len(image)):,} bytes of pixels in a file of {len(image):,}"
            return Fault("image.too_large", expected, f"{num_bytes:,}")
        if isinstance(header, JpegHeader) and header.is_progressive:
            num_scans = bytes(image).count(_START_OF_SCAN)
            if num_scans > _MOST_SCANS:
                return Fault("image.coding", f"a JPEG of at most {_MOST_SCANS} scans", f"{num_scans}")
        if self._is_depth:
            if isinstance(header, JpegHeader):
                return Fault("image.not_depth", "a PNG of one channel, since the camera has a unit", "a JPEG")
            if not header.is_one_channel:
                return Fault(
                    "image.not_depth", "a PNG of one channel, since the camera has a unit", "a PNG with colours"
                )
        elif isinstance(header, PngHeader) and header.is_deep:
            return Fault("image.no_unit", "8 bits a sample, or a camera with a unit", "a PNG of one channel of 16 bits")
        if header.odd_coding is not None:
            expected = "8 bits a sample in colour" if of_png else "an 8-bit baseline or progressive JPEG"
            return Fault("image.coding", expected, header.odd_coding)
        return None


def _no_header(image: memoryview, kind: str, complaint: str) -> Fault:
    if complaint != "not a JPEG":
        return Fault("image.truncated", f"a whole {kind}", complaint)
    other = format_of(image)
    if other is not None:
        return Fault("image.format", "a JPEG or PNG", f"a {other}")
    return Fault("image.not_jpeg", "a whole JPEG or PNG", f"bytes {bytes(image[:4])!r}")


def _kinds(header: _Header) -> list[str]:
    """Returns the codes of an image's unusual properties."""
    if isinstance(header, PngHeader):
        kinds = {"gray": header.is_gray and not header.is_deep, "alpha": header.has_alpha}
    else:
        kinds = {
            "gray": header.num_components == 1,
            "progressive": header.is_progressive,
            "rotated": header.orientation != 1,
            "stray_bytes": header.num_stray > 0,
        }
    return [f"image.{kind}" for kind, is_so in kinds.items() if is_so]

"""Reads a PNG's header and checks that the file is whole, without decoding the image.

Each chunk ends with a checksum, so damage inside is found too. Chunk layout: https://www.w3.org/TR/png-3/#5DataRep.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from vlapipe.pipeline.shards.format.png_decode import PNG_SIGNATURE

__all__ = ["PngHeader", "read_png_header"]

_GRAY, _RGB, _PALETTE, _GRAY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_DEPTHS = {_GRAY: (1, 2, 4, 8, 16), _RGB: (8, 16), _PALETTE: (1, 2, 4, 8), _GRAY_ALPHA: (8, 16), _RGBA: (8, 16)}

_Bytes = bytes | bytearray | memoryview


class PngHeader(NamedTuple):
    """Size in pixels, bits a sample, the colour type of the standard, and whether lines are interlaced."""

    height: int
    width: int
    precision: int  # bits a sample
    colour: int
    interlace: int = 0

    @property
    def is_deep(self) -> bool:
        """Returns whether an image is one channel of 16 bits, as depth is."""
        return self.precision == 16 and self.colour == _GRAY

    @property
    def is_one_channel(self) -> bool:
        """Returns whether a pixel is one number."""
        return self.colour == _GRAY

    @property
    def is_gray(self) -> bool:
        """Returns whether the image has no colour."""
        return self.colour in (_GRAY, _GRAY_ALPHA)

    @property
    def has_alpha(self) -> bool:
        """Returns whether pixels have a transparency beside their colour."""
        return self.colour in (_GRAY_ALPHA, _RGBA)

    @property
    def odd_coding(self) -> str | None:
        """Returns the property for which an image is not kept as it is, or ``None``."""
        return "16 bits a sample in colour" if self.precision == 16 and not self.is_deep else None


def read_png_header(data: _Bytes) -> PngHeader:
    """Reads the header of a whole PNG, and compares the checksum of each chunk.

    Raises:
        ValueError: ``"not a PNG"``, or a description of where the file is damaged or cut short.
    """
    if bytes(data[:8]) != PNG_SIGNATURE:
        raise ValueError("not a PNG")
    data = memoryview(data)
    header: PngHeader | None = None
    has_image = False
    at, size = 8, len(data)
    while at + 12 <= size:
        length, kind = int.from_bytes(data[at : at + 4], "big"), bytes(data[at + 4 : at + 8])
        end = at + 12 + length
        if end > size:
            break
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError(f"the checksum of the chunk {kind.decode('latin-1')!r} at byte {at} is wrong: damaged")
        if header is None:
            header = _parse_header(kind, data[at + 8 : end - 4])
        elif kind == b"IEND":
            if not has_image:
                raise ValueError("no image data")
            return header
        has_image |= kind == b"IDAT"
        at = end
    raise ValueError(f"cut short at byte {at}" if header is not None else "cut short within the header")


def _parse_header(kind: bytes, chunk: memoryview) -> PngHeader:
    if kind != b"IHDR" or len(chunk) != 13:
        raise ValueError("no header in the first chunk")
    width, height = int.from_bytes(chunk[:4], "big"), int.from_bytes(chunk[4:8], "big")
    precision, colour = chunk[8], chunk[9]
    if not (height and width) or precision not in _DEPTHS.get(colour, ()):
        raise ValueError(f"a header of {width}x{height} pixels, colour type {colour}, {precision} bits a sample")
    return PngHeader(height, width, precision, colour, chunk[12])

"""Reads a JPEG's size from its header and checks that the file is whole, without decoding it.

Marker layout: ITU-T T.81, annex B.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["JpegHeader", "read_jpeg_header"]

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
# Start-of-frame markers, which carry the size: C0-CF without DHT (C4), JPG (C8) and DAC (CC).
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM, RST0-7


@dataclass(frozen=True)
class JpegHeader:
    """Size in pixels and number of colour components."""

    height: int
    width: int
    num_components: int


def read_jpeg_header(data: bytes | bytearray | memoryview) -> JpegHeader:
    """Size of a whole JPEG.

    Raises:
        ValueError: ``"not a JPEG"``, or how it is cut short.
    """
    if bytes(data[:2]) != _SOI:
        raise ValueError("not a JPEG")
    header: JpegHeader | None = None
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise ValueError(f"no marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _WITHOUT_LENGTH:
            at += 2
            continue
        if marker in _START_OF_FRAME and at + 10 <= len(data):
            header = JpegHeader(
                height=data[at + 5] << 8 | data[at + 6],
                width=data[at + 7] << 8 | data[at + 8],
                num_components=data[at + 9],
            )
        elif marker == _START_OF_SCAN:
            if header is None:
                raise ValueError("no size before the image data")
            if not _ends(data, at):
                raise ValueError("no end-of-image marker: cut short")
            return header
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    raise ValueError("cut short within the header")


def _ends(data: bytes | bytearray | memoryview, scan: int) -> bool:
    """Whether an end-of-image marker follows the scan; inside a scan FF is stuffed, so any D9 after it is the end."""
    if bytes(data[-2:]) == _EOI:
        return True
    return bytes(data[scan:]).rfind(_EOI) >= 0  # some cameras pad their files

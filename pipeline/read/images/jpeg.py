"""Reads a JPEG's header and checks that the file is whole, without decoding the image.

Marker layout: ITU-T T.81, annex B. Orientation: Exif 2.3, section 4.6.4.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MAX_PIXELS", "WITHOUT_LENGTH", "JpegHeader", "check_end", "read_jpeg_header"]

MAX_PIXELS = 100_000_000  # more than any robot's camera has; a decoder would allocate 3 bytes per pixel
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
# Start-of-frame markers, which carry the size: C0-CF without DHT (C4), JPG (C8) and DAC (CC).
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
_START_OF_SCAN = 0xDA
_APP1 = 0xE1
_DHT, _DQT = 0xC4, 0xDB
# Segments that a decoder takes for comments. APP14 (Adobe's) is none: it says how colours are coded.
_COMMENTS = frozenset({0xFE, *range(0xE0, 0xF0)}) - {0xEE}
WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})  # TEM, RST0-7
_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112
_COLORS = {2: "2 colour components", 4: "4 colour components (CMYK or YCCK)"}

_Bytes = bytes | bytearray | memoryview


class JpegHeader(NamedTuple):
    """Size in pixels, coding of the image, and EXIF orientation (1: upright).

    ``shape`` is the header without comments, and without the numbers of tables that are in order: files of one shape
    are decoded alike. ``scan`` is the byte at which the image data's own header begins.
    """

    height: int
    width: int
    num_components: int
    precision: int = 8  # bits per sample
    process: int = _BASELINE  # the start-of-frame marker
    orientation: int = 1
    num_stray: int = 0  # bytes between the segments, which decoders skip
    shape: bytes = b""
    scan: int = 0

    @property
    def is_progressive(self) -> bool:
        """Returns whether the image is coded in several passes."""
        return self.process == _PROGRESSIVE

    @property
    def odd_coding(self) -> str | None:
        """Returns the property that common decoders do not support, or ``None``."""
        if self.process in _LOSSLESS:
            return "lossless coding"
        if self.process > 0xC8:
            return "arithmetic coding"
        if self.process not in (_BASELINE, _EXTENDED, _PROGRESSIVE):
            return "hierarchical coding"
        if self.precision != 8:
            return f"{self.precision} bits a sample"
        if self.num_components not in (1, 3):
            return _COLORS.get(self.num_components, f"{self.num_components} colour components")
        return None


def read_jpeg_header(data: _Bytes) -> JpegHeader:
    """Reads the header of a whole JPEG. Bytes between segments are skipped, as decoders do.

    Raises:
        ValueError: ``"not a JPEG"``, or a description of where the file is cut short.
    """
    if bytes(data[:2]) != _SOI:
        raise ValueError("not a JPEG")
    frame: tuple[int, int, int, int, int] | None = None
    orientation, num_stray = 1, 0
    shape: list[bytes] = []
    at, size = 2, len(data)
    while at + 4 <= size:
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0x00:
            at += 1
            num_stray += 1
            continue
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in WITHOUT_LENGTH:
            at += 2
            continue
        length = data[at + 2] << 8 | data[at + 3]
        segment = bytes(data[at : at + 2 + length])
        if marker in _START_OF_FRAME and at + 10 <= size:
            height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            frame = height, width, data[at + 9], data[at + 4], marker
        elif marker == _APP1:
            orientation = _orientation(segment[4:]) or orientation
        elif marker == _START_OF_SCAN:
            if frame is None or not (frame[0] and frame[1]):
                raise ValueError("no size before the image data")
            check_end(data, at)
            shape.append(segment)
            return JpegHeader(*frame, orientation, num_stray, b"".join(shape), at)
        if marker not in _COMMENTS:
            shape.append(_outline(segment) if marker in (_DHT, _DQT) else segment)
        at += 2 + length
    raise ValueError("cut short within the header")


def _outline(segment: bytes) -> bytes:
    """Returns which tables a segment defines, without their numbers; the segment itself if a table is not in order."""
    is_dht, at, names = segment[1] == _DHT, 4, [segment[:2]]
    while at < len(segment):
        names.append(segment[at : at + 1])
        if is_dht:
            counts = segment[at + 1 : at + 17]
            free = 1
            for count in counts:
                free = 2 * free - count
                if free < 0:
                    return segment  # more codes than bits can tell apart
            at += 17 + sum(counts)
        else:
            at += 129 if segment[at] >> 4 else 65
    return b"".join(names) if at == len(segment) else segment


def check_end(data: _Bytes, scan: int) -> None:
    """Checks that the image data reaches an end-of-image marker.

    Image data never holds the marker's bytes by chance, because FF bytes are stuffed. Some cameras pad their files or
    append a second image, so bytes after the marker do not count. If another image begins before this one has ended,
    this one was cut short. Files that end with the marker are not searched: the search would take three times as long
    as all the rest.
    """
    if bytes(data[-2:]) == _EOI:
        return
    rest = bytes(data[scan:])
    end, begins = rest.find(_EOI), rest.find(_SOI)
    if end < 0 or 0 <= begins < end:
        raise ValueError("no end-of-image marker: cut short")


def _orientation(segment: _Bytes) -> int | None:
    """Returns the orientation of the EXIF segment, or ``None`` if the segment has none or is damaged."""
    tiff = bytes(segment[6:]) if bytes(segment[:6]) == _EXIF else b""
    if tiff[:2] not in (b"II", b"MM"):
        return None
    order = "little" if tiff[:2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)  # type: ignore[arg-type]

    directory = number(4, 4)
    for entry in range(min(number(directory, 2), (len(tiff) - directory) // 12)):
        at = directory + 2 + 12 * entry
        if number(at, 2) == _ORIENTATION:
            return number(at + 8, 2)
    return None

"""Makes JPEGs of unusual kinds by changing bytes in the header of a plain JPEG."""

from __future__ import annotations

import struct


def with_frame(jpeg: bytes, *, process: int = 0xC0, precision: int = 8) -> bytes:
    """The same with other bytes in its start-of-frame segment."""
    at = jpeg.index(b"\xff\xc0")
    return jpeg[:at] + bytes([0xFF, process]) + jpeg[at + 2 : at + 4] + bytes([precision]) + jpeg[at + 5 :]


def with_size(jpeg: bytes, height: int, width: int) -> bytes:
    at = jpeg.index(b"\xff\xc0")
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def with_exif(jpeg: bytes, orientation: int, order: str = "<") -> bytes:
    """The same with an EXIF segment in which the orientation is the second entry."""
    entries = [(0x0110, 2, 1, b"x\0\0\0"), (0x0112, 3, 1, struct.pack(order + "HH", orientation, 0))]
    tiff = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(entries))
    tiff += b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries) + bytes(4)
    segment = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]

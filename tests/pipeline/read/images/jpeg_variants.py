"""Makes JPEGs of unusual kinds by changing bytes in the header of a plain JPEG."""

from __future__ import annotations

import io
import struct

from PIL import Image


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


def flat_jpeg(height: int, width: int, samplings: tuple[int, ...]) -> bytes:
    """A whole middle-gray JPEG whose colour is subsampled in any way: ``samplings`` are the bytes of its header.

    Each block is two codes of the standard tables: no difference to the block before, and the end of the block.
    """
    file = io.BytesIO()
    Image.new("RGB", (width, height), (128, 128, 128)).save(file, "JPEG")
    jpeg = with_size(file.getvalue(), height, width)
    at, scan = jpeg.index(b"\xff\xc0"), jpeg.index(b"\xff\xda")
    header = bytearray(jpeg[: scan + 14])
    for i, sampling in enumerate(samplings):
        header[at + 11 + 3 * i] = sampling
    across, down = (max((s >> 4 if axis else s & 15) for s in samplings) for axis in (1, 0))
    num_units = -(-height // (8 * down)) * -(-width // (8 * across))
    luma, chroma = ((s >> 4) * (s & 15) for s in samplings[:2])
    bits = ("001010" * luma + "0000" * 2 * chroma) * num_units
    bits += "1" * (-len(bits) % 8)
    return bytes(header) + int(bits, 2).to_bytes(len(bits) // 8, "big") + b"\xff\xd9"

"""Packed zeros: a few kilobytes that unpack to any size, made without making that size."""

from __future__ import annotations

import struct
import zlib

__all__ = ["deflated_zeros", "gzipped_zeros", "zip_of"]

_PIECE = 1 << 20


def deflated_zeros(num_bytes: int, window: int) -> bytes:
    """Return zeros packed by deflate: raw (window -15) or as zlib (15). The checksum is right."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = packer.compress(bytes(_PIECE)) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    last = packer.compress(bytes(num_bytes % _PIECE)) + packer.flush()
    raw = piece * (num_bytes // _PIECE) + last
    if window < 0:
        return raw
    adler = (num_bytes % 65521) << 16 | 1
    return b"\x78\xda" + raw + struct.pack(">I", adler)


def gzipped_zeros(num_bytes: int) -> bytes:
    """Return zeros as a gzip file; its checksum is wrong, which only shows at the end."""
    end = struct.pack("<II", 0, num_bytes & 0xFFFFFFFF)
    return b"\x1f\x8b\x08\0\0\0\0\0\x02\xff" + deflated_zeros(num_bytes, -15) + end


def zip_of(*members: tuple[str, bytes, int, int, int]) -> bytes:
    """Return a ZIP of members that are packed already: name, packed bytes, method, size as stated, checksum."""
    out, directory = b"", b""
    for name, packed, method, size, checksum in members:
        fields = struct.pack("<HHHHHIII", 20, 0x800, method, 0, 33, checksum, len(packed), min(size, 0xFFFFFFFF))
        encoded = name.encode()
        wide = struct.pack("<HHQ", 1, 8, size) if size >= 0xFFFFFFFF else b""
        names = struct.pack("<HH", len(encoded), len(wide))
        directory += b"PK\x01\x02\x14\x00" + fields + names + bytes(10) + struct.pack("<I", len(out)) + encoded + wide
        out += b"PK\x03\x04" + fields + names + encoded + wide + packed
    count = len(members)
    end = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(out), 0)
    return out + directory + b"PK\x05\x06" + end

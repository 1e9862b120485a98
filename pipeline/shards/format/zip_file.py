"""The ZIP container of a shard: writes aligned members, and finds the byte offset of a member for mapping.

The data of an uncompressed member starts at a multiple of 64 bytes. The padding is in the extra field of the local
header, under an ID that readers skip, so every ZIP reader opens the file. Dates are fixed and the caller decides the
order, so the same members give the same bytes. Sizes and CRCs are known before a header is written, so the file is
written sequentially and can be hashed at the same time. Layout: PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.3.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from vlapipe.schemas.errors import DamageError

__all__ = ["ALIGNMENT", "AlignedZip", "Bytes", "Encoded", "Member", "StoredArray", "data_offset"]

ALIGNMENT = 64
_PADDING_ID = 0xD935  # the ID that Android's zipalign uses for the same purpose
_ZIP64_ID = 0x0001
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_IN_ZIP64 = 0xFFFF_FFFF  # placeholder for a number that is in the ZIP64 field
_LIMIT = _IN_ZIP64  # numbers from this limit on are in the ZIP64 field
_MAX_MEMBERS = 0xFFFF
_STORED, _DEFLATED = 0, 8
_DATE = 1 << 5 | 1  # 1980-01-01, 00:00
_UTF8 = 0x800
_MADE_ON_UNIX = 3 << 8
_READ_ONLY = 0o444 << 16

Bytes = bytes | memoryview


@dataclass(frozen=True)
class Encoded:
    """A piece of a member: its stored bytes, and its uncompressed bytes (the same bytes if not deflated)."""

    stored: Bytes
    raw: Bytes


@dataclass(frozen=True, kw_only=True)
class _Entry:
    name: bytes
    method: int
    crc: int
    stored_bytes: int
    raw_bytes: int
    offset: int

    @property
    def flags(self) -> int:
        return 0 if self.name.isascii() else _UTF8

    @property
    def is_large(self) -> bool:
        return max(self.stored_bytes, self.raw_bytes) >= _LIMIT


class AlignedZip:
    """Writes a ZIP sequentially through ``write``, which is called with pieces of bytes."""

    def __init__(self, write: Callable[[Bytes], object]) -> None:
        self._write = write
        self._at = 0
        self._entries: list[_Entry] = []

    def add(self, name: str, pieces: Sequence[Encoded], *, deflated: bool = False) -> int:
        """Write a member, deflated by the caller, or stored and aligned. Returns the number of stored bytes."""
        crc = 0
        for piece in pieces:
            crc = zlib.crc32(piece.raw, crc)
        entry = _Entry(
            name=name.encode(),
            method=_DEFLATED if deflated else _STORED,
            crc=crc,
            stored_bytes=sum(len(piece.stored) for piece in pieces),
            raw_bytes=sum(len(piece.raw) for piece in pieces),
            offset=self._at,
        )
        self._put(self._local_header(entry))
        for piece in pieces:
            self._put(piece.stored)
        self._entries.append(entry)
        return entry.stored_bytes

    def close(self) -> None:
        """Write the ZIP's central directory. Does not close the file."""
        start = self._at
        for entry in self._entries:
            self._put(_central_header(entry))
        size, count = self._at - start, len(self._entries)
        if start >= _LIMIT or size >= _LIMIT or count >= _MAX_MEMBERS:
            end64 = self._at
            self._put(_END64.pack(b"PK\6\6", _END64.size - 12, 45, 45, 0, 0, count, count, size, start))
            self._put(_LOCATOR64.pack(b"PK\6\7", 0, end64, 1))
        count = min(count, _MAX_MEMBERS)
        self._put(_END.pack(b"PK\5\6", 0, 0, count, count, *(_in_32_bits(n) for n in (size, start)), 0))

    def _put(self, data: Bytes) -> None:
        self._write(data)
        self._at += len(data)

    def _local_header(self, entry: _Entry) -> bytes:
        sizes = (entry.stored_bytes, entry.raw_bytes)
        extra = b""
        if entry.is_large:
            extra = struct.pack("<2H2Q", _ZIP64_ID, 16, entry.raw_bytes, entry.stored_bytes)
            sizes = (_IN_ZIP64, _IN_ZIP64)
        if entry.method == _STORED:
            extra += _padding(self._at + _LOCAL.size + len(entry.name) + len(extra))
        version = 45 if entry.is_large else 20
        fields = (version, entry.flags, entry.method, 0, _DATE, entry.crc, *sizes, len(entry.name), len(extra))
        return _LOCAL.pack(b"PK\3\4", *fields) + entry.name + extra


def _in_32_bits(number: int) -> int:
    return number if number < _LIMIT else _IN_ZIP64


def _padding(start: int) -> bytes:
    """Returns an extra field that moves data from byte offset ``start`` to the next multiple of ``ALIGNMENT``."""
    missing = -start % ALIGNMENT
    if not missing:
        return b""
    if missing < 4:  # an extra field has at least its own header of 4 bytes
        missing += ALIGNMENT
    return struct.pack("<HH", _PADDING_ID, missing - 4) + bytes(missing - 4)


def _central_header(entry: _Entry) -> bytes:
    """Returns one entry of the central directory. A number that does not fit 32 bits goes into the ZIP64 field."""
    numbers = (entry.raw_bytes, entry.stored_bytes, entry.offset)
    large = [number for number in numbers if number >= _LIMIT]
    extra = struct.pack(f"<2H{len(large)}Q", _ZIP64_ID, 8 * len(large), *large) if large else b""
    raw, stored, offset = map(_in_32_bits, numbers)
    version = 45 if large else 20
    head = (version | _MADE_ON_UNIX, version, entry.flags, entry.method, 0, _DATE, entry.crc, stored, raw)
    tail = (len(entry.name), len(extra), 0, 0, 0, _READ_ONLY, offset)
    return _CENTRAL.pack(b"PK\1\2", *head, *tail) + entry.name + extra


_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, ..., length of name, length of extra (APPNOTE.TXT 4.3.7)


@dataclass(frozen=True, kw_only=True)
class StoredArray:
    """The position of an uncompressed array in a file. ``offset`` is the byte offset from the file's beginning."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool


def data_offset(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Returns the byte offset of a member's data. Reads the local header, whose extra field may differ in length.

    Raises:
        DamageError: there is no local header at the directory's offset.
    """
    file.seek(member.header_offset)
    head = file.read(_LOCAL_HEADER.size)
    if len(head) < _LOCAL_HEADER.size or head[:4] != b"PK\x03\x04":
        raise DamageError(f"{getattr(file, 'name', 'shard')}: no member {member.filename} where the directory says")
    _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(head)
    return member.header_offset + _LOCAL_HEADER.size + int(name_bytes) + int(extra_bytes)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A member of the ZIP. ``jobs`` produce the member's pieces in order. Any thread may run any job."""

    name: str
    array: str
    jobs: Sequence[Callable[[], Encoded]]
    deflated: bool = False

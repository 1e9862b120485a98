"""Writes a ZIP whose uncompressed members start at a multiple of 64 bytes, the same bytes for the same members.

Padding goes into the local header's extra field under an ID that readers skip, so every ZIP reader opens the file.
Dates are fixed, order is the caller's.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable
from typing import IO

__all__ = ["ALIGNMENT", "AlignedZip"]

ALIGNMENT = 64
_PADDING_ID = 0xD935  # the ID that Android's zipalign uses for the same purpose
_LOCAL_HEADER_BYTES = 30  # APPNOTE.TXT 4.3.7
_ZIP64_EXTRA_BYTES = 20
_ZIP64_FROM = 1 << 30
_DATE = (1980, 1, 1, 0, 0, 0)


class AlignedZip:
    """A ZIP being written to an open binary file; use as a context manager."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._zip = zipfile.ZipFile(file, "w", allowZip64=True)

    def __enter__(self) -> AlignedZip:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    def add(self, name: str, parts: Iterable[bytes | memoryview], num_bytes: int, *, deflate_level: int = 0) -> None:
        """Add a member of ``num_bytes`` in all: deflated, or stored and aligned if the level is 0."""
        info = zipfile.ZipInfo(name, date_time=_DATE)
        info.external_attr = 0o444 << 16
        info.create_system = 3
        info.file_size = num_bytes
        if deflate_level:
            data = b"".join(parts)
            self._zip.writestr(info, data, compress_type=zipfile.ZIP_DEFLATED, compresslevel=deflate_level)
            return
        zip64 = num_bytes >= _ZIP64_FROM
        info.extra = self._padding(info, zip64)
        with self._zip.open(info, "w", force_zip64=zip64) as member:
            for part in parts:
                member.write(part)

    def _padding(self, info: zipfile.ZipInfo, zip64: bool) -> bytes:
        header = _LOCAL_HEADER_BYTES + len(info.filename.encode("utf-8")) + (_ZIP64_EXTRA_BYTES if zip64 else 0)
        start = self._file.tell() + header
        missing = -start % ALIGNMENT
        if not missing:
            return b""
        if missing < 4:  # an extra field is at least its own 4-byte head
            missing += ALIGNMENT
        return struct.pack("<HH", _PADDING_ID, missing - 4) + bytes(missing - 4)

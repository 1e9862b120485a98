"""Tells a shard that is whole, but not the one that was expected, from a shard that was altered."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import IO

from vlapipe.pipeline.shards.format.zip_file import AlignedZip, Bytes, Encoded, data_offset

__all__ = ["is_whole_zip"]

_MOST_BYTES = 1 << 30  # of one member; the directory of a damaged file may state any size


class _DiffersError(Exception):
    """The file has other bytes than its members would be written with."""


def is_whole_zip(path: Path, *, may_be_deflated: bool) -> bool:
    """Returns whether the file has exactly the bytes that ``AlignedZip`` writes for the file's members.

    One flipped bit makes this false: in a stored member its CRC differs, elsewhere a header or the padding. But some
    bits of a deflated member may be flipped, and it is inflated to the same bytes. A caller who must tell a
    flipped bit (the size is as it was) says that no member may be deflated.
    """
    try:
        with path.open("rb") as file, path.open("rb") as read_again, zipfile.ZipFile(file) as archive:
            is_deflated = any(member.compress_type == zipfile.ZIP_DEFLATED for member in archive.infolist())
            if is_deflated and not may_be_deflated:
                return False
            _write_again(file, archive, read_again)
            return not read_again.read(1)
    except Exception:  # noqa: BLE001 - a damaged ZIP fails in a dozen ways
        return False


def _write_again(file: IO[bytes], archive: zipfile.ZipFile, compare_with: IO[bytes]) -> None:
    def compare(data: Bytes) -> None:
        if compare_with.read(len(data)) != data:
            raise _DiffersError

    again = AlignedZip(compare)
    for member in archive.infolist():
        if max(member.compress_size, member.file_size) > _MOST_BYTES:
            raise _DiffersError
        file.seek(data_offset(file, member))
        stored = file.read(member.compress_size)
        is_deflated = member.compress_type == zipfile.ZIP_DEFLATED
        raw = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, member.file_size + 1) if is_deflated else stored
        again.add(member.filename, [Encoded(stored, raw)], deflated=is_deflated)
    again.close()

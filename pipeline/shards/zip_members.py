"""Where a ZIP member's bytes lie in the file, so that uncompressed ones can be mapped in place."""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from vlapipe.schemas.errors import DamageError

__all__ = ["StoredArray", "data_offset"]

_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, ..., length of name, length of extra (APPNOTE.TXT 4.3.7)


@dataclass(frozen=True, kw_only=True)
class StoredArray:
    """An array that lies uncompressed in a file, ``offset`` bytes from its start."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool


def data_offset(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    """First byte of the member's data; the local header's extra field may differ from the directory's.

    Raises:
        DamageError: no local header stands where the directory says.
    """
    file.seek(member.header_offset)
    head = file.read(_LOCAL_HEADER.size)
    if len(head) < _LOCAL_HEADER.size or head[:4] != b"PK\x03\x04":
        raise DamageError(f"{getattr(file, 'name', 'shard')}: no member {member.filename} where the directory says")
    _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(head)
    return member.header_offset + _LOCAL_HEADER.size + int(name_bytes) + int(extra_bytes)

"""Looks at a video file before a decoder does: which container it is, whether it is whole, and what it promises.

A decoder allocates what a header declares. A damaged or hostile header is therefore refused here, by a few reads.

Layouts: ISO/IEC 14496-12 (MP4, MOV), RFC 8794 and RFC 9559 (Matroska), Microsoft's RIFF (AVI).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

__all__ = ["BadVideoError", "FileHead", "read_head"]

_MATROSKA = b"\x1a\x45\xdf\xa3"
_SEGMENT = 0x18538067
_TOP_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"uuid"}
_WITH_BOXES = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"}
_TABLES = {b"stsz": 8, b"stz2": 8, b"stts": 4, b"ctts": 4, b"trun": 4}  # bytes of the content before the count
_MOST_BOXES = 2_000_000
_FEW = 10_000  # frames that any file may declare


class BadVideoError(ValueError):
    """A file that is no video, or that no decoder should open. The message is what was found."""


@dataclass(frozen=True, kw_only=True)
class FileHead:
    """The container's name as FFmpeg has it, and whether the file ends before the container does."""

    container: str
    is_cut_short: bool


class _Box(NamedTuple):
    kind: bytes
    start: int  # of the content
    stop: int  # past the content; may lie behind the end of the file


def read_head(file: BinaryIO, num_bytes: int) -> FileHead:
    """Reads the head of a video of ``num_bytes`` bytes.

    Raises:
        BadVideoError: the file is no MP4, MOV, MKV, WebM or AVI; or is one that cannot be decoded.
        OSError: the file cannot be read.
    """
    first = file.read(16)
    if not first:
        raise BadVideoError("0 bytes")
    if first[:4] == _MATROSKA:
        return FileHead(container="matroska", is_cut_short=_is_matroska_cut(file, num_bytes))
    if first[:4] == b"RIFF" and first[8:12] in (b"AVI ", b"AVIX"):
        return FileHead(container="avi", is_cut_short=8 + int.from_bytes(first[4:8], "little") > num_bytes)
    if first[4:8] in _TOP_BOXES:
        return FileHead(container="mov", is_cut_short=_check_boxes(file, num_bytes))
    raise BadVideoError(f"bytes {first[:8]!r}, which begin no MP4, MOV, MKV or AVI")


def _check_boxes(file: BinaryIO, num_bytes: int) -> bool:
    """Returns whether a box of an MP4 reaches past the end of the file. Refuses tables that cannot be true."""
    kinds, is_cut = set(), False
    for count, box in enumerate(_boxes(file, 0, num_bytes)):
        if count > _MOST_BOXES:
            raise BadVideoError(f"more than {_MOST_BOXES} boxes")
        kinds.add(box.kind)
        is_cut |= box.stop > num_bytes
        if box.kind in (b"moov", b"moof"):
            _check_tables(file, box, num_bytes)
    if b"moov" not in kinds:
        raise BadVideoError("no index (moov): the recorder was stopped before it had written one")
    return is_cut


def _check_tables(file: BinaryIO, movie: _Box, num_bytes: int) -> None:
    pending, seen = [movie], 0
    while pending:
        outer = pending.pop()
        for box in _boxes(file, outer.start, min(outer.stop, num_bytes)):
            seen += 1
            if seen > _MOST_BOXES:
                raise BadVideoError(f"more than {_MOST_BOXES} boxes")
            if box.kind == b"cmov":
                raise BadVideoError("a compressed index (cmov), which may unpack to any size")
            if box.kind in _WITH_BOXES:
                pending.append(box)
            elif box.kind in _TABLES:
                _check_table(file, box, num_bytes)


def _check_table(file: BinaryIO, box: _Box, num_bytes: int) -> None:
    """Refuses a table that declares more samples than the file has bytes: the decoder makes an entry for each."""
    file.seek(box.start)
    head = file.read(_TABLES[box.kind] + 4)
    entries = int.from_bytes(head[-4:], "big")
    declared = entries
    if box.kind in (b"stts", b"ctts"):
        runs = file.read(min(8 * entries, max(box.stop - box.start, 0), num_bytes))
        declared = sum(int.from_bytes(runs[at : at + 4], "big") for at in range(0, len(runs) - 7, 8))
    if declared > max(num_bytes, _FEW):
        raise BadVideoError(f"{declared:,} frames declared in a file of {num_bytes:,} bytes")


def _boxes(file: BinaryIO, start: int, stop: int) -> Iterator[_Box]:
    at = start
    while at + 8 <= stop:
        file.seek(at)
        head = file.read(16)
        size, kind, content = int.from_bytes(head[:4], "big"), head[4:8], at + 8
        if size == 1:  # the size follows in 64 bits
            size, content = int.from_bytes(head[8:16], "big"), at + 16
        elif size == 0:  # up to the end
            size = stop - at
        if size < content - at:
            return
        yield _Box(kind, content, at + size)
        at += size


def _is_matroska_cut(file: BinaryIO, num_bytes: int) -> bool:
    """Returns whether the segment is longer than the file. A segment of unknown length, as of a stream, is not."""
    at = 0
    for _ in range(8):  # the EBML head, perhaps void elements, then the segment
        file.seek(at)
        head = file.read(12)
        name = _number(head, 4, keep_marker=True)
        size = None if name is None else _number(head[name[1] :], 8, keep_marker=False)
        if name is None or size is None:
            return False
        begins = at + name[1] + size[1]
        if size[0] == (1 << 7 * size[1]) - 1:  # all ones: unknown
            return False
        if name[0] == _SEGMENT:
            return begins + size[0] > num_bytes
        at = begins + size[0]
    return False


def _number(head: bytes, longest: int, *, keep_marker: bool) -> tuple[int, int] | None:
    """Returns an EBML number and its length in bytes."""
    length = 9 - head[0].bit_length() if head and head[0] else 9
    if length > longest or len(head) < length:
        return None
    value = int.from_bytes(head[:length], "big")
    return value if keep_marker else value & ((1 << 7 * length) - 1), length

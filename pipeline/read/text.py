"""Turns a file's bytes into UTF-8 text: unpacks ZIP and gzip, decodes the encoding, refuses bytes that are no text."""

from __future__ import annotations

import codecs
import gzip
import io
import zipfile
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np

from vlapipe.pipeline.discover.proportion import holes_of
from vlapipe.pipeline.read.archives import table_members
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["MOST_DESCRIBED", "count_lines", "first_line", "read_bytes", "read_small", "read_text"]

_ZIP, _EMPTY_ZIP, _GZIP = b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b"
_MAX_BYTES = 16 << 30
# A table compresses 3 to 50 times. A decompression bomb compresses 1000 times and would fill the memory.
_MAX_PACKED, _ALWAYS_UNPACKED = 100, 64 << 20
_PIECE = 1 << 22
MOST_DESCRIBED = 64 << 20  # bytes of a file of metadata
_COUNTED_AT_ONCE = 1 << 18  # such a block stays in the CPU's cache
_BOM = b"\xef\xbb\xbf"
_OTHER_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_EXTENDS_ASCII = ("iso8859", "cp125", "latin", "ascii", "mac_", "koi8")  # bytes below 128 are ASCII


def count_lines(text: bytes, start: int, stop: int) -> int:
    r"""Returns the number of line ends (``\n``, ``\r\n`` or ``\r``) in ``text[start:stop]``."""
    num = _count_byte(text, 0x0A, start, stop)
    if text.find(b"\r", start, stop) < 0:
        return num
    return num + _count_byte(text, 0x0D, start, stop) - text.count(b"\r\n", start, stop)


def _count_byte(text: bytes, byte: int, start: int, stop: int) -> int:
    """Counts like ``bytes.count``, but 3 times as fast on long texts, where counting is a tenth of the parsing time."""
    if stop - start < _COUNTED_AT_ONCE:
        return text.count(byte, start, stop)
    num, matches = 0, np.empty(_COUNTED_AT_ONCE, dtype=np.bool_)
    for at in range(start, stop, _COUNTED_AT_ONCE):
        block = np.frombuffer(text, dtype=np.uint8, count=min(_COUNTED_AT_ONCE, stop - at), offset=at)
        num += int(np.count_nonzero(np.equal(block, byte, out=matches[: len(block)])))
    return num


def read_bytes(path: Path, label: str, findings: Findings) -> bytes | None:
    """Returns the bytes of the whole file, or ``None`` if the file cannot be read.

    Raises:
        StoppedError: the disk, the network or a limit is at fault, not this file.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            if size > _MAX_BYTES:
                findings.add("file.too_large", label, expected=f"at most {_MAX_BYTES} bytes", found=f"{size}")
                return None
            file.seek(0)
            if (holes := holes_of(path)) is not None:
                findings.add("file.too_large", label, expected="a file without holes", found=holes)
                return None
            if size > _PIECE and not any(file.read(_PIECE)):
                findings.add("csv.nul_bytes", label, line=1, found=f"{_PIECE} NUL bytes")
                return None
            file.seek(0)
            return file.read()
    except OSError as error:
        raise_if_stopped(error, path)
        findings.add("file.unreadable", label, found=error.strerror or str(error))
        return None


def read_small(path: Path) -> bytes:
    """Returns the bytes of a file that describes an episode: its metadata, or its instruction.

    Raises:
        ValueError: the file is larger than any such file.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(MOST_DESCRIBED + 1)
    if len(content) > MOST_DESCRIBED:
        raise ValueError(f"more than {MOST_DESCRIBED:,} bytes")
    return content


def read_text(raw: bytes, encoding: str, label: str, findings: Findings) -> bytes | None:
    """Returns the UTF-8 text in ``raw`` without a byte order mark, or ``None`` if ``raw`` holds no text.

    Args:
        raw: a file's bytes: text, or an archive (ZIP or gzip, recognised by its first bytes) with one table in it.
        encoding: the text's encoding; bytes that are invalid in this encoding are refused with their line.
        label: the file's name in findings.
        findings: collects the faults.
    """
    if raw.startswith((_ZIP, _EMPTY_ZIP)):
        packed = _unzip(raw, label, findings)
    elif raw.startswith(_GZIP):
        packed = _gunzip(raw, label, findings)
    else:
        packed = raw
    text = None if packed is None else _decode(packed, encoding, label, findings)
    if text is None:
        return None
    if not text or text.isspace():
        findings.add("csv.empty", label, found="an empty file")
        return None
    nul = text.find(b"\0")
    if nul >= 0:
        line = count_lines(text, 0, nul) + 1
        findings.add("csv.nul_bytes", label, line=line, found=f"{text.count(0)} NUL bytes")
        return None
    return text


def _unzip(raw: bytes, label: str, findings: Findings) -> bytes | None:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = table_members(archive)
            if len(members) != 1:
                names = ", ".join(member.filename for member in members[:4])
                findings.add("file.archive", label, expected="one table", found=f"{len(members)} files {names}".strip())
                return None
            with archive.open(members[0]) as file:
                return _read_limited(file, len(raw), label, findings)
    except Exception as error:  # noqa: BLE001 - a broken archive fails in a dozen ways, each decoder in its own
        findings.add("file.archive", label, expected="a ZIP with one table", found=first_line(error))
    return None


def _gunzip(raw: bytes, label: str, findings: Findings) -> bytes | None:
    try:
        with gzip.open(io.BytesIO(raw)) as file:
            return _read_limited(cast(IO[bytes], file), len(raw), label, findings)
    except (zlib.error, EOFError, OSError) as error:
        findings.add("file.archive", label, expected="a whole gzip file", found=first_line(error))
        return None


def _read_limited(file: IO[bytes], num_packed: int, label: str, findings: Findings) -> bytes | None:
    limit = min(_MAX_BYTES, _ALWAYS_UNPACKED + _MAX_PACKED * num_packed)
    pieces, size = list[bytes](), 0
    while piece := file.read(_PIECE):
        size += len(piece)
        if size > limit:
            break
        if len(piece) == _PIECE and not any(piece):  # text has no such run, and a bomb is often nothing else
            found = f"{_PIECE} NUL bytes or more"
            findings.add("file.too_large", label, expected="a table without a run of NUL bytes", found=found)
            return None
        pieces.append(piece)
    else:
        return b"".join(pieces)
    found = f"more than {limit} out of {num_packed} packed ones"
    findings.add("file.too_large", label, expected=f"at most {limit} bytes", found=found)
    return None


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or the error's type if the message is empty."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _decode(raw: bytes, encoding: str, label: str, findings: Findings) -> bytes | None:
    name = encoding.lower().replace("-", "_")
    if name in ("utf_8", "utf8", "utf_8_sig"):
        return _check_utf8(raw, label, findings)
    if name.startswith(_EXTENDS_ASCII) and raw.isascii():
        return raw
    try:
        return raw.decode(encoding).removeprefix("\ufeff").encode("utf-8")
    except UnicodeDecodeError as error:
        _refuse_byte(raw, error.start, encoding, label, findings)
    except (UnicodeError, LookupError, ValueError, OverflowError) as error:
        findings.add("csv.encoding", label, expected=f"{encoding} text", found=first_line(error))
    return None


def _check_utf8(raw: bytes, label: str, findings: Findings) -> bytes | None:
    for bom, encoding in _OTHER_BOMS.items():
        if raw.startswith(bom):
            found = f"the mark of {encoding.upper()} (say encoding = '{encoding}')"
            findings.add("csv.encoding", label, line=1, expected="UTF-8 text", found=found)
            return None
    text = raw.removeprefix(_BOM)
    if text.isascii():  # a fast scan; most files are ASCII
        return text
    # The text is checked piece by piece, because decoded text takes up to four times the memory.
    start = 0
    while start < len(text):
        stop = min(start + _PIECE, len(text))
        for _ in range(3):
            stop -= stop < len(text) and text[stop] & 0xC0 == 0x80  # a piece must not end within a character
        try:
            text[start:stop].decode("utf-8")
        except UnicodeDecodeError as error:
            _refuse_byte(text, start + error.start, "UTF-8", label, findings)
            return None
        start = stop
    return text


def _refuse_byte(raw: bytes, at: int, encoding: str, label: str, findings: Findings) -> None:
    before = raw[:at].decode(encoding, errors="ignore").encode("utf-8", errors="ignore")
    line = count_lines(before, 0, len(before)) + 1
    found = f"byte {raw[at]:#04x}" + (" at the very end: a character that is cut short" if at + 2 >= len(raw) else "")
    findings.add("csv.encoding", label, line=line, expected=f"{encoding} text", found=found)

"""Reads the first and last lines of a text file, packed or not, and guesses whether it is text and its encoding."""

from __future__ import annotations

import codecs
import gzip
import re
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from vlapipe.pipeline.read.archives import table_members

__all__ = ["NoTextError", "TextHead", "is_other_text", "read_text_head"]

_HEAD_BYTES = 256 << 10
_COUNTED_BYTES = 32 << 20
_TAIL_BYTES = 16 << 10
# As the reader cuts lines; str.splitlines also cuts at form feeds and separators. A run of \r is looked through once.
_LINE_END = re.compile(r"(?<!\r)\r*+\n|\r")


class NoTextError(Exception):
    """The file does not hold text. The message says why."""


@dataclass(frozen=True, kw_only=True)
class TextHead:
    """The beginning of a file, and its last bytes. ``whole`` is True if the beginning is the entire file."""

    path: Path
    data: bytes
    tail: bytes
    num_bytes: int
    whole: bool
    encoding: str = "utf-8"
    reasons: tuple[str, ...] = ()

    @cached_property
    def lines(self) -> list[str]:
        """The complete lines of the beginning, without line ends."""
        lines = _LINE_END.split(self._text)
        if not self.whole or not lines[-1]:
            lines.pop()
        return lines

    @cached_property
    def _text(self) -> str:
        return self.data.decode(self.encoding, errors="replace").removeprefix("\ufeff")

    @cached_property
    def is_doubtful(self) -> bool:
        """True if several encodings could be meant."""
        return self.encoding in _OF_OTHER_SCRIPTS and _has_other_script(self.data)

    @property
    def ended(self) -> bool:
        """True if the last line of a ``whole`` file has a line end."""
        return self.data.endswith((b"\n", b"\n\0"))

    def last_lines(self) -> tuple[list[str], bool]:
        """Return the last complete lines of a file that is not ``whole``, and whether the last line has a line end."""
        text = self.tail.decode(self.encoding, errors="replace")
        return _LINE_END.split(text.removesuffix("\n"))[1:], text.endswith("\n")

    def num_lines_below(self) -> int:
        """Return the number of lines below the beginning.

        The lines are counted, because a file of stamps must have an exact number. If the file is packed or large, the
        number is an estimate.
        """
        if self.whole:
            return 0
        if not self.tail or self.num_bytes > _COUNTED_BYTES:
            return int(self.num_bytes * len(self.lines) / len(self.data)) - len(self.lines)
        with self.path.open("rb") as file:
            file.seek(len(self.data))
            below = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        return below + (not self.tail.endswith(b"\n"))


def read_text_head(path: Path) -> TextHead:
    """Read the beginning of a file and guess its encoding.

    Raises:
        NoTextError: the file cannot be read or unpacked, is empty, or is not text.
    """
    try:
        head = _unpacked(path)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise NoTextError(f"cannot be read: {error}") from error
    if not head.data.strip():
        raise NoTextError("is empty")
    encoding, reason = _guess_encoding(head.data)
    head = replace(head, encoding=encoding, reasons=(reason,) if reason else ())
    at = head._text.find("\0")
    if at >= 0:
        raise NoTextError(f"is no text: character {at + 1:,} is a zero byte")
    return head


def _unpacked(path: Path) -> TextHead:
    if path.suffix.lower() == ".gz":
        with gzip.open(path) as packed:
            data = packed.read(_HEAD_BYTES + 1)
        whole = len(data) <= _HEAD_BYTES
        return TextHead(path=path, data=data[:_HEAD_BYTES], tail=b"", num_bytes=4 * path.stat().st_size, whole=whole)
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            members = table_members(archive)
            if len(members) != 1:
                raise NoTextError(f"holds {len(members)} tables, not one")
            with archive.open(members[0]) as member:
                data = member.read(_HEAD_BYTES)
        num_bytes = members[0].file_size
        return TextHead(path=path, data=data, tail=b"", num_bytes=num_bytes, whole=num_bytes <= _HEAD_BYTES)
    with path.open("rb") as file:
        data = file.read(_HEAD_BYTES)
        num_bytes = file.seek(0, 2)
        file.seek(max(0, num_bytes - _TAIL_BYTES))
        tail = file.read()
    return TextHead(path=path, data=data, tail=tail, num_bytes=num_bytes, whole=num_bytes <= _HEAD_BYTES)


def _guess_encoding(data: bytes) -> tuple[str, str]:
    """Return the encoding, and the reason if the encoding is not plain UTF-8."""
    for mark, name in ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if data.startswith(mark):
            return name, f"encoding {name}: a byte order mark says so"
    zeros = [data[:4096][start::2].count(0) for start in (0, 1)]
    if max(zeros) > 0.3 * min(len(data), 4096) / 2:
        name = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
        return name, f"encoding {name}: every other byte is zero"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError as error:
        fits = [name for name in _OF_OTHER_SCRIPTS if _has_other_script(data) and _is_text_in(data, name)]
        if fits:
            return fits[0], f"encoding {fits[0]}: by it all characters are letters"
        byte = f"byte {data[error.start]:#x}"
        undefined = set(data) & {0x81, 0x8D, 0x8F, 0x90, 0x9D}
        name = "latin-1" if undefined else "cp1252"
        return name, f"encoding {name}: {byte} is no UTF-8; other one-byte encodings are as plausible"
    return "utf-8", ""


_OF_OTHER_SCRIPTS = ("shift_jis", "gb18030", "euc_jp", "big5", "cp1252")
_OF_TEXT = {"So", "Po", "Ps", "Pe", "Lm", "Pd"}  # degree signs, brackets, marks


def _has_other_script(data: bytes) -> bool:
    """Returns True if most bytes beyond ASCII stand together and beside no Latin letter."""
    together = re.findall(rb"(?<![A-Za-z\x80-\xff])[\x80-\xff]{2,}(?![A-Za-z])", data)
    return 2 * sum(map(len, together)) > len(data) - len(data.translate(None, bytes(range(0x80, 0x100))))


def _is_text_in(data: bytes, encoding: str) -> bool:
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError:
        return False
    signs = {sign for sign in text if not sign.isascii()}
    narrow = any("\uff61" <= sign <= "\uff9f" for sign in signs)  # what other encodings look like in shift_jis
    return not narrow and all(sign.isalnum() or unicodedata.category(sign) in _OF_TEXT for sign in signs)


_LOOKED_AT_BYTES = 4 << 10
_MOSTLY = 0.95
_PRINTABLE = bytes([*b"\t\n\r", *range(0x20, 0x7F)])
_NEVER = {  # text files that are not recordings
    ".md", ".rst", ".json", ".xml", ".html", ".htm", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".py", ".m",
    ".c", ".cpp", ".h", ".hpp", ".js", ".sh", ".bat", ".urdf", ".xacro", ".launch", ".ipynb", ".svg", ".tex", ".bib",
    ".pdf", ".jpg", ".jpeg", ".png", ".obj", ".stl", ".ply", ".pcd",
}  # fmt: skip


def is_other_text(path: Path) -> bool:
    """Return True if nearly all of the file's first bytes are printable and none is zero."""
    if path.suffix.lower() in _NEVER or path.name.startswith("."):
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_LOOKED_AT_BYTES)
    except OSError:
        return False
    printable = len(head) - len(head.translate(None, _PRINTABLE))
    return b"\0" not in head and printable > _MOSTLY * len(head)

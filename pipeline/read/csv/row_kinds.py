"""Finds the rows and the header of one kind in a text that holds messages of several kinds, one a line.

Lines of other kinds are emptied, so that every row keeps its line number.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from vlapipe.schemas.schema import WHITESPACE, Dialect

__all__ = ["HeaderLine", "find_header_line", "keep_kind", "kinds_in"]

_LINE_START = rb"(?:\A|(?<=[\r\n]))"
_LINE = re.compile(rb"[^\r\n]+")
_LOOKED_AT_BYTES = 1 << 18
_MAX_NAMED = 12


@dataclass(frozen=True, kw_only=True)
class HeaderLine:
    """The names in a header that ``Dialect.header_line`` found, and the position of its line's first character."""

    record: bytes
    at: int


def find_header_line(text: bytes, start: int, stop: int, dialect: Dialect) -> HeaderLine | None:
    """Returns the first line of ``text[start:stop]`` in which the regular expression finds the header."""
    assert dialect.header_line is not None
    pattern = re.compile(dialect.header_line.encode())
    for line in _LINE.finditer(text, start, stop):
        found = pattern.search(line[0])
        if found is not None:
            return HeaderLine(record=found[1] if pattern.groups else found[0], at=line.start())
    return None


def keep_kind(text: bytes, dialect: Dialect) -> bytes:
    """Returns the text with every line emptied that is not of the dialect's ``row_kind``."""
    assert dialect.row_kind is not None
    cell, end = _cell(dialect)
    quote = re.escape(dialect.quote.encode()) + b"?" if dialect.quote else b""
    kind = re.escape(dialect.row_kind.encode())
    ours = cell * (dialect.kind_column - 1) + rb"[ \t]*" + quote + kind + quote + rb"[ \t]*" + end
    return re.sub(_LINE_START + b"(?!" + ours + rb")[^\r\n]+", b"", text)


def kinds_in(text: bytes, dialect: Dialect) -> str:
    """Returns the kinds that the first lines have, the most frequent first, for a finding."""
    cell, _ = _cell(dialect)
    pattern = re.compile(cell * (dialect.kind_column - 1) + rb"[ \t]*([^\r\n]*)")
    delimiter = None if dialect.delimiter == WHITESPACE else dialect.delimiter.encode()
    kinds = Counter[str]()
    for line in text[:_LOOKED_AT_BYTES].splitlines():
        found = pattern.match(line)
        if found is not None and found[1].strip():
            kinds[found[1].split(delimiter)[0].decode(errors="replace").strip()[:20]] += 1
    more = f" and {len(kinds) - _MAX_NAMED} more" if len(kinds) > _MAX_NAMED else ""
    return (", ".join(kind for kind, _ in kinds.most_common(_MAX_NAMED)) or "no line") + more


def _cell(dialect: Dialect) -> tuple[bytes, bytes]:
    """Returns patterns of a cell with the delimiter behind it, and of the end of a cell."""
    if dialect.delimiter == WHITESPACE:
        return rb"[ \t]*[^ \t\r\n]+[ \t]+", rb"(?=[ \t\r\n]|\Z)"
    delimiter = re.escape(dialect.delimiter.encode())
    return b"(?:(?!" + delimiter + rb")[^\r\n])*" + delimiter, b"(?=" + delimiter + rb"|[\r\n]|\Z)"

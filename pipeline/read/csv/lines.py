"""Cuts a CSV text into header and rows. Skips preamble, comments, units and footer, and finds the columns' names.

Skipped lines between rows are left empty, so that every later row keeps its line number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from vlapipe.pipeline.read.csv.blanks import narrow_blanks, strip_blanks
from vlapipe.pipeline.read.csv.quotes import check_quotes
from vlapipe.pipeline.read.csv.row_kinds import find_header_line, keep_kind, kinds_in
from vlapipe.pipeline.read.csv.short_rows import fill_short_rows
from vlapipe.pipeline.read.text import count_lines
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import WHITESPACE, Dialect

__all__ = ["CutText", "cut_text"]

_BLANK_LINES = re.compile(rb"[\r\n]*")
_BLANK_LINES_OF_BLANKS = re.compile(rb"(?:[ \t]*+[\r\n])*+(?:[ \t]+\Z)?")
_MAX_COLUMNS = 1 << 15  # twice as many as a spreadsheet has; each column costs kilobytes
# Replacements for a delimiter that is not ASCII: pyarrow needs one byte, and text does not hold these bytes.
_UNUSED = (b"\x1f", b"\x1e", b"\x1d", b"\x1c", b"\x02", b"\x03")


@dataclass(frozen=True, kw_only=True)
class CutText:
    """The rows of a table, ``text[start:stop]``; the first character lies on ``first_line``.

    ``names`` has one entry per cell of a row, ``""`` for a cell without a name. ``emptied`` holds the lines of
    comments; with ``may_be_blank``, no blank line is worth a note. With ``trailing``, the last cell of each row must be
    empty. If ``delimiter`` replaces another delimiter, ``restored`` is the original, which must be put back inside
    quotes.
    """

    text: bytes
    start: int
    stop: int
    first_line: int
    names: tuple[str, ...]
    header_line: int | None
    delimiter: bytes
    quote: bytes
    escape: bytes
    has_quotes: bool
    emptied: NDArray[np.int64]
    trailing: bool = False
    restored: bytes | None = None
    may_be_blank: bool = False


def cut_text(text: bytes, dialect: Dialect, label: str, findings: Findings) -> CutText | None:
    """Cuts a text into header and rows. Returns ``None`` if errors were found.

    Args:
        text: UTF-8 without a byte order mark.
        dialect: the layout of header, rows and cells.
        label: the file's name in findings.
        findings: collects the faults.
    """
    return _Cutter(text, dialect, label, findings).cut()


class _Cutter:
    """The steps of ``cut_text``; the next step begins at byte ``at`` of ``text``, on line ``line``."""

    def __init__(self, text: bytes, dialect: Dialect, label: str, findings: Findings) -> None:
        self.dialect, self.label, self.findings = dialect, label, findings
        self.quote, self.escape = dialect.quote.encode(), dialect.escape.encode()
        self.whitespace = dialect.delimiter == WHITESPACE
        self.delimiter, self.restored = self._byte_delimiter(text)
        if self.restored:
            text = text.replace(self.restored, self.delimiter)
        self.text, self.at, self.line, self.stop = text, 0, 1, len(text)
        self.found_header: tuple[bytes, int] | None = None  # names above the rows, and their line
        self.emptied = np.empty(0, dtype=np.int64)

    def _byte_delimiter(self, text: bytes) -> tuple[bytes, bytes | None]:
        if self.whitespace:
            return b" ", None
        delimiter = self.dialect.delimiter.encode()
        if len(delimiter) == 1:
            return delimiter, None
        return next((byte for byte in _UNUSED if byte not in text), _UNUSED[0]), delimiter

    def cut(self) -> CutText | None:
        self._skip(self.dialect.skip_lines)
        self._skip_footer()
        if self.dialect.header_line is not None and not self._find_header_line():
            return None
        if self.dialect.comment and self.text.find(self.dialect.comment.encode(), self.at, self.stop) >= 0:
            self._empty_comments()
        if self.dialect.row_kind is not None and not self.dialect.header_rows and not self._keep_kind():
            return None
        self._skip_blank_lines()
        if self.at >= self.stop and self.found_header is None:
            self.findings.add("csv.empty", self.label, found="no header and no row")
            return None
        header = self._read_header()
        if header is None:
            return None
        header_line, names = header
        if self.dialect.row_kind is not None and self.dialect.header_rows:
            at = self.dialect.kind_column - 1
            names = (*names[:at], "", *names[at + 1 :])  # the kind is one text in all rows
            if not self._keep_kind():
                return None
        has_quotes = bool(self.quote) and self.text.find(self.quote, self.at, self.stop) >= 0
        escapes = bool(self.escape) and self.text.find(self.escape, self.at, self.stop) >= 0
        text, start, stop = self._plain_blanks(self.text, self.at, self.stop)
        if (has_quotes or escapes) and not self._check_quotes(text, start, stop, self.line):
            return None
        if self.dialect.short_rows:
            marks = (self.quote, self.escape) if has_quotes or escapes else (b"", b"")
            text, start = fill_short_rows(text, (start, stop), len(names), self.delimiter, *marks), 0
            stop = len(text)
        return CutText(
            text=text,
            start=start,
            stop=stop,
            first_line=self.line,
            names=names,
            header_line=header_line,
            delimiter=self.delimiter,
            quote=self.quote,
            escape=self.escape,
            has_quotes=has_quotes or escapes,
            emptied=self.emptied,
            trailing=self.dialect.trailing_delimiter,
            restored=self.restored,
            may_be_blank=self.dialect.row_kind is not None or self.dialect.row_line is not None,
        )

    def _skip(self, num_lines: int) -> None:
        for _ in range(num_lines):
            if self.at >= self.stop:
                return
            self.at = _line_end(self.text, self.at, self.stop)[1]
            self.line += 1

    def _skip_footer(self) -> None:
        """Removes the footer's lines; blank lines at the very end do not count."""
        for _ in range(self.dialect.skip_footer):
            end = self.stop
            while end > self.at and self.text[end - 1] in b"\r\n":
                end -= 1
            self.stop = max(self.text.rfind(b"\n", self.at, end), self.text.rfind(b"\r", self.at, end), self.at - 1) + 1

    def _skip_blank_lines(self) -> None:
        blank = _BLANK_LINES_OF_BLANKS if self.whitespace else _BLANK_LINES
        match = blank.match(self.text, self.at, self.stop)
        assert match is not None
        self.line += count_lines(self.text, self.at, match.end())
        self.at = match.end()

    def _empty_comments(self) -> None:
        """Empties comment lines, except those inside a quoted cell, and keeps the header if it is a comment."""
        comment = self.dialect.comment.encode()
        pattern = re.compile(rb"(?:\A|(?<=[\r\n]))" + re.escape(comment) + rb"[^\r\n]*")
        whole = self.text[self.at : self.stop]
        pieces: list[bytes] = []
        spans: list[tuple[int, int]] = []
        done, inside = 0, False
        for match in pattern.finditer(whole):
            if self.quote:
                inside ^= bool(self._num_quotes(whole[done : match.start()]) % 2)
            pieces.append(whole[done : match.start()])
            if inside:
                pieces.append(match[0])
                inside ^= bool(self._num_quotes(match[0]) % 2)
            else:
                spans.append(match.span())
            done = match.end()
        pieces.append(whole[done:])
        self.emptied = _lines_of(whole, [start for start, _ in spans], self.line)
        if self.dialect.header_commented:
            self._find_commented_header(whole, spans)
        self.text, self.at = b"".join(pieces), 0
        self.stop = len(self.text)

    def _find_header_line(self) -> bool:
        """Finds the header by its regular expression. Rows begin behind its line unless rows have a kind."""
        found = find_header_line(self.text, self.at, self.stop, self.dialect)
        if found is None:
            expected = f"a line in which {self.dialect.header_line!r} finds the names"
            self.findings.add("csv.missing_column", self.label, expected=expected, found="none")
            return False
        line = self.line + count_lines(self.text, self.at, found.at)
        self.found_header = found.record, line
        if self.dialect.row_kind is None:
            self.at, self.line = found.at, line
            self._skip(1 + self.dialect.skip_after_header)
        return True

    def _keep_kind(self) -> bool:
        """Empties the lines of other kinds. The dialect's delimiter stands in the text as ``self.delimiter``."""
        whole = self.text[self.at : self.stop]
        dialect = self.dialect if self.whitespace else replace(self.dialect, delimiter=self.delimiter.decode())
        kept = keep_kind(whole, dialect)
        if not kept.strip():
            expected, found = f"lines of the kind {dialect.row_kind!r}", kinds_in(whole, dialect)
            self.findings.add("csv.no_such_kind", self.label, line=self.line, expected=expected, found=found)
            return False
        self.text, self.at, self.stop = kept, 0, len(kept)
        return True

    def _num_quotes(self, text: bytes) -> int:
        if self.escape:
            text = re.sub(re.escape(self.escape) + rb".", b"", text, flags=re.DOTALL)
        return text.count(self.quote)

    def _find_commented_header(self, whole: bytes, spans: list[tuple[int, int]]) -> None:
        """Finds the header: the last comment before the first row, not counting ``skip_after_header`` comments."""
        before, at = [], 0
        for index, (start, end) in enumerate(spans):
            if whole[at:start].strip(b"\r\n"):
                break
            before.append(index)
            at = end
        wanted = len(before) - 1 - self.dialect.skip_after_header
        if wanted >= 0:
            start, end = spans[before[wanted]]
            header = whole[start:end].removeprefix(self.dialect.comment.encode())
            self.found_header = header.lstrip(b" " if self.delimiter == b"\t" else b" \t"), int(self.emptied[wanted])

    def _read_header(self) -> tuple[int | None, tuple[str, ...]] | None:
        """Returns the header's line and a name for each cell of a row. Afterwards ``at`` is the start of the rows."""
        dialect = self.dialect
        line: int | None = self.line
        if dialect.header_commented:
            if self.found_header is None:
                expected = f"a header behind {dialect.comment!r} before the first row"
                self.findings.add("csv.missing_column", self.label, line=line, expected=expected, found="none")
                return None
            record, line = self.found_header
            names = self._split(record, line)
        elif dialect.header_line is not None:
            assert self.found_header is not None
            record, line = self.found_header
            names = self._split(record, line)
            if names is not None and dialect.row_kind is not None:
                names.insert(dialect.kind_column - 1, "")
        elif dialect.header_rows:
            rows = [self._next_record() for _ in range(dialect.header_rows)]
            names = self._join_header_rows(rows)
            self._skip(dialect.skip_after_header)
        else:
            self._skip(dialect.skip_after_header)
            self._skip_blank_lines()
            names, line = self._names_by_position(), None
        if names is None:
            return None
        if dialect.trailing_delimiter and (dialect.header_rows or dialect.header_line is not None):
            if names and not names[-1].strip():
                names.pop()
            names.append("")
        if dialect.index_column and dialect.header_rows and (not names or names[0].strip()):
            names.insert(0, "")
        return line, tuple(names)

    def _names_by_position(self) -> list[str] | None:
        at, line = self.at, self.line
        cells = self._next_record()
        self.at, self.line = at, line
        if cells is None:
            return None
        num_named = len(cells) - self.dialect.trailing_delimiter - self.dialect.index_column
        num_named -= self.dialect.row_kind is not None
        if not self.dialect.names:
            names = tuple(f"column_{i + 1}" for i in range(num_named))
        else:
            by_length = {len(names): names for names in self.dialect.names}
            if self.dialect.short_rows:
                num_named = min((length for length in by_length if length >= num_named), default=num_named)
            if num_named not in by_length:
                expected = " or ".join(str(n) for n in sorted(by_length)) + " cells, as names says"
                self.findings.add("csv.column_count", self.label, line=line, expected=expected, found=f"{num_named}")
                return None
            names = by_length[num_named]
        found = [""] * self.dialect.index_column + list(names) + [""] * self.dialect.trailing_delimiter
        if self.dialect.row_kind is not None:
            found.insert(self.dialect.kind_column - 1, "")
        return found

    def _join_header_rows(self, rows: list[list[str] | None]) -> list[str] | None:
        header = [row for row in rows if row is not None]
        if len(header) < len(rows):
            return None
        if len({len(row) for row in header}) > 1:
            found = " and ".join(str(len(row)) for row in header)
            self.findings.add(
                "csv.ragged_row", self.label, line=self.line - 1, expected="header rows of equal length", found=found
            )
            return None
        if len(header) == 1:
            return header[0]
        return [" ".join(part.strip() for part in parts if part.strip()) for parts in zip(*header, strict=True)]

    def _next_record(self) -> list[str] | None:
        """Returns the cells of the record at ``at``, and moves ``at`` behind the record."""
        self._skip_blank_lines()
        start, line, quotes = self.at, self.line, 0
        while self.at < self.stop:
            begin = self.at
            end, self.at = _line_end(self.text, begin, self.stop)
            self.line += 1
            if self.quote:
                quotes += self._num_quotes(self.text[begin:end])
            if quotes % 2 == 0 and not self._is_escaped(start, end):
                return self._split(self.text[start:end], line)
        if start < self.stop:
            return self._split(self.text[start : self.stop], line)
        self.findings.add("csv.empty", self.label, line=line, expected="a header", found="the end of the file")
        return None

    def _is_escaped(self, start: int, end: int) -> bool:
        """Returns whether the character at ``end`` is escaped: an odd number of escapes precedes it."""
        if not self.escape:
            return False
        before = self.text[start:end]
        return (len(before) - len(before.rstrip(self.escape))) % 2 == 1

    def _split(self, record: bytes, line: int) -> list[str] | None:
        quoted = bool(self.quote) and self.quote in record
        escaped = bool(self.escape) and self.escape in record
        record, start, stop = self._plain_blanks(record, 0, len(record))
        if (quoted or escaped) and not self._check_quotes(record, start, stop, line):
            return None
        num_columns = record.count(self.delimiter) + 1
        if num_columns > _MAX_COLUMNS:
            expected, found = f"at most {_MAX_COLUMNS} columns", f"{num_columns}"
            self.findings.add("csv.column_count", self.label, line=line, expected=expected, found=found)
            return None
        if not quoted and not escaped:
            return record.decode("utf-8").split(self.delimiter.decode())
        options = pa_csv.ParseOptions(
            delimiter=self.delimiter.decode(),
            quote_char=self.quote.decode() or False,
            escape_char=self.escape.decode() or False,
            newlines_in_values=True,
        )
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(record + b"\n"),
                read_options=pa_csv.ReadOptions(use_threads=False, block_size=len(record) + 2),
                parse_options=options,
            )
        except pa.ArrowInvalid as error:
            self.findings.add("csv.unreadable", self.label, line=line, found=str(error).splitlines()[0])
            return None
        names = [str(name) for name in table.column_names]
        return [n.replace(self.delimiter.decode(), self.restored.decode()) for n in names] if self.restored else names

    def _check_quotes(self, text: bytes, start: int, stop: int, line: int) -> bool:
        return check_quotes(
            text,
            (start, stop),
            quote=self.quote,
            escape=self.escape,
            delimiter=self.delimiter,
            first_line=line,
            label=self.label,
            findings=self.findings,
        )

    def _plain_blanks(self, text: bytes, start: int, stop: int) -> tuple[bytes, int, int]:
        """Removes the blanks that separate or pad cells, if the dialect says that blanks do so."""
        if self.whitespace:
            text = narrow_blanks(text[start:stop], self.quote, self.escape)
        elif self.dialect.skip_blanks:
            text = strip_blanks(text[start:stop], self.delimiter, self.quote, self.escape)
        else:
            return text, start, stop
        return text, 0, len(text)


def _line_end(text: bytes, start: int, stop: int) -> tuple[int, int]:
    """Returns the end of the line, and the start of the next line."""
    end = text.find(b"\n", start, stop)
    end = stop if end < 0 else end
    bare = text.find(b"\r", start, end)
    if bare < 0:
        return end, min(end + 1, stop)
    return bare, bare + 2 if bare + 1 == end and end < stop else bare + 1


def _lines_of(text: bytes, positions: list[int], first_line: int) -> NDArray[np.int64]:
    """Returns the line of each position; positions are ascending."""
    lines, line, at = [], first_line, 0
    for position in positions:
        line += count_lines(text, at, position)
        at = position
        lines.append(line)
    return np.array(lines, dtype=np.int64)

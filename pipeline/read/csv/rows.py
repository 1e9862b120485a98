"""The rows of a cut CSV text: parsed by pyarrow, counted against the text's lines, each with its line number.

Every record of the text is either a row with as many cells as there are names, or is reported as ragged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from vlapipe.pipeline.read.csv.faulty_rows import RAGGED, FaultyRows
from vlapipe.pipeline.read.csv.lines import CutText, cut_text
from vlapipe.pipeline.read.csv.records import find_records
from vlapipe.pipeline.read.text import count_lines
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import Dialect

__all__ = ["CsvRows", "UnreadableError", "open_rows"]

_BLOCK_BYTES = 1 << 24
_MAX_BLOCK_BYTES = (1 << 31) - 1
_MAX_RAGGED = 100_000  # a file with more is not this kind of table, and listing them takes seconds
_MARK_FIRST = re.compile(rb"[\r\n]*\xef\xbb\xbf")
_NOT_BLANK = re.compile(rb"[^\r\n]")
_OTHER_DELIMITERS = ",;\t|"


class UnreadableError(Exception):
    """Parser and line count disagree on the rows, so that no parsed value can be trusted."""


@dataclass(frozen=True, kw_only=True)
class _RaggedRow:
    record: int
    num_cells: int
    ends_empty: bool


def open_rows(
    text: bytes, dialect: Dialect, label: str, findings: Findings, faulty: FaultyRows | None = None
) -> CsvRows | None:
    """Reads a text's header and checks its quotes. Returns rows ready to be parsed, or ``None`` if errors were found.

    The arguments are those of ``cut_text``; ``faulty`` collects the records that have too few or too many cells.
    """
    cut = cut_text(text, dialect, label, findings)
    if cut is None:
        return None
    mark = _MARK_FIRST.match(cut.text, cut.start, cut.stop)
    if mark is not None:  # pyarrow would skip the mark as if the file began here
        line = cut.first_line + count_lines(cut.text, cut.start, mark.end())
        expected, found = "a byte order mark in front of the file alone", "one in front of the first row"
        findings.add("csv.encoding", label, line=line, expected=expected, found=found)
        return None
    return CsvRows(cut, dialect, label, findings, faulty)


class CsvRows:
    """The rows of one text. Columns are addressed by position; ``names`` has one entry per cell."""

    def __init__(
        self, cut: CutText, dialect: Dialect, label: str, findings: Findings, faulty: FaultyRows | None = None
    ) -> None:
        self.names = cut.names
        self.header_line = cut.header_line
        self.label = label
        self._cut, self._dialect, self._findings, self._faulty = cut, dialect, findings, faulty
        self._ragged: list[_RaggedRow] = []
        self._strings: dict[int, pa.ChunkedArray] = {}
        self._num_parsed = -1

    @property
    def num_cells(self) -> int:
        """Returns the number of cells in each row."""
        return len(self.names)

    @property
    def has_rows(self) -> bool:
        """Returns whether there is any content below the header."""
        return _NOT_BLANK.search(self._cut.text, self._cut.start, self._cut.stop) is not None

    @property
    def row_lines(self) -> NDArray[np.int64]:
        """Returns the line on which each row begins."""
        if not self._ragged:
            return self._record_lines
        return np.delete(self._record_lines, [row.record for row in self._ragged])

    def line_of(self, row: int) -> int:
        """Returns the line of the file on which a row begins. The first call is slow."""
        return int(self.row_lines[row])

    def line_finder(self, kept: NDArray[np.int64] | None = None) -> Callable[[int], int]:
        """Returns ``line_of`` as a function that does not keep the text alive. With ``kept``, row i is ``kept[i]``."""
        first = self._cut.first_line
        if self._is_one_line_each:
            return lambda row: first + (row if kept is None else int(kept[row]))
        lines = self.row_lines if kept is None else self.row_lines[kept]
        return lambda row: int(lines[row])

    def lines_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the line on which each of the given rows begins."""
        return rows + self._cut.first_line if self._is_one_line_each else self.row_lines[rows]

    @property
    def _is_one_line_each(self) -> bool:
        return self._num_parsed == self._num_lines and not self._ragged

    def holds(self, *texts: bytes) -> bool:
        """Returns whether any of the texts occurs in the rows; a fast scan."""
        return any(self._cut.text.find(text, self._cut.start, self._cut.stop) >= 0 for text in texts)

    def parse(self, types: Mapping[int, pa.DataType], null_values: Iterable[str] = ()) -> pa.Table:
        """Parses the columns at the given positions; each is named after its position.

        Args:
            types: the pyarrow type of each column, by position.
            null_values: texts that become null in columns of numbers.

        Raises:
            pa.ArrowInvalid: a record is ragged, or a cell does not fit its type.
            UnreadableError: the text cannot be read for certain.
        """
        return self._checked(self._parse(types, null_values, None), types)

    def strings(self, positions: Iterable[int]) -> pa.Table:
        """Returns the columns at the given positions as strings; ragged records are reported and left out.

        Raises:
            UnreadableError: the text cannot be read for certain.
        """
        types = dict.fromkeys(positions, pa.string())
        ragged: list[_RaggedRow] = []
        try:
            parsed = self._parse(types, (), ragged)
        except pa.ArrowInvalid as error:
            if len(ragged) > _MAX_RAGGED:
                raise UnreadableError(f"more than {_MAX_RAGGED} rows without {self.num_cells} cells") from None
            raise UnreadableError(str(error).splitlines()[0]) from None
        if not self._ragged:
            self._ragged = ragged
            self._report_ragged()
        parsed = self._checked(parsed, types)
        if self._cut.restored is None:
            return parsed
        ours, theirs = self._cut.delimiter.decode(), self._cut.restored.decode()
        columns = [pc.replace_substring(column, ours, theirs) for column in parsed.columns]
        return pa.Table.from_arrays(columns, names=parsed.column_names)

    def cell(self, position: int, row: int) -> str:
        """Returns one cell as printed. The first call for a column is slow."""
        if position not in self._strings:
            self._strings[position] = self.strings([position]).column(0)
        return str(self._strings[position][row].as_py())

    def check_delimiter(self) -> bool:
        """Returns whether the schema's delimiter is plausible for a table of one column.

        The delimiter is not plausible if the header and the first row hold another delimiter equally often.
        """
        if self.num_cells != 1 or self.header_line is None or not self.has_rows:
            return True
        first = self._first_line()
        for other in _OTHER_DELIMITERS:
            num = self.names[0].count(other)
            if num and other != self._dialect.delimiter and first.count(other) == num:
                found = f"one cell a line, {num + 1} if {other!r} is what parts them (say delimiter = {other!r})"
                expected = f"cells with {self._dialect.delimiter!r} between"
                self._findings.add("csv.delimiter", self.label, line=self.header_line, expected=expected, found=found)
                return False
        return True

    def _first_line(self) -> str:
        at = _NOT_BLANK.search(self._cut.text, self._cut.start, self._cut.stop)
        assert at is not None
        return re.split(rb"[\r\n]", self._cut.text[at.start() : self._cut.stop], maxsplit=1)[0].decode()

    def _parse(
        self, types: Mapping[int, pa.DataType], null_values: Iterable[str], ragged: list[_RaggedRow] | None
    ) -> pa.Table:
        """Parses the text. Ragged records are added to ``ragged``, or raise an error if ``ragged`` is ``None``."""
        wanted = dict(types)
        if self._cut.trailing:
            wanted[self.num_cells - 1] = pa.string()
        by_name = {str(position): data_type for position, data_type in wanted.items()}
        if not self.has_rows:
            return pa.table({name: pa.array([], type=data_type) for name, data_type in by_name.items()})
        convert = pa_csv.ConvertOptions(
            include_columns=list(by_name),
            column_types=by_name,
            null_values=list(null_values),
            decimal_point=self._dialect.decimal,
        )
        size = self._cut.stop - self._cut.start
        try:
            return self._read(convert, ragged, _BLOCK_BYTES)
        except pa.ArrowInvalid as error:
            # A cell longer than a block needs a larger block.
            if "straddl" not in str(error) or size < _BLOCK_BYTES:
                raise
        if ragged is not None:
            ragged.clear()
        return self._read(convert, ragged, min(size + 1, _MAX_BLOCK_BYTES))

    def _read(self, convert: Any, ragged: list[_RaggedRow] | None, block_bytes: int) -> pa.Table:
        cut = self._cut

        def take(row: Any) -> str:
            assert ragged is not None
            ends_empty = row.text.endswith(cut.delimiter.decode())
            ragged.append(_RaggedRow(record=row.number - 1, num_cells=row.actual_columns, ends_empty=ends_empty))
            return "skip" if len(ragged) <= _MAX_RAGGED else "error"

        parse = pa_csv.ParseOptions(
            delimiter=cut.delimiter.decode(),
            quote_char=(cut.quote.decode() or False) if cut.has_quotes else False,
            escape_char=(cut.escape.decode() or False) if cut.has_quotes else False,
            newlines_in_values=cut.has_quotes,
            invalid_row_handler=None if ragged is None else take,
        )
        names = [str(position) for position in range(self.num_cells)]
        return pa_csv.read_csv(
            pa.BufferReader(pa.py_buffer(cut.text).slice(cut.start, cut.stop - cut.start)),
            read_options=pa_csv.ReadOptions(use_threads=False, column_names=names, block_size=block_bytes),
            parse_options=parse,
            convert_options=convert,
        )

    def _checked(self, parsed: pa.Table, types: Mapping[int, pa.DataType]) -> pa.Table:
        """Returns the parsed table if it has a row for each record of the text, else raises ``UnreadableError``."""
        num_records = parsed.num_rows + len(self._ragged)
        self._num_parsed = num_records
        if num_records != self._num_lines and num_records != len(self._record_lines):
            raise UnreadableError(f"{len(self._record_lines)} records, of which {num_records} could be parsed")
        if not self._cut.trailing:
            return parsed
        trailing = parsed.column(str(self.num_cells - 1))
        full = np.flatnonzero(pc.not_equal(pc.utf8_trim(trailing, " \t"), "").to_numpy())
        if len(full):
            expected, found = f"{self.num_cells - 1} cells and a trailing delimiter", f"{self.num_cells}"
            line = self.line_of(int(full[0]))
            self._findings.add(RAGGED, self.label, line=line, expected=expected, found=found, count=len(full))
        return parsed.select([str(position) for position in types])

    def _report_ragged(self) -> None:
        rows = self._ragged
        one_more = all(row.num_cells == self.num_cells + 1 and row.ends_empty for row in rows)
        hint = ", the last one empty (say trailing_delimiter = true if all rows end so)" if one_more else ""
        whole_end = self._cut.text[self._cut.stop - 1 : self._cut.stop] in (b"\n", b"\r")
        for before, row in enumerate(rows):
            found = f"{row.num_cells}{hint}"
            if not whole_end and row.record == len(self._record_lines) - 1:
                found += " in a last line that ends without a newline, as if the recorder was stopped"
            line = int(self._record_lines[row.record]) if row.record < len(self._record_lines) else None
            expected = f"{self.num_cells} cells"
            if line is not None and self._faulty is not None and self._faulty.takes(RAGGED, self._findings):
                self._faulty.add(RAGGED, self.label, None, expected, [row.record - before], [line], [found])
            else:
                self._findings.add(RAGGED, self.label, line=line, expected=expected, found=found)

    @cached_property
    def _num_lines(self) -> int:
        """Returns the number of lines; without blank lines, comments and quoted newlines, each line is one record."""
        text, start, stop = self._cut.text, self._cut.start, self._cut.stop
        return count_lines(text, start, stop) + (stop > start and text[stop - 1] not in b"\r\n")

    @cached_property
    def _record_lines(self) -> NDArray[np.int64]:
        """Returns the line on which each record begins; blank lines between records are reported."""
        cut = self._cut
        quote, escape = (cut.quote, cut.escape) if cut.has_quotes else (b"", b"")
        lines = find_records(cut.text, (cut.start, cut.stop), quote, escape)
        self._report_blank(np.setdiff1d(lines.blank + cut.first_line, cut.emptied, assume_unique=True))
        return lines.records + cut.first_line

    def _report_blank(self, blank: NDArray[np.int64]) -> None:
        if not len(blank) or self._cut.may_be_blank:
            return
        line, count = int(blank[0]), len(blank)
        if self.num_cells == 1:
            expected, found = "a cell in each line", "a blank line: an empty cell, or none?"
            self._findings.add(RAGGED, self.label, line=line, expected=expected, found=found, count=count)
        else:
            self._findings.add("csv.blank_lines", self.label, line=line, found="blank", count=count)

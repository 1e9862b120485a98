"""Prints tables in any dialect, for tests of reading them back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from vlapipe.schemas.schema import Dialect


@dataclass(frozen=True)
class Printed:
    """A table, how it was printed, and the line on which each row begins."""

    text: str
    names: list[str]
    rows: list[list[str]]
    row_lines: list[int]
    dialect: Dialect


@st.composite
def dialects(draw: st.DrawFn) -> Dialect:
    """Any that is consistent in itself."""
    delimiter = draw(st.sampled_from([",", ";", "\t", "|", " ", "whitespace", "§"]))
    header_rows = draw(st.sampled_from([0, 1, 1, 2]))
    commented = header_rows == 1 and draw(st.booleans())
    return Dialect(
        delimiter=delimiter,
        quote=draw(st.sampled_from(['"', "'", ""])),
        escape=draw(st.sampled_from(["", "\\"])),
        encoding=draw(st.sampled_from(["utf-8", "utf-16", "utf-8"])),
        comment="#" if commented else draw(st.sampled_from(["", "#", "%%"])),
        skip_blanks=delimiter in (",", ";") and draw(st.booleans()),
        skip_lines=draw(st.integers(0, 2)),
        skip_after_header=0 if commented else draw(st.integers(0, 1)),
        skip_footer=draw(st.integers(0, 2)),
        header_rows=header_rows,
        header_commented=commented,
        # A run of blanks ends with no delimiter, and two blanks there are none too many.
        trailing_delimiter=delimiter not in ("whitespace", " ") and draw(st.booleans()),
        index_column=draw(st.booleans()),
    )


@st.composite
def printed(draw: st.DrawFn) -> Printed:
    """A table of two to four columns in any dialect, with comments and blank lines between its rows."""
    dialect, newline = draw(dialects()), draw(st.sampled_from(["\n", "\r\n", "\r"]))
    num_columns = draw(st.integers(2, 4))
    names = [f"c{i}" for i in range(num_columns)]
    cell = _cells(dialect)
    rows = draw(st.lists(st.lists(cell, min_size=num_columns, max_size=num_columns), min_size=1, max_size=5))
    if dialect.header_rows == 0:
        dialect = Dialect(**{**vars(dialect), "names": (tuple(names),)})
    printer = _Printer(dialect, newline, always=draw(st.booleans()))
    printer.add_lines(['log of a, robot; "it\'s" 5'] * dialect.skip_lines)
    printer.add_header(names)
    printer.add_lines(["[s];[m], x"] * dialect.skip_after_header)
    row_lines = []
    for i, row in enumerate(rows):
        if dialect.comment and draw(st.booleans()) and i:
            printer.add_lines([dialect.comment + ' not "a row'])
        if draw(st.integers(0, 5)) == 0 and i:
            printer.add_lines([""])
        row_lines.append(printer.line)
        printer.add_row([*(["7"] if dialect.index_column else []), *row])
    printer.add_lines(["end of, log"] * dialect.skip_footer)
    text = printer.text if draw(st.booleans()) or dialect.skip_footer else printer.text.removesuffix(newline)
    index = [""] if dialect.index_column else []
    if dialect.header_rows == 2:
        names = [f"of {name}" for name in names]
    whole = [["7", *row] for row in rows] if dialect.index_column else rows
    return Printed(text=text, names=[*index, *names], rows=whole, row_lines=row_lines, dialect=dialect)


def _cells(dialect: Dialect) -> st.SearchStrategy[str]:
    if dialect.quote:
        return st.text(alphabet="a1,;|§é \t\"'\\#%\n", max_size=6)
    return st.text(alphabet="ab1é.-" + ",;|§ \t\\#%" * bool(dialect.escape), min_size=1, max_size=6)


class _Printer:
    def __init__(self, dialect: Dialect, newline: str, *, always: bool) -> None:
        self.dialect, self.newline, self.always = dialect, newline, always
        self.delimiter = "  " if dialect.delimiter == "whitespace" else dialect.delimiter
        self.text, self.line = "", 1

    def add_lines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.text += line + self.newline
            self.line += 1

    def add_header(self, names: list[str]) -> None:
        ending = self.delimiter * self.dialect.trailing_delimiter
        if self.dialect.header_commented:
            self.add_lines([f"{self.dialect.comment}about", self.dialect.comment + self.delimiter.join(names)])
        elif self.dialect.header_rows == 1:
            self.add_lines([self.delimiter.join(names) + ending])
        elif self.dialect.header_rows == 2:
            self.add_lines([self.delimiter.join(["of"] * len(names)) + ending])
            self.add_lines([self.delimiter.join(names) + ending])

    def add_row(self, cells: list[str]) -> None:
        blank = " " * self.dialect.skip_blanks
        printed = [self.print_cell(cell, first=i == 0) for i, cell in enumerate(cells)]
        self.text += (
            (blank + self.delimiter + blank).join(printed)
            + self.delimiter * self.dialect.trailing_delimiter
            + self.newline
        )
        self.line += 1 + sum(cell.count("\n") for cell in cells)

    def print_cell(self, cell: str, *, first: bool) -> str:
        quote, escape = self.dialect.quote, self.dialect.escape
        if quote:
            special = set(f"{quote}{escape}\n\r \t{self.dialect.delimiter}")
            needed = not cell or special & set(cell) or (first and cell[:1] in ("#", "%"))
            if not needed and not self.always:
                return cell
            if escape:
                cell = cell.replace(escape, escape * 2)
            return quote + cell.replace(quote, quote * 2) + quote
        if not escape:
            return cell
        return "".join(escape + c if c in f"{escape}{self.dialect.delimiter} \t#%" else c for c in cell)

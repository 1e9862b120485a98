"""Any table printed in any dialect reads back equal, and any single corruption is reported on its line."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from csv_printing import Printed, printed
from hypothesis import given, settings
from hypothesis import strategies as st

from vlapipe.pipeline.read import TableError, read_table


@settings(max_examples=500, deadline=None)
@given(printed())
def test_table_printed_in_any_dialect_reads_back_equal(table: Printed) -> None:
    read = read_table(table.text.encode(table.dialect.encoding), table.dialect)
    assert list(read.names) == table.names
    assert read.rows() == table.rows
    assert read.lines.tolist() == table.row_lines


# Rows of a number, a bare word, a quoted text and a number; one a line.
ROWS = [f'{i},word{i},"a, ""text"" {i}",{i}.5' for i in range(20)]


def drop(sign: str, nth: int) -> Callable[[str], str]:
    """Without the nth of those signs in a line."""

    def corrupt(line: str) -> str:
        parts = line.split(sign)
        return sign.join(parts[: nth + 1]) + sign.join(["", *parts[nth + 1 :]])[len(sign) :]

    return corrupt


CORRUPTIONS: dict[str, tuple[str, Callable[[str], str]]] = {
    "a delimiter lost": ("csv.ragged_row", drop(",", 0)),
    "the delimiter behind a quote lost": ("csv.quotes", lambda line: line[::-1].replace(",", "", 1)[::-1]),
    "a delimiter doubled": ("csv.ragged_row", lambda line: line.replace(",", ",,", 1)),
    "a delimiter at the end": ("csv.ragged_row", lambda line: line + ","),
    "another delimiter": ("csv.ragged_row", lambda line: line.replace(",", ";", 1)),
    "a decimal comma": ("csv.ragged_row", lambda line: line.replace(".", ",")),
    "a cell lost": ("csv.ragged_row", lambda line: line.partition(",")[2]),
    "a row cut short": ("csv.ragged_row", lambda line: line[:5]),
    "a newline within": ("csv.ragged_row", lambda line: line.replace("word", "wo\nrd")),
    "a carriage return within": ("csv.ragged_row", lambda line: line.replace("word", "wo\rrd")),
    "two rows run together": ("csv.ragged_row", lambda line: line + line),
    "opening quote lost": ("csv.quotes", drop('"', 0)),
    "first inner quote lost": ("csv.quotes", drop('"', 1)),
    "last inner quote lost": ("csv.quotes", drop('"', 4)),
    "closing quote lost": ("csv.quotes", drop('"', 5)),
    "quote in a bare cell": ("csv.quotes", lambda line: line.replace("word", 'wo"rd')),
    "quote before a bare cell": ("csv.quotes", lambda line: line.replace("word", '"word')),
    "quote behind a bare cell": ("csv.quotes", lambda line: line.replace(',"', '","', 1)),
    "quote behind the row": ("csv.quotes", lambda line: line + '"'),
    "blank before a quote": ("csv.quotes", lambda line: line.replace(',"', ', "')),
    "blank behind a quote": ("csv.quotes", lambda line: line.replace('",', '" ,')),
    "NUL bytes": ("csv.nul_bytes", lambda line: line.replace("word", "\0\0")),
    "a byte that is no text": ("csv.encoding", lambda line: line.replace("word", "\udcff")),
}


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("case", CORRUPTIONS)
@settings(max_examples=12, deadline=None)
@given(row=st.integers(0, len(ROWS) - 1))
def test_single_corruption_is_found_on_its_line(case: str, newline: str, row: int) -> None:
    code, corrupt = CORRUPTIONS[case]
    rows = [*ROWS[:row], corrupt(ROWS[row]), *ROWS[row + 1 :]]
    text = newline.join(["t,a,b,c", *rows, ""])
    with pytest.raises(TableError) as refused:
        read_table(text.encode(errors="surrogateescape"))
    first = refused.value.findings[0]
    assert (first.code, first.line) == (code, row + 2)


def test_file_cut_anywhere_is_found_or_is_a_shorter_file() -> None:
    text = "\n".join(["t,a,b,c", *ROWS, ""])
    for size in range(len("t,a,b,c\n") + 1, len(text)):
        whole_rows = text[:size].count("\n") - 1
        try:
            table = read_table(text[:size].encode())
        except TableError as error:
            assert error.findings[0].line == whole_rows + 2  # noqa: PT017
            continue
        # Only within the last cell can a cut go unseen: a shorter number is a number too.
        assert table.num_rows - whole_rows in (0, 1)
        assert table.rows()[:whole_rows] == read_table(text.encode()).rows()[:whole_rows]

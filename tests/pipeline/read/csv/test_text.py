"""read_table returns every cell as printed, or refuses the file with a location, whatever the bytes are."""

from __future__ import annotations

import csv
import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vlapipe.pipeline.read import CsvTable, TableError, read_table
from vlapipe.schemas.schema import Dialect


def cells(table: CsvTable) -> list[list[str]]:
    return [list(table.names), *table.rows()]


def refusal(text: str | bytes, dialect: Dialect | None = None) -> TableError:
    with pytest.raises(TableError) as refused:
        read_table(text if isinstance(text, bytes) else text.encode(), dialect)
    return refused.value


SPECTRUM = (
    "comma_in_quotes", "empty", "empty_crlf", "escaped_quotes", "json", "location_coordinates", "newlines",
    "newlines_crlf", "quotes_and_newlines", "simple", "simple_crlf", "utf8",
)  # fmt: skip


@pytest.mark.real
@pytest.mark.parametrize("name", SPECTRUM)
def test_csv_spectrum_is_read_exactly(real: Path, name: str) -> None:
    folder = real / "csv-spectrum"
    expected = json.loads((folder / "json" / f"{name}.json").read_text(encoding="utf-8"))
    table = read_table(folder / "csvs" / f"{name}.csv")
    rows = [dict(zip(table.names, row, strict=True)) for row in table.rows()]
    if isinstance(expected, dict):
        # Of one file the right reading is a row alone, and its telephone number is not the one in the CSV.
        expected = [{**expected, "Contact Phone Number": "2095257564"}]
    assert rows == expected


AB, ONE, TWO = ["a", "b"], [["1", "2"]], [["1", "2"], ["3", "4"]]
THREE = [["1", "2", "3"]]
VARIANTS = (("a", "b"), ("a", "b", "c"))
COMMENTED: dict[str, Any] = {"comment": "#", "header_commented": True}
BREAKS = "\x0b\x0c\x1c\u2028\x85"
PLACE = "37'37.8\"N 121'2.9\"W"

# text, dialect, names, rows
DIALECTS: dict[str, tuple[str, Dialect, list[str], list[list[str]]]] = {
    "commas": ("a,b\n1,2\n", Dialect(), AB, ONE),
    "semicolons": ("a;b\n1,5;2\n", Dialect(delimiter=";"), AB, [["1,5", "2"]]),
    "tabs": ("a\tb\n1 \t 2\n", Dialect(delimiter="\t"), AB, [["1 ", " 2"]]),
    "a single blank": ("a b\n1 2\n", Dialect(delimiter=" "), AB, ONE),
    "runs of blanks": ("  a \t b\n 1   2  \n\t3 4\n", Dialect(delimiter="whitespace"), AB, TWO),
    "blanks in quotes among runs": ('a  b\n"1  2"   3\n', Dialect(delimiter="whitespace"), AB, [["1  2", "3"]]),
    "comma and blank": ('a, b\n1, "x, y"\n', Dialect(skip_blanks=True), AB, [["1", "x, y"]]),
    "blanks within a cell stay": ("a, b\n1 1 , 2\n", Dialect(skip_blanks=True), AB, [["1 1", "2"]]),
    "delimiter beyond ASCII": ('a§b\n1§"2§3"\n', Dialect(delimiter="§"), AB, [["1", "2§3"]]),
    "single quotes": ("a,b\n'1,2',3\n", Dialect(quote="'"), AB, [["1,2", "3"]]),
    "no quotes": ('a,b\n"1,2\n', Dialect(quote=""), AB, [['"1', "2"]]),
    "escape": ('a,b\n1\\,2,"x\\"y"\n', Dialect(escape="\\"), AB, [["1,2", 'x"y']]),
    "escaped newline": ("a,b\n1\\\n2,3\n4,5\n", Dialect(escape="\\"), AB, [["1\n2", "3"], ["4", "5"]]),
    "latin-1": ("é,b\n1,2\n", Dialect(encoding="latin-1"), ["é", "b"], ONE),
    "comments": ("# one\na,b\n1,2\n# two\n3,4\n", Dialect(comment="#"), AB, TWO),
    "comment sign in quotes": ('a,b\n"1\n# no",2\n', Dialect(comment="#"), AB, [["1\n# no", "2"]]),
    "quotes in a comment": ("# 5\" it's\na,b\n\"1\n# no\",2\n", Dialect(comment="#"), AB, [["1\n# no", "2"]]),
    "preamble": ("Robot log\nx,y,z,1\na,b\n1,2\n", Dialect(skip_lines=2), AB, ONE),
    "units": ("a,b\n[s],[m]\n1,2\n", Dialect(skip_after_header=1), AB, ONE),
    "footer": ("a,b\n1,2\n\nend, of, log\n\n", Dialect(skip_footer=1), AB, ONE),
    "header of two rows": ("pos,pos,\nx,y,t\n1,2,3\n", Dialect(header_rows=2), ["pos x", "pos y", "t"], THREE),
    "header commented out": ("# log\n#a,b\n1,2\n# end\n", Dialect(**COMMENTED), AB, ONE),
    "header and units commented out": (
        "%a,b\n%[s],[m]\n1,2\n",
        Dialect(comment="%", header_commented=True, skip_after_header=1), AB, ONE,
    ),
    "no header": ("1,2\n3,4\n", Dialect(header_rows=0, names=VARIANTS), AB, TWO),
    "no header, the other variant": ("1,2,3\n", Dialect(header_rows=0, names=VARIANTS), ["a", "b", "c"], THREE),
    "delimiter at the end of all lines": ("a,b,\n1,2,\n", Dialect(trailing_delimiter=True), AB, ONE),
    "delimiter at the end of rows": ("a,b\n1,2,\n", Dialect(trailing_delimiter=True), AB, ONE),
    "delimiter at the end without a header": (
        "1,2,\n", Dialect(header_rows=0, names=(("a", "b"),), trailing_delimiter=True), AB, ONE,
    ),
    "index without a name": ("a,b\n0,1,2\n", Dialect(index_column=True), ["", "a", "b"], [["0", "1", "2"]]),
    "index under an empty name": (",a,b\n0,1,2\n", Dialect(index_column=True), ["", "a", "b"], [["0", "1", "2"]]),
    "index without a header": ("1,2\n", Dialect(header_rows=0, names=(("b",),), index_column=True), ["", "b"], ONE),
    "carriage returns and newlines": ("a,b\r\n1,2\r\n", Dialect(), AB, ONE),
    "carriage returns alone": ("a,b\r1,2\r", Dialect(), AB, ONE),
    "all three mixed": ("a,b\n1,2\r\n3,4\r5,6", Dialect(), AB, [["1", "2"], ["3", "4"], ["5", "6"]]),
    "no final newline": ("a,b\n1,2", Dialect(), AB, ONE),
    "two final newlines": ("a,b\n1,2\n\n", Dialect(), AB, ONE),
    "newline in a name": ('"a\nb",c\n1,2\n', Dialect(), ["a\nb", "c"], ONE),
    "the same name twice": ("a,a\n1,2\n", Dialect(), ["a", "a"], ONE),
    "quotes within a bare cell": (f"a,b\n{PLACE},2\n", Dialect(), AB, [[PLACE, "2"]]),
    "other breaks are no newlines": (f"a,b\n1{BREAKS},2\n", Dialect(), AB, [[f"1{BREAKS}", "2"]]),
    "header and no row": ("a,b\n", Dialect(), AB, []),
    "one column": ('a\n1\n""\n2\n\n', Dialect(), ["a"], [["1"], [""], ["2"]]),
}  # fmt: skip


@pytest.mark.parametrize("case", DIALECTS)
def test_dialect_is_read_as_declared(case: str) -> None:
    text, dialect, names, rows = DIALECTS[case]
    table = read_table(text.encode(dialect.encoding), dialect)
    assert list(table.names) == names
    assert table.rows() == rows


# text, dialect, code, line
REFUSED: dict[str, tuple[str, Dialect, str, int | None]] = {
    "text after a closing quote": ('a,b\n1,2\n"x"y,3\n', Dialect(), "csv.quotes", 3),
    "blank after a closing quote": ('a,b\n"x" ,3\n', Dialect(), "csv.quotes", 2),
    "quote after a blank": ('a,b\n1, "x"\n', Dialect(), "csv.quotes", 2),
    "quote in a bare cell": ('a,b\n5" long,3\n', Dialect(), "csv.quotes", 2),
    "quote at the end of a bare cell": ('a,b\nx",3\n', Dialect(), "csv.quotes", 2),
    "quotes across two bare cells": ('a,b\nx"y,z"w\n', Dialect(), "csv.quotes", 2),
    "quote never closed": ('a,b\n1,2\n"3,4\n5,6\n', Dialect(), "csv.quotes", 3),
    "quote never closed in the header": ('a,"b\n1,2\n', Dialect(), "csv.quotes", 1),
    "quote after a quoted newline": ('a,b\n"1\n2",x"y\n', Dialect(), "csv.quotes", 3),
    "quote after an escaped delimiter": ('a,b\n1\\,"x",2\n', Dialect(escape="\\"), "csv.quotes", 2),
    "escape at the end": ("a,b\n1,2\\", Dialect(escape="\\"), "csv.quotes", 2),
    "escape at the end among blanks": ("a, b\n1, 2\\", Dialect(escape="\\", skip_blanks=True), "csv.quotes", 2),
    "escaped carriage return": ("a,b\n1\\\r\n2,3\n", Dialect(escape="\\"), "csv.quotes", 2),
    "too few cells": ("a,b\n1,2\n\n3\n", Dialect(), "csv.ragged_row", 4),
    "too many cells": ("a,b\n1,2\n3,4,5\n", Dialect(), "csv.ragged_row", 3),
    "too few cells after comments": ("# x\na,b\n# y\n1,2\n# z\n3\n", Dialect(comment="#"), "csv.ragged_row", 6),
    "too few cells after a preamble": ("x\r\ny\r\na,b\r\n1,2\r\n3\r\n", Dialect(skip_lines=2), "csv.ragged_row", 5),
    "a cell behind the last delimiter": ("a,b\n1,2,\n1,2,3\n", Dialect(trailing_delimiter=True), "csv.ragged_row", 3),
    "header rows of unequal length": ("a,b\nc\n1,2\n", Dialect(header_rows=2), "csv.ragged_row", 2),
    "blank line in one column": ("a\n1\n\n2\n", Dialect(), "csv.ragged_row", 3),
    "no names for so many cells": ("1,2,3\n", Dialect(header_rows=0, names=(("a", "b"),)), "csv.column_count", 1),
    "more columns than any table": ("," * 40_000 + "\n", Dialect(), "csv.column_count", 1),
    "no commented header": ("1,2\n", Dialect(comment="#", header_commented=True), "csv.missing_column", 1),
    "preamble of as many cells": ("my table,,\na,b,c\n1,2,3\n", Dialect(), "csv.missing_column", 1),
    "another delimiter": ("a;b\n1;2\n", Dialect(), "csv.delimiter", 1),
    "comments alone": ("# a\n# b\n", Dialect(comment="#"), "csv.empty", None),
    "fewer lines than are skipped": ("a,b\n", Dialect(skip_lines=3), "csv.empty", None),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_be_read_in_two_ways_is_refused_with_its_line(case: str) -> None:
    text, dialect, code, line = REFUSED[case]
    error = refusal(text, dialect)
    assert [(f.code, f.line) for f in error.findings] == [(code, line)]


def test_refusal_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(refusal("a,b\n1\n")))  # noqa: S301
    assert error.findings[0].code == "csv.ragged_row"
    assert "expected 2 cells, found 1" in str(error)


def test_every_ragged_row_is_counted() -> None:
    (finding,) = refusal("a,b\n1\n2,3\n4,5,6\n").findings
    assert (finding.line, finding.count) == (2, 2)


def test_blank_lines_between_rows_are_noted() -> None:
    table = read_table(b"a,b\n1,2\n\n\n3,4\n\n")
    assert [(f.code, f.line, f.count) for f in table.notes] == [("csv.blank_lines", 3, 2)]
    assert table.lines.tolist() == [2, 5]


def test_rows_know_their_lines_across_quoted_newlines_and_comments() -> None:
    table = read_table(b'# c\na,b\n"1\n\n2",3\n# d\n4,"5\r\n6"\r\n7,8\n', Dialect(comment="#"))
    assert table.lines.tolist() == [3, 7, 9]


def test_cell_longer_than_a_block_is_read() -> None:
    long = "x" * (17 << 20)
    table = read_table(f"a,b\n{long},2\n".encode())
    assert [len(cell) for cell in table.rows()[0]] == [len(long), 1]


def test_path_and_bytes_are_read_alike(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b\n1,2\n")
    assert cells(read_table(path)) == cells(read_table(str(path))) == cells(read_table(path.read_bytes()))


# What another reader makes of the text, in its strictest mode; blank lines are none of its rows.
def python_reads(text: str, **options: object) -> list[list[str]] | None:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, **options)  # type: ignore[arg-type]
    try:
        return [row for row in reader if row]
    except csv.Error:
        return None


@settings(max_examples=400, deadline=None)
@given(text=st.text(alphabet='a1,,\n\n"" \r;#', max_size=40))
@example('a,b\n"1""",2')
@example('"\r\n"\n""\n')
def test_any_text_is_read_as_python_does_or_refused(text: str) -> None:
    try:
        table = read_table(text.encode())
    except TableError:
        return
    assert cells(table) == python_reads(text)


@settings(max_examples=400, deadline=None)
@given(text=st.text(alphabet='a1,,\n\n""\\\\', max_size=40).map(lambda text: text + "\n1"))
def test_any_text_with_escapes_is_read_as_python_does_or_refused(text: str) -> None:
    try:
        table = read_table(text.encode(), Dialect(escape="\\"))
    except TableError:
        return
    expected = python_reads(text + "\n", escapechar="\\")
    assert cells(table) == expected


@settings(max_examples=300, deadline=None)
@given(
    raw=st.binary(max_size=60) | st.text(alphabet="a1,;\t \"'\\#\n\r\0\x1f\ufeffé", max_size=60).map(str.encode),
    dialect=st.builds(
        Dialect,
        delimiter=st.sampled_from([",", ";", "\t", " ", "whitespace", "é", "|"]),
        quote=st.sampled_from(['"', "'", ""]),
        escape=st.sampled_from(["", "\\"]),
        encoding=st.sampled_from(["utf-8", "latin-1", "utf-16", "cp1252"]),
        comment=st.sampled_from(["", "#"]),
        skip_blanks=st.booleans(),
        skip_lines=st.integers(0, 2),
        skip_after_header=st.integers(0, 1),
        skip_footer=st.integers(0, 2),
        header_rows=st.integers(0, 2),
        header_commented=st.booleans(),
        trailing_delimiter=st.booleans(),
        index_column=st.booleans(),
    ),
)
def test_no_bytes_in_any_dialect_raise_anything_else(raw: bytes, dialect: Dialect) -> None:
    try:
        table = read_table(raw, dialect)
    except TableError:
        return
    assert len(table.names) == len(table.columns)
    assert all(len(column) == table.num_rows for column in table.columns)


def test_byte_order_mark_within_the_file_is_refused_with_its_line() -> None:
    with pytest.raises(TableError) as caught:
        read_table("a,b\n\n\ufeff1,2\n".encode())
    assert (caught.value.findings[0].code, caught.value.findings[0].line) == ("csv.encoding", 3)
    assert read_table("\ufeffa,b\n1,2\n".encode()).names == ("a", "b")

"""Rows that end early are filled up with empty cells, as the csv module cuts them, and lines keep their numbers."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlapipe.pipeline.read import read_table
from vlapipe.pipeline.read.csv.short_rows import fill_short_rows
from vlapipe.schemas.schema import Dialect

CELL = st.sampled_from(["1", "", "2.5", "a,b", 'say ""so""', "x\ny"])


def written(rows: list[list[str]], end: str) -> str:
    page = io.StringIO()
    csv.writer(page, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    return page.getvalue()


@given(
    st.lists(st.lists(CELL, min_size=1, max_size=4), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
)
def test_rows_are_those_of_the_csv_module_with_empty_cells_at_the_end(rows: list[list[str]], end: str) -> None:
    text = written(rows, end)
    filled = fill_short_rows(text.encode(), (0, len(text)), 4, b",", b'"', b"").decode()
    found = [row for row in csv.reader(io.StringIO(filled, newline="")) if row]
    expected = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    assert found == [row + [""] * (4 - len(row)) for row in expected]
    assert [filled.count(mark) for mark in "\n\r"] == [text.count(mark) for mark in "\n\r"]


@pytest.mark.parametrize(
    ("text", "escape", "rows"),
    [
        ("a,b,c\n1\n\n2,3\n", "", [["1", "", ""], ["2", "3", ""]]),
        ('a,b,c\n"1,5"\n2,"3\n4"\n', "", [["1,5", "", ""], ["2", "3\n4", ""]]),
        ("a,b,c\n1\\,5\n2,3,4\n", "\\", [["1,5", "", ""], ["2", "3", "4"]]),
        ("a,b,c\n1", "", [["1", "", ""]]),
    ],
)
def test_cells_in_quotes_and_escapes_count_once(text: str, escape: str, rows: list[list[str]]) -> None:
    assert read_table(text.encode(), Dialect(short_rows=True, escape=escape)).rows() == rows

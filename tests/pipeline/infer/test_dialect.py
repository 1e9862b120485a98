"""Guesses how a text table is cut, from its first lines."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlapipe.pipeline.infer.infer import infer_schema
from vlapipe.pipeline.infer.text.dialect import Table, look_at_table
from vlapipe.schemas.schema import WHITESPACE, Dialect


def look(folder: Path, text: str, name: str = "log.csv", encoding: str = "utf-8") -> Table:
    (folder / name).write_bytes(text.encode(encoding))
    table = look_at_table(folder / name, name)
    assert table is not None
    return table


TEXTS: dict[str, tuple[str, Dialect, tuple[str, ...]]] = {
    "plain": ("t,x\n0.1,2\n0.2,3\n", Dialect(), ("t", "x")),
    "semicolon": ("t;x\n0.1;2\n0.2;3\n", Dialect(delimiter=";"), ("t", "x")),
    "decimal comma": ("t;x\n0,1;2,5\n0,2;3\n", Dialect(delimiter=";", decimal=","), ("t", "x")),
    "decimal comma and tabs": ("t\tx\n0,1\t2,5\n0,2\t3,5\n", Dialect(delimiter="\t", decimal=","), ("t", "x")),
    "blanks behind commas": ("t, x\n0.1, 2\n0.2, 3\n", Dialect(), ("t", "x")),
    "runs of blanks": ("t   x y\n0.1  2 1\n0.2  3 4\n", Dialect(delimiter=WHITESPACE), ("t", "x", "y")),
    "commented header": (
        "# made by x\n# t x\n1 2\n2 3\n",
        Dialect(delimiter=WHITESPACE, comment="#", header_commented=True),
        ("t", "x"),
    ),
    "commented header of another delimiter": (
        "# t, x, y\n1 2 3\n2 3 4\n",
        Dialect(delimiter=WHITESPACE, comment="#", header_rows=0, names=(("t", "x", "y"),)),
        ("t", "x", "y"),
    ),
    "no header": ("1,2.5\n2,3.5\n", Dialect(header_rows=0, names=(("c1", "c2"),)), ("c1", "c2")),
    "preamble": ("Robot: arm\nDate: today\n\nt,x\n1,2\n2,3\n", Dialect(skip_lines=3), ("t", "x")),
    "wide preamble": ("Robot,,,\nt,x,y,z\n1,2,3,4\n2,3,4,5\n", Dialect(skip_lines=1), ("t", "x", "y", "z")),
    "units": ("t,x\ns,mm\n1,2\n2,3\n", Dialect(skip_after_header=1), ("t", "x")),
    "two rows of names": ("j,j,pose\n1,2,x\n.1,.2,.3\n.2,.3,.4\n", Dialect(header_rows=2), ("j 1", "j 2", "pose x")),
    "quotes behind blanks": ('t, x\n0.1, "a, b"\n0.2, "c"\n', Dialect(skip_blanks=True), ("t", "x")),
    "trailing delimiter": ("t,x,\n1,2,\n2,3,\n", Dialect(trailing_delimiter=True), ("t", "x")),
    "trailing delimiter in rows alone": ("t,x\n1,2,\n2,3,\n", Dialect(trailing_delimiter=True), ("t", "x")),
    "index column": (",t,x\n0,.1,2\n1,.2,3\n", Dialect(index_column=True), ("t", "x")),
    "index column without a delimiter": ("t,x\n0,.1,2\n1,.2,3\n", Dialect(index_column=True), ("t", "x")),
    "footer": ("t,x\n1,2\n2,3\n3,4\nend of log\n", Dialect(skip_footer=1), ("t", "x")),
    "names that come twice": (
        "t,x,x\n.1,2,3\n.2,3,4\n",
        Dialect(header_rows=0, skip_lines=1, names=(("t", "x", "x_2"),)),
        ("t", "x", "x_2"),
    ),
    "single quotes": ("t,x\n'1','a,b'\n'2','c,d'\n'3','c,d'\n", Dialect(quote="'"), ("t", "x")),
}  # fmt: skip


@pytest.mark.parametrize(("text", "dialect", "names"), TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_dialect_is_found(text: str, dialect: Dialect, names: tuple[str, ...], newline: str, tmp_path: Path) -> None:
    table = look(tmp_path, text.replace("\n", newline))
    assert table.dialect == dialect
    assert table.names == names


@pytest.mark.parametrize(
    ("encoding", "found"),
    [("utf-8-sig", "utf-8"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"), ("cp1252", "cp1252")],
)
def test_encoding_is_found(encoding: str, found: str, tmp_path: Path) -> None:
    table = look(tmp_path, "t,größe\n" + "1,2\n" * 20, encoding=encoding)
    assert (table.dialect.encoding, table.names) == (found, ("t", "größe"))


def test_packed_tables_are_looked_into(tmp_path: Path) -> None:
    text = b"t,x\n1,2\n2,3\n"
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text))
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("b.csv", text)
    for name in ("a.csv.gz", "b.zip"):
        table = look_at_table(tmp_path / name, name)
        assert table is not None
        assert table.names == ("t", "x")


def test_row_that_was_cut_is_no_footer(tmp_path: Path) -> None:
    table = look(tmp_path, "t,x,y\n1,2,3\n2,3,4\n3,4\n")
    assert table.dialect.skip_footer == 0


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\0\0\0\0", b"\x89PNG\r\n\x1a\n\0\0", b"one word"])
def test_what_is_no_table_is_none(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    assert look_at_table(tmp_path / "a.csv", "a.csv") is None


@settings(deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_table_or_none(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(data)
    table = look_at_table(path, "any.csv")
    assert table is None or all(len(row) == len(table.names) for row in table.rows)


@settings(deadline=None)
@given(
    delimiter=st.sampled_from([",", ";", "\t", "|", " "]),
    decimal=st.sampled_from([".", ","]),
    rows=st.lists(st.lists(st.integers(-(10**6), 10**6), min_size=3, max_size=3), min_size=4, max_size=20),
)
def test_numbers_come_back_under_any_delimiter(
    delimiter: str, decimal: str, rows: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    if delimiter == decimal:
        return
    cells = [[f"{value / 1000:.3f}".replace(".", decimal) for value in row] for row in rows]
    text = "\n".join(delimiter.join(row) for row in [["time", "left", "right"], *cells]) + "\n"
    path = tmp_path_factory.getbasetemp() / "numbers.csv"
    path.write_text(text)
    table = look_at_table(path, "numbers.csv")
    assert table is not None
    assert table.dialect.decimal == decimal
    assert [list(row) for row in table.rows] == cells


def test_single_quotes_around_the_names_alone(tmp_path: Path) -> None:
    path = tmp_path / "samples.csv"
    rows = "".join(f"{i * 0.002:.3f},{-0.145 + i % 7 * 0.01:.3f}\n" for i in range(50))
    path.write_text(f"'Elapsed time','ECG1'\n'seconds','mV'\n{rows}")
    table = look_at_table(path, "samples.csv")
    assert table is not None
    assert (table.dialect.quote, table.names, table.units) == ("'", ("Elapsed time", "ECG1"), ("seconds", "mV"))
    assert (table.dialect.header_rows, table.dialect.skip_after_header, len(table.rows)) == (1, 1, 50)


def test_quote_that_spans_cells_of_a_remark_is_no_header(tmp_path: Path) -> None:
    table = look(tmp_path, ' # format: "%int(us),%float(gyro),%float(acc)"\n90198,-0.5,0.25\n99285,0.5,0.75\n')
    assert (table.names, table.dialect.skip_lines) == (("c1", "c2", "c3"), 1)


def test_names_in_another_number_than_the_columns_are_told(tmp_path: Path) -> None:
    table = look(tmp_path, "q1,q2,q3,q4\n0.5,0.25\n0.75,0.125\n")
    assert table.names == ("c1", "c2")
    assert any("line 1 has 4 names for 2 columns" in reason for reason in table.reasons)


@pytest.mark.parametrize("sign", ["\x0c", "\x1e", "\u2028"])
def test_only_line_ends_end_lines(sign: str, tmp_path: Path) -> None:
    table = look(tmp_path, f"t,x,note\r0.1,2,a{sign}b\r0.2,3,c\r")
    assert (table.num_rows, table.rows[0][:2], table.rows[0][2]) == (2, ("0.1", "2"), f"a{sign}b")


@pytest.mark.parametrize(
    ("text", "names", "rows"),
    [
        ("t,j1,force\n0.0,1.5,-\n0.1,1.6,2\n0.2,1.7,2\n", ("t", "j1", "force"), 3),
        ("t,j1,force\n0.0,1.5,ERR\n0.1,1.6,2\n0.2,1.7,2\n0.3,1.8,2\n", ("t", "j1", "force"), 4),
        ("0.0,1.5,ERR\n0.1,1.6,2\n0.2,1.7,2\n0.3,1.8,2\n", ("c1", "c2", "c3"), 4),
        ("t,1,2\n0.1,2,3\n0.2,2,3\n", ("t", "1", "2"), 2),  # whole numbers can be names
    ],
)
def test_a_first_row_that_lacks_a_number_is_no_header(
    text: str, names: tuple[str, ...], rows: int, tmp_path: Path
) -> None:
    table = look(tmp_path, text)
    assert (table.names, table.num_rows) == (names, rows)


def test_a_comment_cell_that_is_seldom_filled_leaves_tabs_tabs(tmp_path: Path) -> None:
    rows = "".join(f"0,{i}\t1,{i}\t2,{i}\t{'start' if i == 0 else ''}\n" for i in range(99))
    table = look(tmp_path, "Writer\t2\nDate\t2024/05/20\n***End***\t\t\t\nt\tforce\tway\tComment\n" + rows)
    assert (table.names, table.num_rows) == (("t", "force", "way", "Comment"), 99)
    assert (table.dialect.delimiter, table.dialect.decimal) == ("\t", ",")


def test_a_header_with_a_name_too_many_is_told(tmp_path: Path) -> None:
    rows = "".join(f"0.{i},1.{i},2\n" for i in range(9))
    table = look(tmp_path, f"t,force,way,speed\n{rows}")
    assert (table.names, table.num_rows) == (("c1", "c2", "c3"), 9)
    assert any("line 1 has 4 names for 3 columns" in reason for reason in table.reasons)
    table = look(tmp_path, f"t,force,way,Comment\n{rows}")  # no row has a comment
    assert (table.names, table.num_rows, table.questions) == (("t", "force", "way"), 9, ())


def test_a_quoted_cell_that_goes_on_below_is_one_row(tmp_path: Path) -> None:
    rows = "".join(f'0.{i},"[1.5 2.{i}\n 3.5 4.5]"\n' for i in range(9))
    table = look(tmp_path, "t,q\n" + rows)
    assert (table.names, table.num_rows, table.rows[8]) == (("t", "q"), 9, ("0.8", "[1.5 2.8  3.5 4.5]"))


def test_messages_of_several_kinds_are_told_by_their_first_cells(tmp_path: Path) -> None:
    lines = [f"IMU, {i}, 0.5, {i % 3}\n" + ("" if i % 2 else f"ATT, {i}, 2.5\n") for i in range(30)]
    table = look(tmp_path, "".join(lines), "flight.log")
    said = "lines of several kinds, as their first cells say: IMU (4 cells), ATT (3 cells)"
    assert any(said in reason for reason in table.reasons)


def test_another_table_below_is_told_by_its_line(tmp_path: Path) -> None:
    text = "t,x,y\n" + "".join(f"0.{i},1,2\n" for i in range(30)) + "Markers\nt,z\n" + "0.5,1\n" * 5
    assert any("from line 32 on" in reason for reason in look(tmp_path, text).reasons)


def test_a_cut_row_is_no_other_table(tmp_path: Path) -> None:
    text = "t,x,y\n" + "".join(f"0.{i},1,2\n" for i in range(30)) + "0.3,1\n" + "0.31,1,2\n" * 5
    assert not any("other numbers of cells" in reason for reason in look(tmp_path, text).reasons)


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("t,x,y,z,x,y,z,w", "t,x,y,z,x_2,y_2,z_2,w_2"),  # a position, then a quaternion
        ("t,X,Y,Z,W,X,Y,Z,X,Y,Z,W", "t,X,Y,Z,W,X_2,Y_2,Z_2,X_3,Y_3,Z_3,W_3"),
        ("t,w,f,w", "t,w,f,w_2"),
    ],
)
def test_names_that_come_again_keep_a_quaternion_together(header: str, names: str, tmp_path: Path) -> None:
    width = header.count(",") + 1
    rows = "".join(",".join(f"{i * 3 % 7 + c}.5" for c in range(width)) + "\n" for i in range(9))
    assert look(tmp_path, f"{header}\n{rows}").names == tuple(names.split(","))


@pytest.mark.parametrize(("columns", "lead"), [(3, "32.000000"), (1, "4.000000")])
def test_a_start_time_and_a_rate_above_the_rows_are_no_rows(columns: int, lead: str, tmp_path: Path) -> None:
    rows = [[f"{0.5 + i:.2f}"] * columns for i in range(12)]
    lines = [["1544027337.000000"] * columns, [lead] * columns, *rows]
    path = tmp_path / "acc.csv"
    path.write_text("".join(",".join(line) + "\n" for line in lines))
    table = look_at_table(path, "acc.csv")
    assert table is not None
    assert table.dialect.skip_lines == 2
    assert [list(row) for row in table.rows] == rows
    assert any(f"1544027337.000000, and likely the rate, {lead}" in reason for reason in table.reasons)


def test_names_stand_above_many_lines_of_their_columns_properties(tmp_path: Path) -> None:
    about = ["Name,force,angle", "Type,REAL,REAL", "Port,851,851", "Scale,1,1", "Mask,0xff,0xff", "Offset,0,1"]
    rows = [f"{i},{i}.5,{2 * i}" for i in range(12)]
    path = tmp_path / "scope.csv"
    path.write_text("\n".join(["File,x", "", *about, "", *rows]) + "\n")
    table = look_at_table(path, "scope.csv")
    assert table is not None
    assert table.names == ("Name", "force", "angle")
    assert [",".join(row) for row in table.rows] == rows


def serial(line: Callable[[int], str]) -> str:
    return "".join(f"09:15:{i / 50:06.3f} -> {line(i)}\n" for i in range(60))


def test_stamps_of_a_serial_monitor_are_a_column(tmp_path: Path) -> None:
    table = look(tmp_path, serial(lambda i: "left,right" if i == 0 else f"{i % 7},{i % 5}"))
    assert table.names == ("received", "left", "right")
    assert table.rows[0] == ("09:15:00.020", "1", "1")
    assert table.questions == ()


def test_a_row_of_a_serial_monitor_that_ends_early_has_no_value_and_a_line_without_stamp_is_asked(
    tmp_path: Path,
) -> None:
    text = serial(lambda i: "left,right" if i == 0 else f"{i % 7}" if i == 30 else f"{i % 7},{i % 5}")
    (tmp_path / "log.txt").write_text(text + "wrapped,\n")
    inferred = infer_schema(tmp_path)
    assert 'on_missing = "mask"' in inferred.toml
    assert any("lines without a stamp, such as 'wrapped,'" in question for question in inferred.questions)


def test_kinds_of_rows_behind_the_stamps_of_a_serial_monitor_are_asked_about(tmp_path: Path) -> None:
    text = serial(lambda i: "kind,a,b" if i == 0 else f"{'IMU' if i % 2 else 'ENC'},{i % 2 * 90 + i % 7},{i % 5}")
    (tmp_path / "log.txt").write_text(text)
    assert any("rows of IMU, ENC: one stream" in question for question in infer_schema(tmp_path).questions)

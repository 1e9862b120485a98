"""Lines, signs and words that may cost rows, names or a factor of a thousand: each comes back, or is asked about."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from inferring import infer_and_ingest

from vlapipe import open_dataset
from vlapipe.pipeline.infer.infer import infer_schema
from vlapipe.pipeline.infer.text.dialect import look_at_table
from vlapipe.pipeline.infer.text.text_head import read_text_head
from vlapipe.schemas.schema import WHITESPACE

STEPS = range(24)
ROWS = [(f"{i / 10:.1f}", f"{i * 0.37:.3f}", f"{2 - i * 0.11:.3f}") for i in STEPS]
BODY = "".join(",".join(row) + "\n" for row in ROWS)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A table, and what is to be found in it."""

    text: str
    names: tuple[str, ...] = ("t", "j1", "j2")
    units: tuple[str, ...] = ("", "", "")
    rows: list[tuple[str, ...]] = field(default_factory=lambda: ROWS)
    dialect: dict[str, object] = field(default_factory=dict)
    encoding: str = "utf-8"


CUTS = {
    "units in brackets of all kinds": Cut(text=f"t,j1,j2\n[s],(rad),°\n{BODY}", units=("[s]", "(rad)", "°")),
    "units in words": Cut(text=f"t,j1,j2\nsecs,mm/s^2,none\n{BODY}", units=("secs", "mm/s^2", "")),
    "units above the names": Cut(text=f"s,rad,rad\nt,j1,j2\n{BODY}", units=("s", "rad", "rad")),
    "units alone": Cut(text=f"s,rad,rad\n{BODY}", names=("c1", "c2", "c3"), units=("s", "rad", "rad")),
    "types": Cut(text=f"t,j1,j2\nfloat32,int,string\n{BODY}", dialect={"skip_after_header": 1}),
    "types and units": Cut(text=f"t,j1,j2\ndouble,real,bool\ns,rad,rad\n{BODY}", units=("s", "rad", "rad")),
    "ranges": Cut(text=f"t,j1,j2\n0..10,-3.14..3.14,[0;1]\n{BODY}", dialect={"skip_after_header": 1}),
    "lines of the least and the most": Cut(
        text=f"t,j1,j2\nmin,-3.14,-3.14\nmax,3.14,3.14\n{BODY}", dialect={"skip_after_header": 2}
    ),
    "a ruler below the names": Cut(text=f"t,j1,j2\n---,---,---\n{BODY}", dialect={"skip_after_header": 1}),
    "a first row that was cut": Cut(text=f"t,j1,j2\n0.0,1\n{BODY}"),
    "first rows of words": Cut(
        text=f"t,j1,j2\n0.0,ERR,ERR\n0.1,ERR,ERR\n{BODY}",
        rows=[("0.0", "ERR", "ERR"), ("0.1", "ERR", "ERR"), *ROWS],
    ),
    "names that are the columns' numbers": Cut(text=f"0,1,2\n{BODY}", names=("0", "1", "2")),
    "groups of names over names": Cut(
        text="time,joint1,,joint2,\n,x,y,x,y\n" + "".join(f"{i / 10},{i * 2}.5,1.{i},2.{i},3.{i}\n" for i in STEPS),
        names=("time", "joint1 x", "joint1 y", "joint2 x", "joint2 y"),
        units=("",) * 5,
        rows=[(f"{i / 10}", f"{i * 2}.5", f"1.{i}", f"2.{i}", f"3.{i}") for i in STEPS],
    ),
    "names with blanks between runs of blanks": Cut(
        text="time s  joint 1  joint 2\n" + BODY.replace(",", "  "), names=("time s", "joint 1", "joint 2")
    ),
    "names with delimiters in quotes": Cut(text=f'"t","x, m","y"\n{BODY}', names=("t", "x, m", "y")),
    "names that end with a delimiter too many": Cut(text=f"t,j1,j2,\n{BODY}"),
    "names and units in comments": Cut(
        text=f"# made by arm\n# t j1 j2\n# s rad rad\n{BODY}".replace(",", " "),
        units=("s", "rad", "rad"),
        dialect={"header_commented": True, "skip_after_header": 1, "delimiter": WHITESPACE},
    ),
    "comments that begin with a semicolon": Cut(text=f"; made by arm\n; t j1 j2\n{BODY}".replace(",", " ")),
    "comments among the rows": Cut(text=f"t,j1,j2\n{BODY}# paused\n{BODY}# end\n", rows=[*ROWS, *ROWS]),
    "a line that states the delimiter": Cut(text=f"sep=;\nt,j1,j2\n{BODY}".replace(",", ";")),
    "a line that states a delimiter of its own": Cut(text=f"sep=^\nt,j1,j2\n{BODY}".replace(",", "^")),
    "a page break": Cut(text=f"t,j1,j2\n{BODY}\x0c\n{BODY}", rows=[*ROWS, *ROWS]),
    "a line of sums": Cut(text=f"t,j1,j2\n{BODY}Total,12.3,45.6\n", dialect={"skip_footer": 1}),
    "a footer behind blank lines, and no last line end": Cut(
        text=f"t,j1,j2\n{BODY}---\n\nend of log", dialect={"skip_footer": 2}
    ),
    "single quotes": Cut(text=f"t,j1,j2\n{BODY}".replace(",", "','").replace("\n", "'\n'")[:-1].join(("'", ""))),
    "a byte order mark": Cut(text=f"t,j1,j2\n{BODY}", encoding="utf-8-sig"),
    "UTF-16": Cut(text=f"t,j1,j2\n{BODY}", encoding="utf-16"),
    "a tab column that is always empty": Cut(
        text="t\tj1\tj2\n" + "".join(f"{a}\t\t{b}\n" for a, b, _ in ROWS), rows=[(a, "", b) for a, b, _ in ROWS]
    ),
    "a column of units' names that is no line of units": Cut(text=f"s,m,g\n{BODY}", names=("s", "m", "g")),
}  # fmt: skip


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_names_units_and_rows_are_found(cut: Cut, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(cut.text.encode(cut.encoding))
    table = look_at_table(path, "log.csv")
    assert table is not None
    assert (table.names, table.units, list(table.rows)) == (cut.names, cut.units, cut.rows)
    assert {key: getattr(table.dialect, key) for key in cut.dialect} == cut.dialect
    assert table.questions == ()


def ingested(folder: Path, text: str, name: str = "log.csv") -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The arrays that are stored by what infer writes, by their names, and what it asks."""
    (folder / "lab").mkdir()
    (folder / "lab" / name).write_text(text, encoding="utf-8")
    inferred, _ = infer_and_ingest(folder / "lab", folder / "out")
    episode = open_dataset(folder / "out").episode(0)
    return {key.partition("/")[2]: np.asarray(episode[key]) for key in episode}, inferred.questions


def test_tabs_with_empty_cells_keep_their_columns_apart(tmp_path: Path) -> None:
    rows = [(f"{i / 100:.2f}", f"{i}.5", "") if i % 2 else (f"{i / 100:.2f}", "", f"-{i}.25") for i in range(40)]
    (tmp_path / "log.tsv").write_text("time\tleft\tright\n" + "".join("\t".join(row) + "\n" for row in rows))
    table = look_at_table(tmp_path / "log.tsv", "log.tsv")
    assert table is not None
    assert (table.dialect.delimiter, table.names, list(table.rows)) == ("\t", ("time", "left", "right"), rows)
    assert {'delimiter = "\\t"', 'on_missing = "mask"'} <= set(infer_schema(tmp_path).toml.splitlines())


@pytest.mark.parametrize(
    ("decimal", "thousands"), [(".", ","), (",", "."), (".", " "), (".", "'"), (",", "\u00a0"), (",", "\u202f")]
)
def test_thousands_are_stored_as_thousands(decimal: str, thousands: str, tmp_path: Path) -> None:
    def cell(number: str) -> str:
        return number.replace(",", "\0").replace(".", decimal).replace("\0", thousands)

    rows = "".join(f"{cell(f'{i / 100:.2f}')};{cell(f'{i * 370:,}')};{i}\n" for i in range(40))
    arrays, _ = ingested(tmp_path, f"time;counts;ticks\n{rows}")
    assert arrays["counts"].ravel().tolist() == [i * 370 for i in range(40)]
    assert arrays["ticks"].ravel().tolist() == list(range(40))


def test_thousands_or_decimals_that_nothing_tells_apart_are_asked(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("time;counts\n" + "".join(f"{i};{1000 + i * 37:,}\n" for i in range(40)))
    inferred = infer_schema(tmp_path)
    assert any('decimal = ","' in line and 'thousands = ","' in line for line in inferred.questions)


@pytest.mark.parametrize(
    ("first", "others"), [("0", "1.125"), ("0", "1.500"), ("2", "3.125"), ("12", "1.375"), ("100", "99.125")]
)
def test_a_jump_that_decimals_make_smaller_is_no_thousands_sign(first: str, others: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("time,x\n" + "".join(f"{i},{others if i % 4 else first}\n" for i in range(40)))
    table = look_at_table(tmp_path / "log.csv", "log.csv")
    assert table is not None
    assert (table.dialect.decimal, table.dialect.thousands) == (".", "")


def test_a_group_that_is_not_of_three_digits_is_no_thousands_sign(tmp_path: Path) -> None:
    cells = ["999", "1,125", "999", "1,25", "998", "1,375"] * 6
    (tmp_path / "log.csv").write_text("time;x\n" + "".join(f"{i};{cell}\n" for i, cell in enumerate(cells)))
    table = look_at_table(tmp_path / "log.csv", "log.csv")
    assert table is not None
    assert (table.dialect.decimal, table.dialect.thousands) == (",", "")


@pytest.mark.parametrize("word", ["T1A", "RUN"])
def test_words_among_numbers_leave_header_and_units_alone(word: str, tmp_path: Path) -> None:
    rows = "".join(f"{i / 10},{i * 0.5},{i * 0.25},{word if i % 3 else 700 + i}\n" for i in range(40))
    arrays, questions = ingested(tmp_path, f"t,joint1,joint2,tool\ns,rad,rad,-\n{rows}")
    assert arrays["joint_position"][:, 0].tolist() == [i * 0.5 for i in range(40)]
    assert questions == ()


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        (f"t,j1,j2\nSTART,,\n{BODY}", "line 2"),
        (f"0.5,1.5,2.5\nt,j1,j2\n{BODY}", "line 1"),
        (f"t,j1\n{BODY}", "line 1 has 2 names for 3 columns"),
        (f"t,j1,j2,j3,j4\n{BODY}", "line 1 has 5 names for 3 columns"),
        ("0,1,2\n" + "".join(f"{i},{i * 7 % 50},{i * 3}\n" for i in range(3, 40)), "names in line 1"),
    ],
)
def test_what_may_be_a_row_or_a_name_is_asked_or_a_fault(text: str, asked: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(text)
    inferred = infer_schema(tmp_path)
    assert any(asked in line for line in inferred.questions) or inferred.faults


@pytest.mark.parametrize(("encoding", "names"), [("shift_jis", "時刻,関節１,速度"), ("cp1251", "время,сустав,сила")])
def test_an_encoding_that_no_byte_tells_is_asked(encoding: str, names: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(f"{names}\n{BODY}".encode(encoding))
    assert any("encoding" in line for line in infer_schema(tmp_path).questions)


def test_blank_lines_are_cut_in_linear_time(tmp_path: Path) -> None:
    def seconds(count: int) -> float:
        path = tmp_path / f"{count}.csv"
        path.write_bytes(b"\r" * count + b"x,y\n1,2\n3,4\n")
        start = time.thread_time()  # no other test's thread counts
        assert len(read_text_head(path).lines) == count + 3
        return time.thread_time() - start

    gc.disable()  # it looks at all that other tests have left, at any moment
    try:
        assert min(seconds(240_000) for _ in range(3)) < 20 * max(seconds(24_000), 0.01)
    finally:
        gc.enable()


def test_a_cell_of_many_digits_is_no_number_of_a_guess(tmp_path: Path) -> None:
    rows = "".join(f"{i / 10},{'9' * (5000 if i == 3 else 1)}.5\n" for i in range(20))
    (tmp_path / "log.csv").write_text(f"t,x\n{rows}")
    table = look_at_table(tmp_path / "log.csv", "log.csv")
    assert table is not None
    assert table.num_rows == 20

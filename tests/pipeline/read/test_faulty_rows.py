"""Rows that cannot be read: left out if the schema says so; in a file of several episodes they cost only their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest

SCHEMA = """
    name = "t"
    [episodes]
    per_file = true
    {episodes}
    [split]
    val = 0
    [streams.robot]
    kind = "csv"
    files = ["*.csv"]
    {robot}
    time = {{ {time} }}
    [streams.robot.fields.x]
    columns = ["x"]
    range = [-1000, 1000]
    dtype = "float64"
    [streams.robot.fields.grip]
    columns = ["grip"]
    words = {{ open = 1, closed = 0 }}
    [streams.robot.fields.pose]
    columns = ["p_{{1..2}}"]
    [action]
    kind = "next"
    of = ["robot/x"]
    """
HEADER = "episode,t,x,grip,p_1,p_2"
DROP = 'on_bad = "drop"'


def good_row(i: int, episode: str = "a") -> list[str]:
    return [episode, f"{i / 10:.1f}", str(i), ("open", "closed")[i % 2], f"{i}.5", f"-{i}"]


def run(
    root: Path, rows: list[list[str]], robot: str = "", episodes: str = "", time: str = 'column = "t"', **options: Any
) -> IngestReport:
    (root / "raw").mkdir(exist_ok=True)
    (root / "raw" / "log.csv").write_text("\n".join([HEADER, *(",".join(row) for row in rows), ""]))
    (root / "s.toml").write_text(SCHEMA.format(robot=robot, episodes=episodes, time=time))
    out = root / options.pop("out", "data")
    return ingest(IngestConfig(source=root / "raw", out=out, schema=str(root / "s.toml"), workers=1, **options))


def errors_of(reject: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [(r["code"], r["line"], r["count"]) for r in reject["reasons"] if r["severity"] == "error"]


# Cells that cannot be read, by the column that holds them, and the code of the fault.
BAD_CELLS = {
    "x": [
        ("#N/A", "csv.not_a_number"),
        ("1.2.3", "csv.not_a_number"),
        ("nan", "csv.not_finite"),
        ("65535", "csv.out_of_range"),
    ],
    "t": [("12:30", "csv.bad_time"), ("nan", "csv.bad_time")],
    "grip": [("ajar", "csv.unknown_word")],
    "p_2": [("--", "csv.not_a_number"), ("inf", "csv.not_finite"), ("1e300", "csv.out_of_range")],
}
EMPTY, CUT_SHORT = ("x", "", "csv.missing_value"), ("", "", "csv.ragged_row")
CASES = [(column, cell, code) for column, cells in BAD_CELLS.items() for cell, code in cells]


@pytest.mark.parametrize(("column", "cell", "code"), CASES)
@pytest.mark.parametrize("at", [0, 7, 19])
def test_row_that_cannot_be_read_is_refused_or_left_out(
    tmp_path: Path, column: str, cell: str, code: str, at: int
) -> None:
    rows = [good_row(i) for i in range(20)]
    rows[at][HEADER.split(",").index(column)] = cell
    [reject] = run(tmp_path, rows, out="refused").rejects
    assert errors_of(reject) == [(code, at + 2, 1)]
    report = run(tmp_path, rows, DROP)
    assert report.rejects == []
    [finding] = [f for f in report.findings if f["code"] == "csv.bad_rows_dropped"]
    assert (finding["line"], finding["column"], finding["count"], finding["severity"]) == (at + 2, column, 1, "note")
    assert cell in finding["found"]
    episode = vlapipe.open_dataset(tmp_path / "data").episode(0)
    kept = [i for i in range(20) if i != at]
    assert episode["robot/x"].tolist() == kept
    assert episode["robot/timestamp"].tolist() == [i / 10 for i in kept]
    assert episode["robot/grip"].tolist() == [1 - i % 2 for i in kept]
    assert episode["robot/pose"].tolist() == [[i + 0.5, -i] for i in kept]


def test_several_bad_rows_are_counted_a_column_and_missing_cells_follow_their_own_key(tmp_path: Path) -> None:
    rows = [good_row(i) for i in range(30)]
    for i in (3, 4, 9):
        rows[i][2] = "?"
    rows[9][1] = rows[12][1] = "late"
    rows[20][4] = ""
    [reject] = run(tmp_path, rows, DROP, out="refused").rejects
    assert [(r["code"], r["line"]) for r in reject["reasons"] if r["severity"] == "error"] == [
        ("csv.missing_value", 22)
    ]
    report = run(tmp_path, rows, DROP + '\non_missing = "drop"')
    told = {(f["code"], f["column"]): (f["line"], f["count"]) for f in report.findings if "dropped" in f["code"]}
    assert told == {
        ("csv.bad_rows_dropped", "x"): (5, 3),
        ("csv.bad_rows_dropped", "t"): (11, 2),
        ("csv.rows_dropped", None): (22, 1),
    }
    x = vlapipe.open_dataset(tmp_path / "data").episode(0)["robot/x"]
    assert x.tolist() == [i for i in range(30) if i not in (3, 4, 9, 12, 20)]


def test_row_cut_short_is_left_out_and_later_findings_keep_their_lines(tmp_path: Path) -> None:
    rows = [good_row(i) for i in range(20)]
    rows[5] = rows[5][:3]
    rows[8][2] = "?"
    rows[19] = rows[19][:2]
    report = run(tmp_path, rows, DROP)
    assert report.rejects == []
    dropped = [(f["line"], f["column"], f["count"]) for f in report.findings if f["code"] == "csv.bad_rows_dropped"]
    assert dropped == [(7, None, 2), (10, "x", 1)]
    x = vlapipe.open_dataset(tmp_path / "data").episode(0)["robot/x"]
    assert x.tolist() == [i for i in range(19) if i not in (5, 8)]


def test_where_rows_are_counted_for_their_time_a_dropped_row_shifts_no_other(tmp_path: Path) -> None:
    rows = [good_row(i) for i in range(20)]
    rows[5][2] = "?"
    assert run(tmp_path, rows, DROP, time="rate_hz = 10").rejects == []
    stamps = vlapipe.open_dataset(tmp_path / "data").episode(0)["robot/timestamp"]
    assert stamps.tolist() == [i * 100_000_000 for i in range(20) if i != 5]
    rows[5] = rows[5][:3]
    [reject] = run(tmp_path, rows, DROP, time="rate_hz = 10", out="refused").rejects
    assert "csv.ragged_row" in {reason["code"] for reason in reject["reasons"]}


def test_file_without_a_row_that_can_be_read_is_refused(tmp_path: Path) -> None:
    rows = [good_row(i) for i in range(5)]
    for row in rows:
        row[2] = "?"
    [reject] = run(tmp_path, rows, DROP).rejects
    assert errors_of(reject) == [("csv.not_a_number", 2, 5)]


# --- files of several episodes

PARTS = "abcd"
BY = {"column": 'split_column = "episode"', "gap": "split_gap_s = 1"}


def part_rows() -> list[list[str]]:
    """Four episodes of ten rows, 5 s apart."""
    rows = [good_row(i, PARTS[i // 10]) for i in range(40)]
    for i, row in enumerate(rows):
        row[1] = f"{i / 10 + 5 * (i // 10):.1f}"
    return rows


def name_of(part: int, by: str) -> str:
    return f"log/{PARTS[part]}" if by == "column" else f"log/part_{part:04d}"


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize(
    ("column", "cell", "code"), [*CASES, ("x", "", "csv.missing_value"), ("", "", "csv.ragged_row")]
)
@pytest.mark.parametrize("at", [0, 9, 10, 39])
def test_faulty_row_costs_only_the_episode_that_holds_it(
    tmp_path: Path, by: str, column: str, cell: str, code: str, at: int
) -> None:
    rows = part_rows()
    if column:
        rows[at][HEADER.split(",").index(column)] = cell
    else:
        rows[at] = rows[at][:4]
    report = run(tmp_path, rows, episodes=BY[by])
    errors = {reject["episode"]: errors_of(reject) for reject in report.rejects}
    # The first row of an episode does not tell to which one it belongs if it is cut short, or its time is not known.
    first_of_next = at == 10 and (not column or (by, column) == ("gap", "t"))
    holder = 0 if first_of_next else at // 10
    assert errors == {name_of(holder, by): [(code, at + 2, 1)]}
    dataset = vlapipe.open_dataset(tmp_path / "data")
    for part in {0, 1, 2, 3} - {holder}:
        episode = dataset.episode(name_of(part, by))
        own = range(10 * part + (first_of_next and part == 1), 10 * part + 10)
        assert episode["robot/x"].tolist() == list(own)
        assert episode["robot/timestamp"].tolist() == [float(f"{i / 10 + 5 * part:.1f}") for i in own]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(st.tuples(st.integers(0, 39), st.sampled_from(CASES)), max_size=6),
    by=st.sampled_from(sorted(BY)),
    drop=st.booleans(),
)
def test_every_other_row_arrives_whatever_is_faulty(
    tmp_path_factory: pytest.TempPathFactory, faults: list[tuple[int, tuple[str, str, str]]], by: str, drop: bool
) -> None:
    root = tmp_path_factory.mktemp("faulty")
    rows = part_rows()
    hit: set[int] = set()
    for at, (column, cell, _) in faults:
        if by == "gap" and column == "t" and at % 10 == 0 and at and not drop:
            continue  # its episode is not known
        rows[at][HEADER.split(",").index(column)] = cell
        hit.add(at)
    report = run(root, rows, robot=DROP if drop else "", episodes=BY[by])
    refused = set() if drop else {at // 10 for at in hit}
    assert {reject["episode"] for reject in report.rejects} == {name_of(part, by) for part in refused}
    if len(refused) == 4:
        return
    dataset = vlapipe.open_dataset(root / "data")
    found = {dataset.episode(i).id: dataset.episode(i) for i in range(len(dataset))}
    for part in {0, 1, 2, 3} - refused:
        own = np.array([i for i in range(10 * part, 10 * part + 10) if i not in hit])
        assert found[name_of(part, by)]["robot/x"].tolist() == own.tolist()
        assert found[name_of(part, by)]["robot/pose"].tolist() == [[i + 0.5, -i] for i in own]

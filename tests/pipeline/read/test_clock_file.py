"""A clock in a separate file: an array, one stamp a line, or a column of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlapipe.pipeline.read.clock_file import ClockFile, read_clock_file
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import TimeSpec


def read(root: Path, content: str | bytes, name: str = "t.txt", **time: Any) -> tuple[ClockFile | None, list[Finding]]:
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    findings = Findings()
    clock = read_clock_file(root / name, f"ep/{name}", TimeSpec(**time), findings)
    assert (clock is None) == bool(findings.errors)
    return clock, list(findings)


TEXTS: dict[str, tuple[str, dict[str, Any], list[Any]]] = {
    "a stamp a line": ("1.5\n2.25\n3\n", {}, [1.5, 2.25, 3.0]),
    "without a final newline": ("1.5\n2.25", {}, [1.5, 2.25]),
    "Windows line ends": ("1.5\r\n2.25\r\n", {}, [1.5, 2.25]),
    "a header without a name for the clock": ("stamp\n1.5\n2.25\n", {}, [1.5, 2.25]),
    "blank lines at the end": ("1.5\n2.25\n\n\n", {}, [1.5, 2.25]),
    "exponents": ("0.000000e+00\n1.036224e-01\n", {}, [0.0, 0.1036224]),
    "nanoseconds": (
        "1740416404000000001\n1740416404000000002\n",
        {"unit": "ns", "integer": True},
        [1740416404000000001, 1740416404000000002],
    ),
    "decimals kept exactly": ("1740416404.000000001\n", {"exact": True}, [1740416404000000001]),
    "milliseconds": ("1500\n2500\n", {"unit": "ms"}, [1.5, 2.5]),
    "moments with blanks": (
        "2011-09-26 13:02:25.964389445\n2011-09-26 13:02:26\n",
        {"format": "iso"},
        [1317042145964389445, 1317042146000000000],
    ),
    "a column by name": ("frame,t,x\n0,1.5,9\n1,2.5,9\n", {"sources": ("time", "t")}, [1.5, 2.5]),
    "another delimiter": ("frame;t\n0;1.5\n1;2.5\n", {"sources": ("t",)}, [1.5, 2.5]),
    "tabs": ("frame\tt\n0\t1.5\n1\t2.5\n", {"sources": ("t",)}, [1.5, 2.5]),
    "blanks and a header that is a comment": (
        "# color images\n# timestamp filename\n1.5 rgb/a.png\n2.5 rgb/b.png\n",
        {"sources": ("timestamp",)},
        [1.5, 2.5],
    ),
    "the first of several columns": ("1.5 rgb/a.png\n2.5 rgb/b.png\n", {}, [1.5, 2.5]),
    "two columns added": (
        "sec,nanosec\n5,7\n6,8\n",
        {"sources": ("sec",), "integer": True, "plus": "nanosec"},
        [5_000_000_007, 6_000_000_008],
    ),
    "a date and a time of day": (
        "day,time\n2011-09-26,13:02:25.5\n",
        {"sources": ("day",), "format": "%Y-%m-%d %H:%M:%S.%f", "plus": "time"},
        [1317042145500000000],
    ),
    "whole numbers over a rate": ("n\n0\n3\n", {"sources": ("n",), "index_rate_hz": 30}, [0, 100_000_000]),
    "an offset": ("1.5\n2.5\n", {"offset_s": 10}, [11.5, 12.5]),
}


@pytest.mark.parametrize("case", TEXTS)
def test_text_is_read_as_the_schema_says(tmp_path: Path, case: str) -> None:
    content, time, expected = TEXTS[case]
    clock, findings = read(tmp_path, content, **time)
    assert clock is not None, findings
    assert clock.timestamp.tolist() == expected
    assert clock.timestamp.dtype == TimeSpec(**time).dtype


FAULTS: dict[str, tuple[str | bytes, dict[str, Any], str, int | None, str | None]] = {
    "no stamp": ("1.5\nnoon\n2.5\nnight\n", {}, "csv.bad_time", 2, "column 1"),
    "after a comment": ("# a\n1.5\n# b\nnoon\n", {}, "csv.bad_time", 4, "column 1"),
    "a blank line, which may be a lost stamp": ("1.5\n\n2.5\n", {}, "csv.ragged_row", 2, None),
    "a fraction where stamps are whole": ("t\n1\n1.5\n", {"integer": True, "sources": ("t",)}, "csv.bad_time", 3, "t"),
    "not a number": ("1\nnan\n", {}, "csv.bad_time", 2, "column 1"),
    "an empty file": ("", {}, "csv.empty", None, None),
    "only a header": ("t,x\n", {"sources": ("t",)}, "csv.header_only", 1, None),
    "only comments": ("# t\n", {"sources": ("t",)}, "csv.header_only", None, None),
    "another column": ("tt,x\n1,2\n", {"sources": ("t",)}, "csv.missing_column", None, "t"),
    "the column twice": ("t,t\n1,2\n", {"sources": ("t",)}, "csv.duplicate_column", None, "t"),
    "a row too short": ("a,t\n1,2\n3\n", {"sources": ("t",)}, "csv.ragged_row", 3, None),
    "bytes that are no text": (b"1.5\n\xff\n", {}, "csv.encoding", 2, None),
    "beyond 64 bits": ("99999999999\n", {"integer": True}, "clock.unit", 1, "column 1"),
    "a number first that is no stamp": ("1.5\n2\n", {"integer": True}, "csv.bad_time", 1, "column 1"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_fault_is_refused_with_its_place(tmp_path: Path, case: str) -> None:
    content, time, code, line, column = FAULTS[case]
    _, findings = read(tmp_path, content, **time)
    first = findings[0]
    assert (first.code, first.file, first.line, first.column) == (code, "ep/t.txt", line, column), first


def test_every_cell_that_is_no_stamp_is_counted(tmp_path: Path) -> None:
    _, findings = read(tmp_path, "1\nx\ny\n2\nz\n")
    assert [(f.line, f.count, f.found) for f in findings] == [(2, 3, "'x'")]


def test_names_stand_beside_their_stamps(tmp_path: Path) -> None:
    content = "time,file\n2.5,b.jpg\n1.5, sub/a.jpg\n"
    clock, _ = read(tmp_path, content, "t.csv", sources=("time",), name_column="file")
    assert clock is not None
    assert clock.names == ("b.jpg", "sub/a.jpg")
    assert clock.place.line_of(1) == 3


@pytest.mark.parametrize(
    ("values", "code"),
    [
        (np.array([1.5, 2.5]), None),
        (np.array([1.5, np.inf]), "npz.bad_time"),
        (np.array([1.5, 2.5], dtype=np.float32), "npz.dtype"),
        (np.array([[1.5, 2.5]]), "npz.shape"),
        (np.array(["1.5"]), "npz.dtype"),
        (np.array([None]), "npz.object_array"),
    ],
)
def test_array_is_a_clock_or_refused(tmp_path: Path, values: Any, code: str | None) -> None:
    np.save(tmp_path / "x.npy", values)
    clock, findings = read(tmp_path, (tmp_path / "x.npy").read_bytes(), "t.npy")
    assert [f.code for f in findings] == ([code] if code else [])
    assert clock is None or clock.timestamp.tolist() == [1.5, 2.5]


@pytest.mark.parametrize("time", [{"exact": True}, {"format": "iso"}, {"sources": ("t",), "plus": "u"}])
def test_array_is_no_text(tmp_path: Path, time: dict[str, Any]) -> None:
    np.save(tmp_path / "x.npy", np.array([1.5, 2.5]))
    _, findings = read(tmp_path, (tmp_path / "x.npy").read_bytes(), "t.npy", **time)
    assert [f.code for f in findings] == ["npz.bad_time"]


def test_time_in_the_name_is_added(tmp_path: Path) -> None:
    clock, _ = read(tmp_path, "0.5\n", "20260101_000010.txt", start_format="%Y%m%d_%H%M%S")
    assert clock is not None
    assert clock.timestamp.tolist() == [1_767_225_610_500_000_000]
    _, findings = read(tmp_path, "0.5\n", "t.txt", start_format="%Y%m%d_%H%M%S")
    assert [f.code for f in findings] == ["csv.bad_time"]


def test_numbers_of_stamps_and_rows_are_both_told(tmp_path: Path) -> None:
    clock, _ = read(tmp_path, "1\n2\n")
    assert clock is not None
    findings = Findings()
    assert clock.fits(2, "ep/cam", findings)
    assert not clock.fits(3, "ep/cam", findings)
    [finding] = findings
    assert (finding.code, finding.expected, finding.found) == ("clock.count", "3 stamps, one a row of ep/cam", "2")


@pytest.mark.parametrize(
    ("content", "time", "stamps"),
    [
        ("[1.5, 2.25]", {}, [1.5, 2.25]),
        ("[1740416404000000001,\n 1740416404000000002]", {"unit": "ns", "integer": True}, [1740416404000000001] * 2),
        ('{"fps": 30, "stamps": [1.5, 2.25]}', {}, [1.5, 2.25]),
        ('{"a": [1.5], "b": [2.25, 3]}', {"sources": ("b",)}, [2.25, 3]),
        ('["2011-09-26 13:02:25.964389445"]', {"format": "iso"}, [1317042145964389445]),
    ],
)
def test_json_list_is_a_clock(tmp_path: Path, content: str, time: dict[str, Any], stamps: list[Any]) -> None:
    clock, _ = read(tmp_path, content, "t.json", **time)
    assert clock is not None
    expected = [stamps[0], stamps[0] + 1] if stamps[0] == 1740416404000000001 else stamps
    assert clock.timestamp.tolist() == expected


@pytest.mark.parametrize(
    "content", ["[1.5,", "{}", "[]", "[[1.5]]", "[1.5, null]", '[1.5, "x"]', '{"a": [1], "b": [2]}']
)
def test_json_that_is_no_list_of_stamps_is_refused(tmp_path: Path, content: str) -> None:
    _, findings = read(tmp_path, content, "t.json")
    assert {f.code for f in findings} == {"csv.bad_time"}


def test_an_empty_json_file_is_refused(tmp_path: Path) -> None:
    _, findings = read(tmp_path, "", "t.json")
    assert [f.code for f in findings] == ["csv.empty"]

"""CSV: every value is exact, and every fault is reported with its location."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlapipe.pipeline.read.csv.table import read_csv_stream
from vlapipe.pipeline.stream_rows import StreamRows
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import CsvStream, Dialect, FieldSpec, TimeSpec


def stream(**changes: object) -> CsvStream:
    """Columns t, a, b: a clock and a field of two."""
    fields = (FieldSpec(name="ab", columns=(("a", "alpha"), ("b",)), shape=(2,), range=(-1e6, 1e6)),)
    defaults: dict[str, object] = {
        "name": "robot",
        "files": ("x.csv",),
        "time": TimeSpec(sources=("t",)),
        "fields": fields,
    }
    return CsvStream(**{**defaults, **changes})  # type: ignore[arg-type]


def read(
    tmp_path: Path, content: str | bytes, spec: CsvStream | None = None
) -> tuple[StreamRows | None, list[Finding]]:
    path = tmp_path / "x.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    findings = Findings()
    rows = read_csv_stream(path, "ep/x.csv", spec or stream(), findings)
    return rows, list(findings)


GOOD = {
    "plain": "t,a,b\n0.5,1,2\n1.5,3,4\n",
    "carriage returns": "t,a,b\r\n0.5,1,2\r\n1.5,3,4\r\n",
    "no final newline": "t,a,b\n0.5,1,2\n1.5,3,4",
    "byte order mark": "\ufefft,a,b\n0.5,1,2\n1.5,3,4\n",
    "spaces around names and numbers": "t , a,b\n 0.5, 1,  2\n 1.5,  3 ,4\n",
    "columns in another order and one more": "b,x,t,a\n2,9,0.5,1\n4,9,1.5,3\n",
    "an alias": "t,alpha,b\n0.5,1,2\n1.5,3,4\n",
    "quoted cells": 't,a,b\n"0.5","1",2\n1.5,3,4\n',
    "blank lines": "t,a,b\n\n0.5,1,2\n\n1.5,3,4\n\n",
    "exponents": "t,a,b\n5e-1,1e0,2.0E+0\n1.5,3,4\n",
}


@pytest.mark.parametrize("case", GOOD)
def test_good_table_is_read_exactly(tmp_path: Path, case: str) -> None:
    rows, findings = read(tmp_path, GOOD[case])
    assert rows is not None, findings
    assert rows.timestamp.tolist() == [0.5, 1.5]
    assert rows.fields["ab"].tolist() == [[1, 2], [3, 4]]
    assert rows.fields["ab"].dtype == np.float32


# content, code, line, column
BAD = {
    "empty file": ("", "csv.empty", None, None),
    "white space only": ("\n\n", "csv.empty", None, None),
    "header only": ("t,a,b\n", "csv.header_only", 1, None),
    "missing column": ("t,a\n0,1\n", "csv.missing_column", 1, "b"),
    "duplicate column": ("t,a,b,a\n0,1,2,3\n", "csv.duplicate_column", 1, "a"),
    "too few cells": ("t,a,b\n0,1,2\n1,3\n", "csv.ragged_row", 3, None),
    "too many cells": ("t,a,b\n0,1,2\n1,3,4,5\n", "csv.ragged_row", 3, None),
    "row cut off at the end of the file": ("t,a,b\n0,1,2\n1,3", "csv.ragged_row", 3, None),
    "nan": ("t,a,b\n0,1,2\n1,nan,4\n", "csv.not_finite", 3, "a"),
    "infinity": ("t,a,b\n0,1,-inf\n1,3,4\n", "csv.not_finite", 2, "b"),
    "empty cell": ("t,a,b\n0,1,2\n1,,4\n", "csv.missing_value", 3, "a"),
    "text": ("t,a,b\n0,1,2\n1,3,ERR\n", "csv.not_a_number", 3, "b"),
    "decimal comma": ('t,a,b\n0,1,2\n1,3,"4,5"\n', "csv.not_a_number", 3, "b"),
    "hexadecimal": ("t,a,b\n0,1,2\n1,3,0x1F\n", "csv.not_a_number", 3, "b"),
    "out of range": ("t,a,b\n0,1,2\n1,3,4e6\n", "csv.out_of_range", 3, "b"),
    "overflow of float32": ("t,a,b\n0,1,2\n1,3,4e39\n", "csv.out_of_range", 3, "b"),
    "NUL bytes": ("t,a,b\n0,1,2\n1,3,\0\0\n", "csv.nul_bytes", 3, None),
    "not UTF-8": (b"t,a,b\n0,1,2\n1,3,\xff\n", "csv.encoding", 3, None),
    "header not UTF-8": (b"t,a,\xff\n0,1,2\n", "csv.encoding", 1, None),
    "bad stamp": ("t,a,b\n0,1,2\nnoon,3,4\n", "csv.bad_time", 3, "t"),
    "NaN stamp": ("t,a,b\n0,1,2\nnan,3,4\n", "csv.bad_time", 3, "t"),
}


@pytest.mark.parametrize("case", BAD)
def test_fault_is_refused_with_its_place(tmp_path: Path, case: str) -> None:
    content, code, line, column = BAD[case]
    rows, findings = read(tmp_path, content)
    errors = [f for f in findings if f.severity == "error"]
    assert [(f.code, f.line, f.column) for f in errors] == [(code, line, column)]
    assert rows is None
    assert errors[0].file == "ep/x.csv"


def test_all_faults_of_a_file_come_together(tmp_path: Path) -> None:
    _, findings = read(tmp_path, "t,a,b\n0,nan,2\n1,3\n2,x,4e9\n3,nan,1\n")
    assert [(f.code, f.line, f.column, f.count) for f in findings] == [
        ("csv.not_finite", 2, "a", 2),
        ("csv.ragged_row", 3, None, 1),
        ("csv.not_a_number", 4, "a", 1),
        ("csv.out_of_range", 4, "b", 1),
    ]


def test_columns_that_nobody_asked_for_are_named(tmp_path: Path) -> None:
    _, findings = read(tmp_path, "t,a,b,current,known\n0,1,2,3,4\n", stream(drop=("known",)))
    assert [f.code for f in findings] == ["csv.columns_not_kept"]
    assert "current" in findings[0].found
    assert "known" not in findings[0].found.replace("not kept", "")


def test_integer_stamps_stay_distinct_to_the_last_nanosecond(tmp_path: Path) -> None:
    start = 1_740_416_404_047_049_801
    text = "t,a,b\n" + "".join(f"{start + i},1,2\n" for i in range(100))
    rows, _ = read(tmp_path, text, stream(time=TimeSpec(sources=("t",), unit="ns", integer=True)))
    assert rows is not None
    assert rows.timestamp.dtype == np.int64
    assert np.array_equal(rows.timestamp, start + np.arange(100))


def test_fraction_in_an_integer_clock_is_refused(tmp_path: Path) -> None:
    spec = stream(time=TimeSpec(sources=("t",), unit="us", integer=True))
    rows, findings = read(tmp_path, "t,a,b\n1,1,2\n2.5,1,2\n", spec)
    assert rows is None
    assert [(f.code, f.line) for f in findings] == [("csv.bad_time", 3)]


def test_stamp_in_a_path_is_read_by_its_format(tmp_path: Path) -> None:
    spec = stream(time=TimeSpec(sources=("t",), format="cam_%Y_%m_%d_%H_%M_%S_%f.jpg"))
    rows, _ = read(tmp_path, "t,a,b\n../IMG/cam_2017_05_02_11_16_21_421.jpg,1,2\n", spec)
    assert rows is not None
    assert rows.timestamp.tolist() == [1_493_723_781_421_000_000]


finite = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-1e6, max_value=1e6)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    values=st.lists(st.tuples(finite, finite), min_size=1, max_size=30),
    newline=st.sampled_from(["\n", "\r\n"]),
    delimiter=st.sampled_from([",", ";", "\t"]),
    spell=st.sampled_from([repr, lambda v: f"{v:.17g}", lambda v: f"{v:.9e}", lambda v: f" {v!r}  "]),
    final=st.booleans(),
)
def test_any_float32_table_reads_back_to_the_last_bit(
    tmp_path: Path,
    values: list[tuple[float, float]],
    newline: str,
    delimiter: str,
    spell: Callable[[float], str],
    final: bool,
) -> None:
    table = [["t", "a", "b"], *([str(i / 100), spell(a), spell(b)] for i, (a, b) in enumerate(values))]
    text = newline.join(delimiter.join(row) for row in table) + newline * final
    rows, findings = read(tmp_path, text, stream(dialect=Dialect(delimiter=delimiter)))
    assert rows is not None, findings
    expected = np.array(values, dtype=np.float32)
    assert np.array_equal(rows.fields["ab"].view(np.uint32), expected.view(np.uint32))

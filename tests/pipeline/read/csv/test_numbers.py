"""Printed numbers that the stored type cannot hold exactly: values that become equal by rounding, decimal signs."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlapipe.pipeline.read.csv.table import read_csv_stream
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import CsvStream, Dialect, FieldSpec, TimeSpec


@pytest.mark.parametrize(
    ("cells", "line"),
    [
        (["20000001", "20000003", "20000005"], 4),  # 20000000, 20000004, 20000004
        (["47.3977418", "47.3977419", "47.3977420"], 3),
        (["308.003656", "308.003656", "308.003656"], None),  # the same in the file as well
        (["1.5", "1.5", "2.5"], None),
        (["0.1", "0.2", "0.30000000000000004"], None),  # rounded, but told apart
    ],
)
def test_cells_that_float32_makes_one_number_of_are_warned_of(
    tmp_path: Path, cells: list[str], line: int | None
) -> None:
    path = tmp_path / "x.csv"
    path.write_text("t,a\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
    findings = Findings()
    spec = FieldSpec(name="a", columns=(("a",),))
    stream = CsvStream(name="robot", files=("x.csv",), time=TimeSpec(sources=("t",)), fields=(spec,))
    assert read_csv_stream(path, "x.csv", stream, findings) is not None
    assert [(f.code, f.line) for f in findings] == ([("csv.rounded", line)] if line else [])


def test_quoted_decimal_commas_between_commas_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('t,a\n"0,1","1,5"\n"0,2",-2\n')
    stream = CsvStream(
        name="robot",
        files=("x.csv",),
        time=TimeSpec(sources=("t",)),
        fields=(FieldSpec(name="a", columns=(("a",),)),),
        dialect=Dialect(decimal=","),
    )
    rows = read_csv_stream(path, "x.csv", stream, Findings())
    assert rows is not None
    assert rows.timestamp.tolist() == [0.1, 0.2]
    assert rows.fields["a"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize("limits", [None, (-10.0, 10.0)])
@pytest.mark.parametrize("cell", ["nan", "inf", "-inf"])
def test_value_that_is_not_finite_is_named_in_any_column_of_a_field(
    tmp_path: Path, cell: str, limits: tuple[float, float] | None
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"t,a,b\n0,1,2\n1,3,{cell}\n2,5,6\n")
    spec = FieldSpec(name="ab", columns=(("a",), ("b",)), shape=(2,), range=limits)
    stream = CsvStream(name="robot", files=("x.csv",), time=TimeSpec(sources=("t",)), fields=(spec,))
    findings = Findings()
    assert read_csv_stream(path, "x.csv", stream, findings) is None
    assert [(f.code, f.line, f.column) for f in findings] == [("csv.not_finite", 3, "b")]


@pytest.mark.parametrize(
    ("dtype", "cells", "line"),
    [
        ("float64", ["1", "9007199254740992", "9007199254740993"], 4),
        ("float64", ["-9007199254740993", "0", ""], 2),  # also beside a cell that is missing
        ("float32", ["1700000000123456789", "1", "2"], 2),
        ("float32", ["10000000000000000", "1e30", "12345678901234567.5"], None),  # as they stand
        ("int64", ["1", "9007199254740993", "2"], None),
    ],
)
def test_whole_numbers_that_a_float_would_round_are_refused(
    tmp_path: Path, dtype: str, cells: list[str], line: int | None
) -> None:
    path = tmp_path / "x.csv"
    path.write_text("t,a\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
    findings = Findings()
    spec = FieldSpec(name="a", columns=(("a",),), dtype=dtype, on_missing="mask")
    stream = CsvStream(name="robot", files=("x.csv",), time=TimeSpec(sources=("t",)), fields=(spec,))
    rows = read_csv_stream(path, "x.csv", stream, findings)
    assert [(f.code, f.line, f.column) for f in findings.errors] == ([("csv.whole_rounded", line, "a")] if line else [])
    assert (rows is None) == (line is not None)

"""Fields of a CSV stream: their columns, missing values, lists, texts, units and rotations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlapipe.pipeline.read.csv.table import read_csv_stream
from vlapipe.pipeline.stream_rows import StreamRows
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import CsvStream, Dialect, FieldSpec, TimeSpec


def field(*columns: str, **changes: Any) -> FieldSpec:
    """A field called v of these columns."""
    defaults: dict[str, Any] = {
        "name": "v",
        "columns": tuple((name,) for name in columns),
        "shape": (len(columns),) if len(columns) > 1 else (),
    }
    return FieldSpec(**{**defaults, **changes})


def read(
    tmp_path: Path, text: str, *fields: FieldSpec, severity: tuple[tuple[str, str], ...] = (), **changes: Any
) -> tuple[StreamRows | None, list[Finding]]:
    path = tmp_path / "x.csv"
    path.write_text(text, newline="")
    spec = CsvStream(
        **{"name": "robot", "files": ("x.csv",), "time": TimeSpec(sources=("t",)), "fields": fields, **changes}
    )
    findings = Findings(severity)
    return read_csv_stream(path, "ep/x.csv", spec, findings), list(findings)


def values(tmp_path: Path, text: str, *fields: FieldSpec, **changes: Any) -> list[Any]:
    rows, findings = read(tmp_path, text, *fields, **changes)
    assert rows is not None, findings
    return list(rows.fields["v"].tolist())


def faults(tmp_path: Path, text: str, *fields: FieldSpec, **changes: Any) -> list[tuple[str, int | None, str | None]]:
    rows, findings = read(tmp_path, text, *fields, **changes)
    assert rows is None
    return [(f.code, f.line, f.column) for f in findings if f.severity == "error"]


def test_columns_by_regular_expression_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    text = "t,j_10,j_2,j_1,x\n0,10,2,1,9\n"
    spec = field(regex=r"j_(\d+)", shape=(3,))
    assert values(tmp_path, text, spec) == [[1, 2, 10]]
    rows, _ = read(tmp_path, text, spec)
    assert rows is not None
    assert rows.column_names == {"v": ("j_1", "j_2", "j_10")}


def test_regular_expression_that_fits_another_number_of_columns(tmp_path: Path) -> None:
    assert faults(tmp_path, "t,j_1,j_2\n0,1,2\n", field(regex=r"j_\d+", shape=(3,))) == [("csv.column_count", 1, "v")]


def test_dropped_columns_fit_no_regular_expression(tmp_path: Path) -> None:
    spec = field(regex=r"j_\d+", shape=(2,))
    assert values(tmp_path, "t,j_1,j_2,j_3\n0,1,2,3\n", spec, drop=("j_2",)) == [[1, 3]]


def test_names_that_repeat_matter_only_where_they_are_wanted(tmp_path: Path) -> None:
    text = "t,a,x,x,,\n0,1,2,3,4,5\n"
    assert values(tmp_path, text, field("a")) == [1]
    assert faults(tmp_path, text, field("x")) == [("csv.duplicate_column", 1, "x")]


def test_missing_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    _, findings = read(tmp_path, "t,velocty\n0,1\n", field("velocity"))
    assert "did you mean 'velocty'" in findings[0].found


def test_other_delimiter_is_one_finding(tmp_path: Path) -> None:
    assert faults(tmp_path, "t;a;b\n0;1;2\n", field("a", "b")) == [("csv.delimiter", 1, None)]


def test_optional_column_that_is_absent(tmp_path: Path) -> None:
    rows, findings = read(tmp_path, "t,a\n0,1\n1,2\n", field("a", "b", optional=True))
    assert rows is not None
    assert rows.fields["v"].tolist() == [[1, 0], [2, 0]]
    assert rows.fields["v_is_missing"].tolist() == [[0, 1], [0, 1]]
    assert rows.fields["v_is_missing"].dtype == np.uint8
    assert [(f.code, f.found) for f in findings] == [("csv.columns_absent", "no b")]


@pytest.mark.parametrize(
    "spec",
    [
        field("b", optional=True, text=True, shape=(4,), dtype="uint8"),
        field("b", optional=True, cells="list", shape=(3,)),
        field(regex="b_.*", shape=(2,), optional=True),
        field("w", "x", "y", "z", optional=True, quaternion="wxyz", normalize=True),
    ],
)
def test_optional_field_that_is_absent_is_zero_and_masked(tmp_path: Path, spec: FieldSpec) -> None:
    rows, _ = read(tmp_path, "t,a\n0,1\n", spec)
    assert rows is not None
    assert rows.fields["v"].tolist() == [[0] * spec.shape[0]]
    assert rows.fields["v_is_missing"].tolist() == [[1] * spec.shape[0]]


GAPS = "t,a,b\n0,,1\n1,2,3\n2,-1,5\n3,6,-1\n4,7,8\n"


def test_missing_cells_are_refused_where_they_stand(tmp_path: Path) -> None:
    found = faults(tmp_path, GAPS, field("a", "b"), missing=("", "-1"))
    assert found == [("csv.missing_value", 2, "a"), ("csv.missing_value", 5, "b")]


def test_rows_with_missing_cells_are_dropped(tmp_path: Path) -> None:
    spec = field("a", "b", on_missing="drop")
    rows, findings = read(tmp_path, GAPS, spec, missing=("", "-1"))
    assert rows is not None
    assert rows.timestamp.tolist() == [1, 4]
    assert rows.fields["v"].tolist() == [[2, 3], [7, 8]]
    assert [rows.line_of(row) for row in range(2)] == [3, 6]
    assert [(f.code, f.line, f.count) for f in findings] == [("csv.rows_dropped", 2, 3)]


def test_dropped_row_need_not_have_a_stamp_or_a_sane_value(tmp_path: Path) -> None:
    fields = field("a", on_missing="drop"), field("b", name="w", range=(0, 10))
    rows, findings = read(tmp_path, "t,a,b\n0,1,2\n,,999\n2,3,4\n", *fields)
    assert rows is not None, findings
    assert rows.timestamp.tolist() == [0, 2]


def test_every_row_dropped_is_an_error(tmp_path: Path) -> None:
    assert [code for code, _, _ in faults(tmp_path, "t,a\n0,\n", field("a", on_missing="drop"))] == ["csv.header_only"]


def test_missing_cells_are_masked(tmp_path: Path) -> None:
    rows, findings = read(tmp_path, GAPS, field("a", "b", on_missing="mask"), missing=("", "-1"))
    assert rows is not None
    # The last value before; before the first value, that one.
    assert rows.fields["v"].tolist() == [[2, 1], [2, 3], [2, 5], [6, 5], [7, 8]]
    assert rows.fields["v_is_missing"].tolist() == [[1, 0], [0, 0], [1, 0], [0, 1], [0, 0]]
    assert [(f.code, f.line, f.column, f.count) for f in findings] == [
        ("csv.values_masked", 2, "a", 2),
        ("csv.values_masked", 5, "b", 1),
    ]


def test_column_without_any_value_is_zero(tmp_path: Path) -> None:
    rows, _ = read(tmp_path, "t,a\n0,nan\n1,nan\n", field("a", on_missing="mask"), missing=("nan",))
    assert rows is not None
    assert rows.fields["v"].tolist() == [0, 0]
    assert rows.fields["v_is_missing"].tolist() == [1, 1]


@pytest.mark.parametrize("cell", ["NA", " NA", '"NA"', "-999", " -999", "-999 ", '" -999"'])
def test_sentinel_is_seen_through_blanks_and_quotes(tmp_path: Path, cell: str) -> None:
    spec = field("a", on_missing="drop")
    assert values(tmp_path, f"t,a\n0,1\n1,{cell}\n", spec, missing=("NA", "-999")) == [1]


def test_number_that_only_equals_a_sentinel_is_a_number(tmp_path: Path) -> None:
    spec = field("a", on_missing="drop")
    assert values(tmp_path, "t,a\n0,-999.0\n1,-999\n", spec, missing=("-999",)) == [-999]


def test_empty_cell_is_refused_even_where_another_text_means_missing(tmp_path: Path) -> None:
    spec = field("a", on_missing="mask")
    assert faults(tmp_path, "t,a\n0,1\n1,\n2,NA\n", spec, missing=("NA",)) == [("csv.missing_value", 3, "a")]


def test_text_is_kept_in_utf8(tmp_path: Path) -> None:
    spec = field("a", text=True, shape=(5,), dtype="uint8")
    rows, _ = read(tmp_path, 't,a\n0,né\n1,"a,b"\n2,abcde\n', spec)
    assert rows is not None
    stored = [bytes(row).rstrip(b"\0").decode() for row in np.ascontiguousarray(rows.fields["v"])]
    assert stored == ["né", "a,b", "abcde"]
    assert rows.fields["v"].shape == (3, 5)
    assert rows.fields["v"].dtype == np.uint8


def test_text_that_is_too_long_is_placed(tmp_path: Path) -> None:
    spec = field("a", text=True, shape=(2,), dtype="uint8")
    assert faults(tmp_path, "t,a\n0,ab\n1,né\n", spec) == [("csv.text_too_long", 3, "a")]


@pytest.mark.parametrize(
    "cell", ['"[1, -2.5, 3e1]"', '"(1,-2.5,30)"', "1 -2.5 30", "[1;-2.5;30.]", '"[ 1.\n -2.5 30 ]"']
)
def test_list_in_a_cell(tmp_path: Path, cell: str) -> None:
    spec = field("a", cells="list", shape=(3,))
    assert values(tmp_path, f"t,a\n0,{cell}\n", spec) == [[1, -2.5, 30]]


@pytest.mark.parametrize(
    "cell", ['"[1, 2]"', '"[1, 2, 3, 4]"', '"[1, x, 3]"', '"[1, , 3]"', '"[1, 2, 3"', '"[[1, 2, 3]]"', "none"]
)
def test_what_is_no_such_list_is_placed(tmp_path: Path, cell: str) -> None:
    spec = field("a", cells="list", shape=(3,))
    assert faults(tmp_path, f't,a\n0,"[1, 2, 3]"\n1,{cell}\n', spec) == [("csv.not_a_list", 3, "a")]


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ("[1, nan]", "csv.not_finite"),
        ("[1, -Inf]", "csv.not_finite"),
        ("[1, 1e39]", "csv.out_of_range"),
        ("[1, nan, 3]", "csv.not_a_list"),
    ],
)
def test_number_of_a_list_is_refused_for_its_own_reason(tmp_path: Path, cell: str, code: str) -> None:
    spec = field("a", cells="list", shape=(2,))
    assert faults(tmp_path, f't,a\n0,"[1, 2]"\n1,"{cell}"\n', spec) == [(code, 3, "a")]


def test_whole_numbers_of_lists_are_read_as_those_of_cells(tmp_path: Path) -> None:
    spec = field("a", cells="list", shape=(2,), dtype="uint8")
    assert values(tmp_path, 't,a\n0,"[1.0, +255]"\n', spec) == [[1, 255]]
    for cell in ("[1, 256]", "[1, -1]", "[1, 1.5]", "[1, nan]", "[1, 0x1]"):
        assert faults(tmp_path, f't,a\n0,"[1, 2]"\n1,"{cell}"\n', spec) == [("csv.not_a_list", 3, "a")]


def test_lists_are_checked_and_masked_as_numbers_are(tmp_path: Path) -> None:
    spec = field("a", cells="list", shape=(2,), range=(0.0, 5.0))
    assert faults(tmp_path, 't,a\n0,"[1, 2]"\n1,"[1, 9]"\n', spec) == [("csv.out_of_range", 3, "a")]
    masked = field("a", cells="list", shape=(2,), on_missing="mask")
    rows, _ = read(tmp_path, 't,a\n0,"[1, 2]"\n1,\n', masked)
    assert rows is not None
    assert rows.fields["v"].tolist() == [[1, 2], [1, 2]]
    assert rows.fields["v_is_missing"].tolist() == [[0, 0], [1, 1]]


def test_units_are_converted_in_double_precision_and_rounded_once(tmp_path: Path) -> None:
    factor = float(np.pi / 180)
    spec = field("a", "b", scale=(factor, 1.0), file_unit=("deg", "m"), unit=("rad", "m"), range=(-180.0, 180.0))
    rows, _ = read(tmp_path, "t,a,b\n0,33.3,0.1\n", spec)
    assert rows is not None
    assert rows.fields["v"].tolist() == [[np.float32(33.3 * factor), np.float32(0.1)]]
    # The range is in the file's unit.
    assert faults(tmp_path, "t,a,b\n0,181,0\n", spec) == [("csv.out_of_range", 2, "a")]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("cells", "more"),
    [
        (("1", "-1e200"), {}),
        (("1", "1e39"), {"range": (0.0, 1e300)}),
        (("1", "1e39"), {"range": (0.0, 5.0)}),
        (("1", "1e38"), {"scale": (1000.0,)}),
        (('"[1, 2]"', '"[1, 1e39]"'), {"cells": "list", "shape": (2,)}),
        (("", "1e39"), {"on_missing": "mask"}),
    ],
)
def test_float64_that_float32_cannot_hold_is_refused_as_batches_are_float32(
    tmp_path: Path, cells: tuple[str, str], more: dict[str, Any]
) -> None:
    spec = field("a", dtype="float64", **more)
    text = f"t,a\n0,{cells[0]}\n1,1\n2,{cells[1]}\n"
    if more.get("cells") == "list":
        text = f"t,a\n0,{cells[0]}\n1,{cells[0]}\n2,{cells[1]}\n"
    found = [fault for fault in faults(tmp_path, text, spec) if fault[0] != "csv.values_masked"]
    assert found == [("csv.out_of_range", 4, "a")]


@pytest.mark.parametrize("value", ["3.4028234663852886e38", "-3e38", "1e-300"])
def test_float64_within_the_range_of_float32_is_kept(tmp_path: Path, value: str) -> None:
    assert values(tmp_path, f"t,a\n0,{value}\n", field("a", dtype="float64")) == [float(value)]


def test_product_that_the_type_cannot_hold_is_refused(tmp_path: Path) -> None:
    assert faults(tmp_path, "t,a\n0,1\n1,1e38\n", field("a", scale=(1000.0,))) == [("csv.out_of_range", 3, "a")]


def test_quaternion_is_stored_with_its_real_part_last(tmp_path: Path) -> None:
    spec = field("w", "x", "y", "z", quaternion="wxyz", on_missing="mask")
    rows, _ = read(tmp_path, "t,w,x,y,z\n0,1,0,0,0\n1,,0.6,0,0.8\n", spec)
    assert rows is not None
    assert rows.fields["v"].tolist() == [[0, 0, 0, 1], [np.float32(0.6), 0, np.float32(0.8), 1]]
    assert rows.fields["v_is_missing"].tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]
    assert rows.column_names["v"] == ("x", "y", "z", "w")


def test_quaternion_is_normalized_but_not_out_of_nothing(tmp_path: Path) -> None:
    spec = field("x", "y", "z", "w", quaternion="xyzw", normalize=True)
    assert values(tmp_path, "t,x,y,z,w\n0,0,3,0,4\n", spec) == [[0, np.float32(0.6), 0, np.float32(0.8)]]
    found = faults(tmp_path, "t,x,y,z,w\n0,0,0,0,1\n1,0,0,0,0\n", spec)
    assert [(code, line) for code, line, _ in found] == [("pose.not_unit", 3)]


def test_lowered_finding_lets_the_rows_through(tmp_path: Path) -> None:
    severity = (("csv.not_finite", "warning"), ("csv.out_of_range", "off"))
    rows, findings = read(tmp_path, "t,a\n0,nan\n1,99\n", field("a", range=(0.0, 1.0)), severity=severity)
    assert rows is not None
    assert np.array_equal(rows.fields["v"], np.array([np.nan, 99], np.float32), equal_nan=True)
    assert [(f.code, f.severity, f.line) for f in findings] == [("csv.not_finite", "warning", 2)]


@pytest.mark.parametrize("cell", ["+1.5", " +1.5", "1.5e0", "01.50", "15e-1", ".15E+1", '"1.5"'])
def test_odd_spellings_of_a_number(tmp_path: Path, cell: str) -> None:
    assert values(tmp_path, f"t,a\n0,{cell}\n", field("a")) == [1.5]


@pytest.mark.parametrize(
    "cell", ["1_0", "0x10", "1,5", "1.5.0", "1e", "--1", "1d3", "\u0661", "1 2", "NaN(1)x", "1.5 m"]
)
def test_what_is_no_number_is_placed(tmp_path: Path, cell: str) -> None:
    assert faults(tmp_path, f't,a\n0,1\n1,"{cell}"\n', field("a")) == [("csv.not_a_number", 3, "a")]


@pytest.mark.parametrize("cell", ["7", "+7", " 7", "7.0", "7.", "007"])
def test_whole_number_in_an_integer_field(tmp_path: Path, cell: str) -> None:
    assert values(tmp_path, f"t,a\n0,{cell}\n", field("a", dtype="int32")) == [7]


@pytest.mark.parametrize("cell", ["7.5", "0x7", "1e3", "256", "-1", "99999999999999999999999", "nan"])
def test_what_does_not_fit_an_integer_field_is_placed(tmp_path: Path, cell: str) -> None:
    assert faults(tmp_path, f"t,a\n0,1\n1,{cell}\n", field("a", dtype="uint8")) == [("csv.not_a_number", 3, "a")]


def test_decimal_comma(tmp_path: Path) -> None:
    dialect = Dialect(delimiter=";", decimal=",")
    assert values(tmp_path, "t;a\n0,5;1,25\n", field("a"), dialect=dialect) == [1.25]
    assert values(tmp_path, "t;a\n0,5;+1,25\n", field("a"), dialect=dialect) == [1.25]
    assert faults(tmp_path, "t;a\n0,5;1.25\n", field("a"), dialect=dialect) == [("csv.not_a_number", 2, "a")]


@pytest.mark.parametrize(
    ("decimal", "thousands", "cells"),
    [
        (".", ",", ["999", "1,110", "-12,345,678.5", "1,000e3"]),
        (",", ".", ["999", "1.110", "-12.345.678,5", "1.000e3"]),
        (".", " ", ["999", " 1 110", "-12 345 678.5", "1 000e3"]),
        (".", "'", ["999", "1'110", "-12'345'678.5", "1'000e3"]),
        (",", "\u00a0", ["999", "1\u00a0110", "-12\u00a0345\u00a0678,5", "1\u00a0000e3"]),
    ],
)
def test_thousands_signs_are_taken_out(tmp_path: Path, decimal: str, thousands: str, cells: list[str]) -> None:
    dialect = Dialect(delimiter=";", decimal=decimal, thousands=thousands)  # type: ignore[arg-type]
    text = "t;a\n" + "".join(f"{i};{cell}\n" for i, cell in enumerate(cells))
    assert values(tmp_path, text, field("a", dtype="float64"), dialect=dialect) == [999, 1110, -12345678.5, 1000e3]
    whole = text.rsplit("\n", 3)[0] + "\n"
    assert values(tmp_path, whole, field("a", dtype="int32"), dialect=dialect) == [999, 1110]


@pytest.mark.parametrize("cell", ["1,11", "1,1100", "0,110", "1234,567", ",110", "1,110,", "1.5,000", "1,,110"])
def test_groups_that_are_not_of_three_digits_are_refused(tmp_path: Path, cell: str) -> None:
    dialect = Dialect(delimiter=";", thousands=",")
    assert faults(tmp_path, f"t;a\n0;{cell}\n", field("a"), dialect=dialect) == [("csv.not_a_number", 2, "a")]


def test_a_whole_number_with_thousands_signs_that_is_rounded_is_told(tmp_path: Path) -> None:
    dialect = Dialect(delimiter=";", thousands=",")
    found = faults(tmp_path, "t;a\n0;9,007,199,254,740,993\n", field("a", dtype="float64"), dialect=dialect)
    assert found == [("csv.whole_rounded", 2, "a")]


def test_one_column_may_be_clock_and_field(tmp_path: Path) -> None:
    time = TimeSpec(sources=("t",), unit="us", integer=True)
    rows, _ = read(tmp_path, "t,a\n5,1\n6,2\n", field("t", dtype="float32"), time=time)
    assert rows is not None
    assert rows.timestamp.tolist() == [5000, 6000]
    assert rows.fields["v"].tolist() == [5, 6]


def test_faults_of_one_file_come_from_top_to_bottom(tmp_path: Path) -> None:
    text = "t,a,b\n0,nan,2\n\n1,3\n2,x,4e9\nnoon,1,1\n"
    found = faults(tmp_path, text, field("a", "b", range=(-10.0, 10.0)))
    assert found == [
        ("csv.not_finite", 2, "a"),
        ("csv.ragged_row", 4, None),
        ("csv.not_a_number", 5, "a"),
        ("csv.out_of_range", 5, "b"),
        ("csv.bad_time", 6, "t"),
    ]


floats = st.floats(allow_nan=False, allow_infinity=False, width=32)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(table=st.lists(st.tuples(st.one_of(st.none(), floats), floats), min_size=1, max_size=20), comma=st.booleans())
def test_gaps_are_told_from_values_in_any_table(
    tmp_path: Path, table: list[tuple[float | None, float]], comma: bool
) -> None:
    def spell(value: float | None) -> str:
        text = "gone" if value is None else repr(value)
        return text.replace(".", ",") if comma else text

    text = "t;a;b\n" + "".join(f"{i};{spell(a)};{spell(b)}\n" for i, (a, b) in enumerate(table))
    dialect = Dialect(delimiter=";", decimal="," if comma else ".")
    spec = field("a", "b", on_missing="mask")
    rows, findings = read(tmp_path, text, spec, dialect=dialect, missing=("gone",))
    assert rows is not None, findings
    assert rows.fields["v_is_missing"].tolist() == [[int(a is None), 0] for a, _ in table]
    for row, (a, b) in enumerate(table):
        assert rows.fields["v"][row, 1] == np.float32(b)
        assert a is None or rows.fields["v"][row, 0] == np.float32(a)


CELL = st.one_of(
    st.sampled_from(
        ["", "NA", "nan", "-inf", " 1.5 ", "+2", "1e400", "0x1", "[1, 2]", "(1 2", "2024-03-01T00:00:00Z", "x"]
    ),
    st.text(alphabet='0123456789.eE+-[] ,"é', max_size=6),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    cells=st.lists(st.lists(CELL, min_size=3, max_size=3), max_size=5),
    spec=st.sampled_from(
        [
            field("a", "b"),
            field("a", dtype="int32"),
            field("a", "b", range=(0.0, 5.0), scale=(2.0, 2.0)),
            field("a", text=True, shape=(4,), dtype="uint8"),
            field("a", cells="list", shape=(2,)),
            field("a", "b", "a", "b", quaternion="wxyz", normalize=True),
            field("a", "c", optional=True),
        ]
    ),
    on_missing=st.sampled_from(["refuse", "drop", "mask"]),
    time=st.sampled_from(
        [
            {},
            {"integer": True},
            {"exact": True},
            {"format": "iso"},
            {"format": "%H"},
            {"index_rate_hz": 3.0},
            {"plus": "b"},
        ]
    ),
)
def test_any_cells_give_whole_arrays_or_a_placed_error(
    tmp_path: Path, cells: list[list[str]], spec: FieldSpec, on_missing: Any, time: dict[str, Any]
) -> None:
    def quote(cell: str) -> str:
        return '"' + cell.replace('"', '""') + '"'

    text = "t,a,b\n" + "".join(",".join(map(quote, row)) + "\n" for row in cells)
    missing = replace(spec, on_missing=on_missing)
    rows, findings = read(tmp_path, text, missing, time=TimeSpec(sources=("t",), **time), missing=("", "NA"))
    errors = [finding for finding in findings if finding.severity == "error"]
    assert (rows is None) == bool(errors)
    if rows is None:
        assert all(f.line is not None or f.code in ("csv.header_only", "csv.bad_time") for f in errors)
        return
    assert all(len(array) == rows.num_rows > 0 for array in rows.fields.values())
    assert rows.fields["v"].shape[1:] == spec.shape
    assert rows.fields["v"].dtype == spec.dtype
    assert spec.text or np.isfinite(rows.fields["v"]).all()
    assert ("v_is_missing" in rows.fields) == (missing.mask is not None)


WORDS = (("ON", 1.0), ("OFF", 0.0))


def test_words_are_the_numbers_they_stand_for(tmp_path: Path) -> None:
    text = "t,a,b\n0,ON, OFF \n1,OFF,ON\n2,OFF,OFF\n"
    assert values(tmp_path, text, field("a", "b", words=WORDS, dtype="uint8")) == [[1, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("cell", "code"), [("on", "csv.unknown_word"), ("1", "csv.unknown_word"), ("", "csv.missing_value")]
)
def test_any_other_word_is_refused_with_its_cell(cell: str, code: str, tmp_path: Path) -> None:
    assert faults(tmp_path, f"t,a\n0,ON\n1,{cell}\n2,OFF\n", field("a", words=WORDS)) == [(code, 3, "a")]


def test_words_that_are_missing_are_masked(tmp_path: Path) -> None:
    text = "t,a\n0,ON\n1,?\n2,OFF\n"
    rows, _ = read(tmp_path, text, field("a", words=WORDS, on_missing="mask"), missing=("", "?"))
    assert rows is not None
    assert rows.fields["v"].tolist() == [1, 1, 0]
    assert rows.fields["v_is_missing"].tolist() == [0, 1, 0]

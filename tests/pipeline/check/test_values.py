"""Checks of values over time: constant columns, sensors that hang, jumps. Missing values cause no finding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams_under_test import rows_of, stream_of, ticks

from vlapipe.pipeline.check.values import check_values
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import FieldSpec


def check(field: FieldSpec, values: Any, timestamp: Any = None, missing: Any = None, **stream: Any) -> list[Finding]:
    clock = ticks(len(values)) if timestamp is None else timestamp
    fields: dict[str, Any] = {field.name: np.asarray(values, dtype=field.dtype)}
    if missing is not None:
        assert field.mask is not None
        fields[field.mask.name] = np.asarray(missing, dtype=np.uint8)
    findings = Findings()
    check_values(rows_of(clock, **fields), stream_of(field, **stream), findings)
    return list(findings)


def moving(num_rows: int, columns: int) -> Any:
    return np.random.default_rng(0).normal(size=(num_rows, columns))


JOINTS = FieldSpec(name="q", columns=(("a", "A"), ("b",), ("c",)), shape=(3,))
ONE = FieldSpec(name="q", columns=(("a",),))


def test_constant_columns_of_a_field_are_named_in_one_note() -> None:
    values = moving(100, 3)
    values[:, 0], values[:, 2] = 1.5, -2
    [finding] = check(JOINTS, values)
    assert (finding.code, finding.severity, finding.column) == ("value.constant", "note", "a, c")
    assert finding.found == "1.5, -2 in each of 100 rows"


def test_constant_but_for_one_row_is_not_constant() -> None:
    for row in range(0, 100, 7):
        values = np.zeros(100)
        values[row] = 1
        assert check(ONE, values) == []


def test_few_rows_are_not_called_constant() -> None:
    assert check(ONE, np.zeros(19)) == []
    assert [f.code for f in check(ONE, np.zeros(20))] == ["value.constant"]


def test_columns_of_a_wide_array_are_named_by_ranges() -> None:
    field = FieldSpec(name="aline", columns=(("alines",),), shape=(100,))
    values = moving(50, 100)
    values[:, 0] = values[:, 10:40] = 0
    [finding] = check(field, values)
    assert finding.column == "alines[0, 10..39]"


def test_masked_values_neither_make_a_column_change_nor_make_it_constant() -> None:
    field = FieldSpec(name="q", columns=(("a",),), on_missing="mask")
    values, missing = np.full(100, 7.0), np.zeros(100)
    values[::3], missing[::3] = 0, 1
    [finding] = check(field, values, missing=missing)
    assert finding.found.startswith("7 in each")
    assert check(field, np.zeros(100), missing=np.ones(100)) == []


def test_stuck_sensor_is_placed_where_it_begins_to_hang() -> None:
    field = FieldSpec(name="q", columns=(("a",), ("b",)), shape=(2,), stuck_s=0.5)
    values = moving(300, 2)
    values[50:150, 1], values[200:280, 1] = 3, 4  # 0.99 s and 0.79 s
    values[10:50, 0] = 5  # 0.39 s
    [finding] = check(field, values)
    assert (finding.code, finding.line, finding.column, finding.count) == ("value.stuck", 52, "b", 2)
    assert finding.found.startswith("3 for 0.99 s")


def test_run_until_the_last_row_counts_and_a_gap_or_a_missing_value_ends_it() -> None:
    field = FieldSpec(name="q", columns=(("a",),), stuck_s=0.5, on_missing="mask")
    values = moving(100, 1)[:, 0]
    values[40:] = 2
    none = np.zeros(100)
    assert [(f.code, f.line) for f in check(field, values, missing=none)] == [("value.stuck", 42)]
    hole = none.copy()
    hole[70] = 1
    assert check(field, values, missing=hole) == []
    clock = ticks(100)
    clock[70:] += 5
    assert check(field, values, clock, missing=none, max_gap_s=1) == []


def test_jump_is_measured_in_the_unit_of_the_file() -> None:
    field = FieldSpec(name="q", columns=(("a",),), max_speed=(100,), scale=(0.001,))  # mm/s in the file, metres stored
    values = np.linspace(0, 0.05, 101)  # 50 mm/s
    assert check(field, values) == []
    values[60:] += 0.01
    [finding] = check(field, values)
    assert (finding.code, finding.line, finding.column) == ("value.jump", 62, "a")
    assert finding.found.startswith("1050, a change by 10.5 in 0.01 s")


def test_angle_that_comes_round_does_not_jump() -> None:
    field = FieldSpec(name="q", columns=(("a",),), max_speed=(200,), period=(360.0,))
    angle = (np.arange(200) + 200) % 360 - 180.0
    assert check(field, angle) == []
    assert [f.code for f in check(FieldSpec(name="q", columns=(("a",),), max_speed=(200,)), angle)] == ["value.jump"]


def test_jump_to_and_from_a_missing_value_and_between_equal_stamps_is_none() -> None:
    field = FieldSpec(name="q", columns=(("a",),), max_speed=(200,), on_missing="mask")
    values, missing, clock = np.linspace(100, 101, 100), np.zeros(100), ticks(100)
    values[30], missing[30] = 0, 1
    clock[61] = clock[60]
    assert check(field, values, clock, missing) == []


@pytest.mark.filterwarnings("error")
def test_values_that_are_not_finite_are_checked_without_a_warning_of_numpy() -> None:
    field = FieldSpec(name="q", columns=(("a",),), max_speed=(200,), period=(360.0,), dtype="float64")
    values = np.linspace(100, 101, 100)
    values[30], values[40:42], values[50], values[60] = np.nan, np.inf, -np.inf, 1e308
    assert {f.code for f in check(field, values)} <= {"value.jump"}


def test_text_is_not_looked_at() -> None:
    field = FieldSpec(name="q", columns=(("a",),), shape=(8,), dtype="uint8", text=True)
    assert check(field, np.zeros((100, 8))) == []


def runs_longer_than(values: list[int], clock: Any, stuck_s: float) -> list[int]:
    starts, start = [], 0
    for row in range(1, len(values) + 1):
        if row == len(values) or values[row] != values[start]:
            if clock[row - 1] - clock[start] > stuck_s:
                starts.append(start)
            start = row
    return starts


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(1, 5))
def test_stuck_runs_equal_those_of_a_plain_loop(values: list[int], periods: int) -> None:
    clock = ticks(len(values))
    stuck_s = (periods + 0.5) / 100
    starts = runs_longer_than(values, clock, stuck_s)
    field = FieldSpec(name="q", columns=(("a",),), stuck_s=stuck_s)
    found = [f for f in check(field, values, clock) if f.code == "value.stuck"]
    assert [(f.line, f.count) for f in found] == ([(starts[0] + 2, len(starts))] if starts else [])

"""A clock must run forwards. Each other fault of a clock is reported with its location."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams_under_test import images_of, rows_of, stream_of, ticks

from vlapipe.pipeline.check.clocks import check_clock
from vlapipe.pipeline.read.csv.table import read_csv_stream
from vlapipe.pipeline.shards.derive.gaps import find_gaps
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.schema import CheckSpec, FieldSpec


def check(timestamp: Any, **values: Any) -> list[Finding]:
    findings = Findings()
    checks = CheckSpec(max_jitter=values.pop("max_jitter", 0.5))
    forwards = check_clock(rows_of(timestamp), stream_of(**values), checks, findings)
    assert forwards == ("clock.backwards" not in {f.code for f in findings})
    return list(findings)


def test_even_clock_has_no_finding() -> None:
    assert check(ticks(500), rate_hz=100, max_gap_s=0.05) == []


def test_first_row_that_runs_backwards_is_placed_and_the_others_counted() -> None:
    clock = ticks(50)
    clock[[20, 30]] -= 1
    [finding] = check(clock, rate_hz=100)
    assert (finding.code, finding.line, finding.column, finding.count) == ("clock.backwards", 22, "t", 2)
    assert finding.found == "0.99 s earlier"


def test_line_of_a_backwards_row_counts_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("t,a\n0,1\n\n5,3\n4,3\n")
    stream, findings = stream_of(FieldSpec(name="a", columns=(("a",),))), Findings()
    rows = read_csv_stream(tmp_path / "x.csv", "ep/x.csv", stream, findings)
    assert rows is not None
    check_clock(rows, stream, CheckSpec(), findings)
    assert [(f.code, f.file, f.line, f.column) for f in findings.errors] == [("clock.backwards", "ep/x.csv", 5, "t")]


def test_rows_of_a_file_without_lines_are_named_by_number() -> None:
    clock = ticks(50)
    clock[20] -= 1
    findings = Findings()
    check_clock(images_of(clock), stream_of(), CheckSpec(), findings)
    [finding] = findings
    assert finding.line is None
    assert "image 20" in finding.found


def test_equal_stamps_are_counted_in_nanoseconds_too() -> None:
    clock = np.arange(50, dtype=np.int64) * 10_000_000 + 1_740_416_404_000_000_000
    clock[7] = clock[6]
    clock[9] = clock[8] + 1  # one nanosecond is a difference
    [finding] = check(clock)
    assert (finding.code, finding.line, finding.count) == ("clock.duplicate", 9, 1)


def test_rate_far_from_the_declared_one() -> None:
    assert [f.code for f in check(ticks(100, rate_hz=85), rate_hz=100)] == []
    [finding] = check(ticks(100, rate_hz=75), rate_hz=100)
    assert (finding.code, finding.expected, finding.found) == ("clock.rate", "about 100 Hz", "75 Hz")


def test_gap_is_placed_and_counts_neither_as_rate_nor_as_jitter() -> None:
    clock = np.concatenate([ticks(100), ticks(100) + 30, ticks(100) + 60])
    [finding] = check(clock, rate_hz=100, max_gap_s=0.5)
    assert (finding.code, finding.line, finding.count) == ("clock.gap", 102, 2)
    assert "29.01 s" in finding.found


def test_without_max_gap_s_a_hole_is_no_gap_but_uneven() -> None:
    clock = np.concatenate([ticks(100), ticks(100) + 3])
    [finding] = check(clock)
    assert finding.code == "clock.jitter"
    assert "the longest is 2.01 s" in finding.found


def test_jitter_above_the_limit_is_told_and_below_it_not() -> None:
    noise = np.random.default_rng(0).uniform(-0.004, 0.004, 500)
    assert [f.code for f in check(ticks(500) + noise, max_jitter=0.2)] == ["clock.jitter"]
    assert check(ticks(500) + noise, max_jitter=0.5) == []
    assert check(ticks(19) + noise[:19], max_jitter=0.01) == []  # too few rows to tell


@pytest.mark.parametrize("num_rows", [1, 2])
def test_clock_of_few_rows(num_rows: int) -> None:
    assert check(ticks(num_rows), rate_hz=100, max_gap_s=0.1) == []


@given(
    steps=st.lists(st.integers(0, 3_000_000_000), min_size=1, max_size=30),
    limit_ms=st.integers(1, 3000),
    as_float=st.booleans(),
)
def test_gaps_are_the_rows_after_a_long_step(steps: list[int], limit_ms: int, as_float: bool) -> None:
    clock = np.cumsum([0, *steps]).astype(np.int64)
    found = find_gaps(clock / 1e9 if as_float else clock, limit_ms / 1000)
    assert found.dtype == np.int32
    expected = [i + 1 for i, step in enumerate(steps) if step > limit_ms * 1_000_000]
    near = {i + 1 for i, step in enumerate(steps) if abs(step - limit_ms * 1_000_000) < 100}
    assert [row for row in found.tolist() if row not in near or not as_float] == [
        row for row in expected if row not in near or not as_float
    ]


def test_without_a_limit_there_are_no_gaps() -> None:
    assert find_gaps(np.array([0.0, 100.0]), None).tolist() == []

"""Alignment of clocks (last row at or before; the row an action looks ahead to), compared to plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlapipe.pipeline.shards.derive.rows_in_time import action_rows, last_row_at_or_before, row_ahead
from vlapipe.schemas.parse import parse_schema

clocks = st.lists(st.integers(0, 10**9), min_size=1, max_size=30).map(sorted)


@given(anchor=clocks, other=clocks)
def test_last_row_at_or_before_equals_a_plain_search(anchor: list[int], other: list[int]) -> None:
    rows = last_row_at_or_before(np.array(anchor), np.array(other))
    expected = [max((i for i, t in enumerate(other) if t <= moment), default=-1) for moment in anchor]
    assert rows.tolist() == expected


def test_clocks_in_nanoseconds_and_seconds_are_compared_in_seconds() -> None:
    nanoseconds = np.array([1_000_000_000, 2_000_000_000, 3_000_000_000])
    assert last_row_at_or_before(nanoseconds, np.array([0.5, 2.0])).tolist() == [0, 1, 1]


def test_stamps_a_nanosecond_apart_are_told_apart() -> None:
    now = 1_740_416_404_047_049_801
    assert last_row_at_or_before(np.array([now, now + 1]), np.array([now + 1])).tolist() == [-1, 0]


@given(clock=clocks, period=st.integers(1, 10**8), tolerance=st.integers(0, 10**8))
def test_row_ahead_is_the_nearest_later_row_within_tolerance(clock: list[int], period: int, tolerance: int) -> None:
    found = row_ahead(np.array(clock), period / 1e9, tolerance / 1e9)
    for row, moment in enumerate(clock):
        distance = [abs(t - (moment + period)) for t in clock]
        if found[row] >= 0:
            assert found[row] > row
            assert distance[found[row]] == min(distance)
            assert distance[found[row]] <= tolerance
        else:
            nearest = min(range(len(clock)), key=lambda i: (distance[i], -i))
            assert distance[nearest] > tolerance or nearest <= row


def test_gap_in_the_clock_leaves_rows_before_it_without_an_action() -> None:
    clock = np.concatenate([np.arange(0, 1, 0.01), np.arange(5, 6, 0.01)])
    found = row_ahead(clock, 0.1, 0.02)
    assert (found[:89] == np.arange(10, 99)).all()
    assert (found[92:100] == -1).all()
    assert (found[100:189] == np.arange(110, 199)).all()


@pytest.mark.parametrize("rate_hz", [50, 100, 1000])
def test_period_is_a_time_whatever_the_rate(rate_hz: int) -> None:
    found = row_ahead(np.arange(rate_hz) / rate_hz, 0.1, 0.5 / rate_hz)
    assert found[0] == rate_hz // 10


def test_next_looks_one_row_ahead_but_never_across_a_gap() -> None:
    schema = parse_schema(
        """
        name = "t"
        anchor = "robot"
        [streams.robot]
        kind = "csv"
        files = ["x.csv"]
        max_gap_s = 0.5
        [streams.robot.time]
        column = "t"
        [streams.robot.fields.x]
        columns = ["x"]
        [action]
        kind = "next"
        of = ["robot/x"]
        [sample]
        state = ["robot/x"]
        """,
        "t",
    )
    assert action_rows(np.array([0.0, 0.1, 0.7, 1.2, 1.3]), schema).tolist() == [1, -1, 3, 4, -1]
    stamps = np.array([0, 500_000_000, 1_000_000_001, 1_100_000_000])
    assert action_rows(stamps, schema).tolist() == [1, -1, 3, -1]

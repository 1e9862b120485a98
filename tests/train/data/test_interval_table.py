"""Finds the interval that contains a number, also if the intervals' lengths differ much."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlapipe.train.data.frame_index import IntervalTable


@settings(deadline=None)
@given(
    lengths=st.lists(st.one_of(st.integers(1, 3), st.integers(1, 5000)), min_size=1, max_size=300),
    first_is_long=st.booleans(),
)
def test_every_number_is_found_in_its_interval(lengths: list[int], first_is_long: bool) -> None:
    if first_is_long:
        lengths = [100_000, *lengths]
    ends = np.cumsum(lengths)
    numbers = np.arange(ends[-1])
    found = IntervalTable(ends - lengths, int(ends[-1])).intervals_of(numbers)
    assert np.array_equal(found, np.repeat(np.arange(len(lengths)), lengths))


@pytest.mark.parametrize("length", [1, 2, 1023, 1024, 1025])
def test_table_is_small_and_few_halvings_are_left_for_even_intervals(length: int) -> None:
    table = IntervalTable(np.arange(10_000) * length, 10_000 * length)
    assert len(table._last_interval) <= 2 * 10_000 + 2
    assert table._halvings <= 1

"""Overlapping windows are joined to the recording that they were cut from, however much they overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlapipe.pipeline.read.npz.windows import expand_clock, new_rows

RATE = 650.0


def recording(num_rows: int, columns: int = 3) -> Any:
    return np.random.default_rng(0).normal(size=(num_rows, columns)).astype(np.float32)


def cut(rows: Any, width: int, ends: list[int]) -> Any:
    return np.stack([rows[end - width : end] for end in ends])


def laid_out(windows: Any, fresh: Any) -> Any:
    return np.concatenate([window[len(window) - count :] for window, count in zip(windows, fresh, strict=True)])


@given(st.integers(4, 20), st.lists(st.integers(0, 20), max_size=8))
def test_windows_of_any_overlap_give_the_recording(width: int, steps: list[int]) -> None:
    steps = [min(step, width) for step in steps]
    ends = np.cumsum([width, *steps])
    rows = recording(int(ends[-1]))
    windows = cut(rows, width, ends.tolist())
    fresh = new_rows([windows], ends / RATE, RATE)
    assert fresh.tolist() == [width, *steps]
    assert np.array_equal(laid_out(windows, fresh), rows)


def test_chance_repeat_of_a_single_value_is_no_overlap() -> None:
    rows = np.arange(40, dtype=np.float32)[:, None]
    rows[20] = rows[19]
    windows = cut(rows, 10, [10, 20, 30, 40])
    assert new_rows([windows], np.arange(1, 5) * 10 / RATE, RATE).tolist() == [10, 10, 10, 10]


def test_rows_that_repeat_say_more_than_a_clock_that_is_wrong() -> None:
    windows = cut(recording(40), 20, [20, 30, 40])
    assert new_rows([windows], np.array([0.0, 1.0, 1.0]), RATE).tolist() == [20, 10, 10]


@pytest.mark.parametrize("step", [10, 3])
def test_sensor_that_hangs_is_laid_out_by_the_clock(step: int) -> None:
    windows = np.ones((5, 10, 2), dtype=np.float32)
    assert new_rows([windows], np.arange(5) * step / RATE, RATE).tolist() == [10, step, step, step, step]


def test_tone_is_laid_out_by_the_clock() -> None:
    rows = np.tile(np.arange(5.0), 20)[:, None]
    windows = cut(rows, 20, [20, 35, 50, 65])
    assert new_rows([windows], np.array([20, 35, 50, 65]) / RATE, RATE).tolist() == [20, 15, 15, 15]


def test_two_arrays_must_repeat_together() -> None:
    rows = recording(40)
    still = np.zeros((3, 20, 1), dtype=np.float32)
    windows = cut(rows, 20, [20, 30, 40])
    assert new_rows([still, windows], np.array([20, 30, 40]) / RATE, RATE).tolist() == [20, 10, 10]


@pytest.mark.parametrize("whole", [False, True])
def test_times_end_at_the_stamp_and_lie_a_period_apart(whole: bool) -> None:
    stamps: Any = np.array([1000.0, 1000.5])
    stamps = (stamps * 1e9).astype(np.int64) if whole else stamps
    times = expand_clock(stamps, np.array([3, 2]), 10.0)
    assert times.dtype == stamps.dtype
    expected = np.array([999.8, 999.9, 1000.0, 1000.4, 1000.5])
    assert np.allclose(times / (1e9 if whole else 1), expected, rtol=0, atol=1e-9)


@given(
    steps=st.lists(st.integers(1, 2_000_000_000), min_size=1, max_size=10),
    data=st.data(),
    whole=st.booleans(),
)
def test_times_run_forwards_whenever_the_stamps_do(steps: list[int], data: st.DataObject, whole: bool) -> None:
    counts = np.array(data.draw(st.lists(st.integers(0, 50), min_size=len(steps), max_size=len(steps))))
    stamps: Any = np.cumsum(steps) + 1_740_416_404_000_000_000
    stamps = stamps if whole else np.cumsum(steps) / 1e9
    times = expand_clock(stamps, counts, RATE)
    assert len(times) == counts.sum()
    assert (np.diff(times) >= 0).all()
    ends = np.cumsum(counts)[counts > 0] - 1
    assert np.array_equal(times[ends], stamps[counts > 0])
    for i in range(1, len(stamps)):
        ours = times[counts[:i].sum() : counts[: i + 1].sum()]
        assert steps[i] < 1000 or (ours > stamps[i - 1]).all()

"""Statistics equal numpy's over all rows, and do not depend on how the rows were grouped."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlapipe.pipeline.build.statistics import QUANTILES, WIDE, FieldStatistics, Moments


def sample(num_rows: int = 5000) -> np.ndarray:
    rng = np.random.default_rng(0)
    columns = [rng.normal(0, 1, num_rows), rng.normal(308, 0.5, num_rows), -rng.exponential(1e-3, num_rows)]
    return np.stack([*columns, np.zeros(num_rows), np.full(num_rows, 7.25)], axis=1).astype(np.float32)


@pytest.mark.parametrize("num_parts", [1, 2, 17])
def test_merged_parts_equal_numpy_over_the_whole(num_parts: int) -> None:
    values = sample()
    merged = FieldStatistics.merged(FieldStatistics.of(part) for part in np.array_split(values, num_parts))
    whole = values.astype(np.float64)
    assert merged.moments.count == len(values)
    np.testing.assert_allclose(merged.moments.mean, whole.mean(axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(merged.moments.std, whole.std(axis=0), rtol=1e-9, atol=1e-12)
    assert np.array_equal(merged.moments.min, whole.min(axis=0))
    assert np.array_equal(merged.moments.max, whole.max(axis=0))


def test_quantiles_are_within_the_buckets_width() -> None:
    values = sample()
    statistics = FieldStatistics.of(values)
    for q in QUANTILES.values():
        expected = np.quantile(values, q, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(statistics.quantiles([q])[0], expected, rtol=2.5e-4, atol=1e-30)


def test_quantiles_do_not_depend_on_the_grouping() -> None:
    values = sample()
    merged = FieldStatistics.merged(FieldStatistics.of(part) for part in np.array_split(values, 9))
    for q in QUANTILES.values():
        assert np.array_equal(merged.quantiles([q])[0], FieldStatistics.of(values).quantiles([q])[0])


def test_parts_together_equal_parts_merged() -> None:
    parts = np.array_split(sample(), 9)
    together = FieldStatistics.of(*parts)
    merged = FieldStatistics.merged(FieldStatistics.of(part) for part in parts)
    assert together.to_dict() == merged.to_dict()


def test_statistics_do_not_depend_on_the_order_in_memory() -> None:
    values = sample()
    assert FieldStatistics.of(np.asfortranarray(values)).to_dict() == FieldStatistics.of(values).to_dict()


def test_wide_rows_are_summarised_by_one_number() -> None:
    values = np.random.default_rng(1).normal(3, 2, (200, WIDE + 1)).astype(np.float32)
    statistics = FieldStatistics.of(values)
    assert statistics.moments.mean.shape == (1,)
    np.testing.assert_allclose(statistics.moments.mean[0], values.mean(dtype=np.float64), rtol=1e-9)
    np.testing.assert_allclose(statistics.quantiles([0.5])[0][0], np.median(values), rtol=8e-3)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_any_finite_values_survive_a_round_trip_through_json(values: list[float]) -> None:
    statistics = FieldStatistics.of(np.array(values, dtype=np.float32))
    back = FieldStatistics.from_dict(json.loads(json.dumps(statistics.to_dict())))
    assert back.summary() == statistics.summary()
    assert (statistics.quantiles([0.5])[0] >= statistics.moments.min).all()
    assert (statistics.quantiles([0.5])[0] <= statistics.moments.max).all()


def test_wide_rows_beyond_a_block_equal_numpy() -> None:
    values = np.random.default_rng(2).normal(300, 2, (2500, 1025)).astype(np.float32)
    moments = Moments.of(values)
    assert moments.count == values.size
    np.testing.assert_allclose(moments.mean[0], values.mean(dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(moments.std[0], values.std(dtype=np.float64), rtol=1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("num_parts", [1, 3, 40])
@pytest.mark.parametrize("width", [3, WIDE + 1])
def test_statistics_are_over_the_finite_values_and_say_how_many(width: int, num_parts: int) -> None:
    values = np.random.default_rng(0).normal(50, 3, (40, width))
    values[3:20, 0] = np.nan
    values[5, 1], values[6, 1], values[7, 1] = np.inf, -np.inf, 1e200  # the last is finite, but not as float32
    values[:, 2] = np.nan
    parts = np.array_split(values, num_parts)
    merged = FieldStatistics.merged(FieldStatistics.of(part) for part in parts)
    for statistics in (merged, FieldStatistics.of(*parts)):
        summary = json.loads(json.dumps(FieldStatistics.from_dict(statistics.to_dict()).summary(), allow_nan=False))
        columns = [values.ravel()] if width > WIDE else list(values.T)
        finite = [column[np.abs(column) < 1e38] for column in columns]
        counts = [len(column) for column in finite]
        assert summary["count"] == (counts[0] if width > WIDE else counts)
        for i, column in enumerate(finite):
            column = column if len(column) else np.zeros(1)
            for name, expected in (("mean", column.mean()), ("std", column.std()), ("q50", np.median(column))):
                assert summary[name][i] == pytest.approx(expected, rel=0.02 if name == "q50" else 1e-9)
            assert (summary["min"][i], summary["max"][i]) == (column.min(), column.max())


def test_count_is_one_number_where_every_column_has_as_many_values() -> None:
    values = sample(50)
    values[7] = np.nan
    assert FieldStatistics.of(values).summary()["count"] == 49

"""Normalizing and unnormalizing is the identity. A constant column becomes its constant."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import make_spec

from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.batch_layout import Moments
from vlapipe.train.policies.nn.normalize import Normalizer, with_normalization


def make(mean: list[float], std: list[float], limit: float | None = None) -> Normalizer:
    return Normalizer(Moments(mean=np.array(mean, np.float32), std=np.array(std, np.float32)), limit=limit)


def test_values_come_back() -> None:
    values = torch.randn(5, 7, 2)
    normalizer = make([3, -1], [0.5, 20])
    assert torch.allclose(normalizer.invert(normalizer(values)), values, atol=1e-5)


def test_statistics_of_one_number_serve_a_wide_entry() -> None:
    assert make([2], [4])(torch.full((3, 5, 1025), 10.0)).eq(2.0).all()


def test_no_statistics_leave_values_alone() -> None:
    values = torch.randn(4, 3)
    assert torch.equal(Normalizer(None)(values), values)


@pytest.mark.parametrize("std", [0.0, 1e-12, 5e-7])
def test_constant_column_is_centred_and_comes_back_exactly(std: float) -> None:
    normalizer = make([1.0], [std])
    assert normalizer(torch.tensor([1.0])).item() == 0.0
    assert normalizer.invert(torch.tensor([123.0])).item() == 1.0
    assert not normalizer.varies.item()


def test_small_unit_is_not_taken_for_a_constant() -> None:
    assert make([0.0], [1e-5]).varies.item()


def test_limit_clips_what_is_far_out() -> None:
    assert make([0.0], [1.0], limit=10)(torch.tensor([-1e9, 5.0, 1e9])).tolist() == [-10.0, 5.0, 10.0]


def with_limits(**changes: list[float]) -> Moments:
    """Two columns: one from 0 to 10, of which 98 % lie from 2 to 6, and one that is 0 but for a rare 4."""
    values = {"mean": [4, 0.01], "std": [1, 0.2], "min": [0, 0], "max": [10, 4], "q01": [2, 0], "q99": [6, 0]}
    arrays = {name: np.array(numbers, np.float32) for name, numbers in (values | changes).items()}
    return Moments(**arrays, count=np.array([1e4, 1e4]))  # type: ignore[arg-type]


ENDS = {
    "mean_std": [[4.0, 0.01], [5.0, 0.21], [0, 0], [1, 1]],
    "quantiles": [[2.0, 0.0], [6.0, 4.0], [-1, -1], [1, 1]],
    "min_max": [[0.0, 0.0], [10.0, 4.0], [-1, -1], [1, 1]],
    "none": [[7.0, 3.0], [1e9, -2.0], [7, 3], [1e9, -2]],
}


@pytest.mark.parametrize("kind", ENDS)
def test_each_kind_puts_its_ends_where_it_says_and_brings_them_back(kind: str) -> None:
    normalizer = Normalizer(with_limits(), kind)
    low, high, at_low, at_high = (torch.tensor(row, dtype=torch.float32) for row in ENDS[kind])
    torch.testing.assert_close(normalizer(low), at_low)
    torch.testing.assert_close(normalizer(high), at_high)
    torch.testing.assert_close(normalizer.invert(at_high), high)
    assert normalizer.varies.all()


@pytest.mark.parametrize("kind", ["quantiles", "min_max"])
def test_kinds_that_need_limits_say_so_if_there_are_none(kind: str) -> None:
    moments = Moments(mean=np.zeros(2, np.float32), std=np.ones(2, np.float32))
    with pytest.raises(UsageError, match=f"normalize: {kind} needs limits and quantiles, .* \\(say mean_std"):
        Normalizer(moments, kind)


@pytest.mark.parametrize("table", [{"observation.state": "none"}, {"observation": {"state": "none"}}], ids=str)
def test_the_key_may_be_written_with_quotes_or_without(table: dict[str, object]) -> None:
    spec = with_normalization(make_spec(), table)
    assert spec.normalize == {"observation.state": "none"}
    values = torch.randn(3, 4)
    assert torch.equal(Normalizer.of(spec, "observation.state", limit=0.1)(values), values)
    assert not torch.equal(Normalizer.of(spec, "action")(values[:, :2]), values[:, :2])


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"actions": "none"}, "normalize: no key 'actions' (did you mean 'action'?)"),
        ({"action": "quantile"}, "normalize: action: 'quantile' is unknown (did you mean 'quantiles'?)"),
        ({"observation.images.View1": "none"}, "normalize: no key 'observation.images.View1' (images are not normal"),
        ({"action": 3}, "normalize: action: 3 is unknown"),
    ],
)
def test_what_is_unknown_is_refused_with_the_nearest_name(table: dict[str, object], expected: str) -> None:
    with pytest.raises(UsageError) as refusal:
        with_normalization(make_spec(), table)
    assert str(refusal.value).startswith(expected)

"""Normalizing and unnormalizing is the identity. A constant column becomes its constant."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlapipe.train.data.batch_layout import Moments
from vlapipe.train.policies.nn.normalize import Normalizer


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

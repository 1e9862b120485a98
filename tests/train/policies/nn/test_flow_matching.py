"""Flow matching: where times are drawn, and how exactly a velocity is followed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.arguments import parse_choice
from vlapipe.train.policies.nn.flow_matching import METHODS, Method, integrate, sample_time

CPU = torch.device("cpu")


def test_beta_draws_as_pi0_does() -> None:
    torch.manual_seed(0)
    t = sample_time("beta", 200_000, CPU)
    u = torch.distributions.Beta(1.5, 1.0).sample((200_000,))
    assert t.min() >= 0
    assert t.max() <= 0.999
    levels = torch.linspace(0.05, 0.95, 19)
    torch.testing.assert_close(t.quantile(levels), (0.999 * (1 - u)).quantile(levels), atol=5e-3, rtol=0)
    assert t.median() < 0.4  # early, where noise hides the data


def test_uniform_draws_all_times_alike() -> None:
    torch.manual_seed(0)
    t = sample_time("uniform", 100_000, CPU)
    levels = torch.linspace(0.05, 0.95, 19)
    torch.testing.assert_close(t.quantile(levels), levels, atol=5e-3, rtol=0)


def test_times_come_from_the_seed_alone() -> None:
    torch.manual_seed(3)
    first = sample_time("beta", 5, CPU)
    torch.manual_seed(3)
    assert torch.equal(sample_time("beta", 5, CPU), first)


@pytest.mark.parametrize("method", METHODS)
def test_straight_path_ends_at_the_data_in_one_step(method: Method) -> None:
    noise, data = torch.randn(4, 3, 2), torch.randn(4, 3, 2)
    torch.testing.assert_close(integrate(lambda *_: data - noise, noise, 1, method), data)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_error_falls_with_the_order_of_the_method(method: Method, order: int) -> None:
    """The path of slope t x from 1 ends at exp(1/2)."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (len(x),)
        return t[:, None] * x

    start = torch.ones(2, 1, dtype=torch.float64)
    errors = [abs(integrate(velocity, start, n, method)[0, 0].item() - math.exp(0.5)) for n in (20, 40)]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)


def test_unknown_choice_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"policy_args method: 'hein' is unknown .*heun"):
        parse_choice("policy_args method", "hein", METHODS)

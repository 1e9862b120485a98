"""--init: what fits by name and shape is copied, the rest stays, and one line says which is which."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vlapipe.schemas.errors import UsageError
from vlapipe.train.checkpoint.initial_weights import copy_what_fits
from vlapipe.train.data.batch_layout import Moments
from vlapipe.train.policies.nn.normalize import Normalizer


class Arm(nn.Module):
    """A normalizer, a body with a running mean, and a head."""

    def __init__(self, *, mean: float = 0.0, num_actions: int = 2, extra: bool = False) -> None:
        super().__init__()
        ones = np.ones(3, np.float32)
        self.state = Normalizer(Moments(mean=ones * mean, std=ones, is_finite=True))
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, num_actions)
        if extra:
            self.extra = nn.Linear(2, 2)


def snapshot(policy: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in policy.state_dict().items()}


def test_same_policy_gets_all_but_the_statistics() -> None:
    other, policy = Arm(mean=5.0), Arm(mean=7.0)
    other.body[1].running_mean.fill_(3.0)
    fit = copy_what_fits(policy, snapshot(other), where="run")
    assert fit.line == "9 of 9 tensors fit; statistics are those of the new data"
    assert all(
        torch.equal(tensor, other.state_dict()[name]) != (name == "state.mean")
        for name, tensor in snapshot(policy).items()
    )
    assert policy.state.mean.tolist() == [7.0] * 3
    assert all(p.requires_grad for p in policy.parameters())


def test_what_does_not_fit_stays_and_is_named() -> None:
    other, policy = Arm(num_actions=5), Arm(extra=True)
    own = snapshot(policy)
    weights = {**snapshot(other), "images.weight": torch.ones(1)}
    fit = copy_what_fits(policy, weights, where="run")
    assert fit.line == (
        "7 of 11 tensors fit; 2 of another shape: head.weight (2, 4) here, (5, 4) there, head.bias (2,) here, (5,) "
        "there; 2 only here: extra.weight, extra.bias; 1 only there: images.weight; "
        "statistics are those of the new data"
    )
    now = snapshot(policy)
    assert {name for name in now if name in weights and torch.equal(now[name], weights[name])} >= {"body.0.weight"}
    assert all(torch.equal(now[name], own[name]) for name in now if name.startswith(("head", "extra", "state")))


def test_many_names_are_counted() -> None:
    policy = nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))
    fit = copy_what_fits(policy, {"0.weight": torch.ones(2, 2)}, where="run")
    assert fit.line == "1 of 10 tensors fit; 9 only here: 0.bias, 1.weight, 1.bias and 6 more"


def test_nothing_that_fits_is_refused() -> None:
    policy = Arm()
    own = snapshot(policy)
    weights = {"trunk.weight": torch.ones(2), "body.1.running_mean": torch.ones(4)}  # a buffer alone is no beginning
    with pytest.raises(
        UsageError, match="--init run: no parameter fits the policy Arm: 1 of 9 tensors fit; 8 only here"
    ) as e:
        copy_what_fits(policy, weights, where="run")
    assert "\n" not in str(e.value)
    assert all(torch.equal(tensor, own[name]) for name, tensor in snapshot(policy).items())

"""The optimizer's state is named after its parameters, so that groups may change between runs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vlapipe.train.optim.optimizer import load_optimizer_tensors, make_optimizer, optimizer_tensors
from vlapipe.train.policies.base import ParameterGroup


def test_only_matrices_decay() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    optimizer = make_optimizer(module, learning_rate=1e-3, weight_decay=0.5)
    decays = {group["weight_decay"]: [p.dim() for p in group["params"]] for group in optimizer.param_groups}
    assert decays == {0.5: [2], 0.0: [1, 1, 1]}
    assert optimizer.defaults["fused"]


def test_frozen_parameters_are_left_out() -> None:
    module = nn.Linear(3, 4)
    module.bias.requires_grad_(False)
    assert len(make_optimizer(module, learning_rate=1e-3, weight_decay=0.1).param_groups) == 1


def test_state_put_back_makes_the_same_next_step() -> None:
    def steps(module: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            module(torch.ones(2, 3)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    torch.manual_seed(0)
    first = nn.Linear(3, 4)
    first_optimizer = make_optimizer(first, learning_rate=1e-2, weight_decay=0.1)
    steps(first, first_optimizer, 3)
    second = nn.Linear(3, 4)
    second.load_state_dict(first.state_dict())
    second_optimizer = make_optimizer(second, learning_rate=1e-2, weight_decay=0.1)
    tensors = {k: v.clone() for k, v in optimizer_tensors(first_optimizer, first).items()}
    assert set(tensors) == {f"{n}|{e}" for n in ("weight", "bias") for e in ("step", "exp_avg", "exp_avg_sq")}
    load_optimizer_tensors(second_optimizer, second, tensors)
    steps(first, first_optimizer, 2)
    steps(second, second_optimizer, 2)
    assert torch.equal(first.weight, second.weight)


def test_state_survives_other_groups_and_other_frozen_parameters() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = make_optimizer(module, learning_rate=1e-2, weight_decay=0.1)
    module(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()
    tensors = optimizer_tensors(optimizer, module)
    module[0].requires_grad_(False)
    module.parameter_groups = lambda: [ParameterGroup(name="one", parameters=module.parameters(), weight_decay=0.2)]
    later = make_optimizer(module, learning_rate=1e-2, weight_decay=0.1)
    load_optimizer_tensors(later, module, tensors)
    kept = {name: value for name, value in tensors.items() if name.startswith("1.")}
    assert optimizer_tensors(later, module).keys() == kept.keys()
    assert all(torch.equal(optimizer_tensors(later, module)[name], value) for name, value in kept.items())
    assert later.param_groups[0]["weight_decay"] == 0.2


def test_state_of_an_unknown_parameter_is_an_error() -> None:
    module = nn.Linear(3, 4)
    optimizer = make_optimizer(module, learning_rate=1e-2, weight_decay=0.1)
    with pytest.raises(KeyError, match="other"):
        load_optimizer_tensors(optimizer, module, {"other|step": torch.zeros(())})

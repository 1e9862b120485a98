"""A policy's parameter groups: each has its rate and decay, each parameter to train is in exactly one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from vlapipe.schemas.errors import UsageError
from vlapipe.train.optim.groups import freeze_groups, optimizer_groups, set_learning_rate
from vlapipe.train.optim.optimizer import make_optimizer
from vlapipe.train.policies.base import ParameterGroup


class Grouped(nn.Module):
    """Two layers; ``make`` makes the groups of it."""

    def __init__(self, make: Callable[[Grouped], Any]) -> None:
        super().__init__()
        self.body, self.head, self.make = nn.Linear(3, 4), nn.Linear(4, 2), make

    def parameter_groups(self) -> Any:
        """What the test wants."""
        return self.make(self)


def two_groups(policy: Grouped, **of_body: Any) -> list[ParameterGroup]:
    return [
        ParameterGroup(name="body", parameters=policy.body.parameters(), **of_body),
        ParameterGroup(name="head", parameters=policy.head.parameters()),
    ]


def test_policy_without_groups_has_one_and_only_matrices_decay() -> None:
    groups = optimizer_groups(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), weight_decay=0.5)
    assert [(g["name"], g["weight_decay"], [p.dim() for p in g["params"]]) for g in groups] == [
        ("all", 0.5, [2]),
        ("all", 0.0, [1, 1, 1]),
    ]


def test_group_has_its_own_decay_for_all_its_parameters() -> None:
    policy = Grouped(lambda p: two_groups(p, weight_decay=0.3))
    groups = optimizer_groups(policy, weight_decay=0.5)
    assert [(g["name"], g["weight_decay"], len(g["params"])) for g in groups] == [
        ("body", 0.3, 2),
        ("head", 0.5, 1),
        ("head", 0.0, 1),
    ]


def test_rate_of_a_group_is_the_schedules_times_its_factor() -> None:
    policy = Grouped(lambda p: two_groups(p, learning_rate_factor=0.1))
    optimizer = make_optimizer(policy, learning_rate=1e-2, weight_decay=0.0)
    assert {g["name"]: g["lr"] for g in optimizer.param_groups} == pytest.approx({"body": 1e-3, "head": 1e-2})
    set_learning_rate(optimizer, 5e-3)
    assert {g["name"]: g["lr"] for g in optimizer.param_groups} == pytest.approx({"body": 5e-4, "head": 5e-3})


def test_step_moves_each_group_by_its_own_rate() -> None:
    policy = Grouped(lambda p: two_groups(p, learning_rate_factor=0.25))
    before = [p.detach().clone() for p in policy.parameters()]
    optimizer = make_optimizer(policy, learning_rate=1e-2, weight_decay=0.0)
    policy.head(policy.body(torch.ones(5, 3))).sum().backward()
    optimizer.step()  # the first step of Adam moves each parameter by its rate
    moved = [float((p.detach() - b).abs().max()) for p, b in zip(policy.parameters(), before, strict=True)]
    assert moved == pytest.approx([2.5e-3, 2.5e-3, 1e-2, 1e-2], rel=1e-4)


def test_frozen_group_is_not_trained() -> None:
    policy = Grouped(lambda p: two_groups(p, frozen=True))
    freeze_groups(policy)
    assert [name for name, p in policy.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    assert {g["name"] for g in optimizer_groups(policy, weight_decay=0.1)} == {"head"}


def without_head(policy: Grouped) -> list[ParameterGroup]:
    return two_groups(policy)[:1]


def head_twice(policy: Grouped) -> list[ParameterGroup]:
    return [*two_groups(policy), ParameterGroup(name="again", parameters=[policy.head.bias])]


def foreign(policy: Grouped) -> list[ParameterGroup]:
    return [*two_groups(policy), ParameterGroup(name="more", parameters=nn.Linear(7, 5).parameters())]


def failing(policy: Grouped) -> list[ParameterGroup]:
    raise KeyError("trunk")


def named_parameters(policy: Grouped) -> list[ParameterGroup]:
    return [ParameterGroup(name="all", parameters=policy.named_parameters())]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (without_head, "in no group: head.weight, head.bias"),
        (head_twice, "head.bias is in groups 'head' and 'again'"),
        (foreign, r"group 'more' has what is no parameter of the policy: shape \(5, 7\)"),
        (named_parameters, "group 'all' has what is no parameter of the policy: .*body.weight"),
        (failing, r"parameter_groups\(\) fails: KeyError: 'trunk'"),
        (lambda _: [{"params": []}], "expected a list of ParameterGroup, found a dict"),
        (lambda p: two_groups(p, learning_rate_factor=-1.0), "'body': learning_rate_factor: expected a number from 0"),
        (lambda p: two_groups(p, weight_decay=float("nan")), "'body': weight_decay: expected a number from 0"),
    ],
)
def test_wrong_groups_are_one_clear_line(make: Callable[[Grouped], Any], told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        make_optimizer(Grouped(make), learning_rate=1e-2, weight_decay=0.1)
    assert str(caught.value).startswith("policy Grouped: parameter_groups()")
    assert "\n" not in str(caught.value)


def test_parameter_that_is_frozen_already_needs_no_group() -> None:
    policy = Grouped(without_head)
    policy.head.requires_grad_(False)
    assert [g["name"] for g in optimizer_groups(policy, weight_decay=0.1)] == ["body", "body"]

"""What a policy's ``loss`` may return, and what is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vlapipe.schemas.errors import UsageError
from vlapipe.train.policies.base import LossOutput, blocks_of
from vlapipe.train.policies.loss_module import LossOf, LossSums


class Returns(nn.Module):
    """Its loss is made by ``make`` from a parameter of 2."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.weight, self.make = nn.Parameter(torch.tensor(2.0)), make

    def loss(self, _: dict[str, Any]) -> Any:
        """As ``make`` says."""
        return self.make(self.weight)


BATCH = {"action_is_pad": torch.tensor([[False, True], [False, False]])}


def sums_of(make: Any) -> list[float]:
    sums = LossSums()
    sums.add(LossOf(Returns(make))(BATCH))
    return sums.take().tolist()


@pytest.mark.parametrize(
    ("make", "sums"),
    [
        (lambda w: w * 1, [6.0, 3.0]),  # a mean over the three actions that are not padded
        (lambda w: LossOutput(w * 5, torch.tensor(4)), [10.0, 4.0]),
        (lambda w: LossOutput((w * 5).reshape(1), 4, {"b": 2, "a": torch.tensor([3.0])}), [10.0, 4.0, 12.0, 8.0]),
        (lambda w: LossOutput((w * 5).bfloat16(), torch.tensor(1001)), [10.0, 1001.0]),
    ],
)
def test_sums_of_a_loss(make: Any, sums: list[float]) -> None:
    assert sums_of(make) == sums


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (
            lambda w: LossOutput(w * torch.ones(2), torch.tensor(1)),
            "total: expected a scalar, found a tensor",
        ),
        (lambda w: LossOutput(w * 1, torch.ones(2)), r"weight: expected one number, found a tensor of shape \(2,\)"),
        (lambda w: LossOutput(w * 1, torch.tensor(1), {"x": None}), "metrics x: expected one number, found None"),
        (lambda w: LossOutput(w.detach(), torch.tensor(1)), "it has no gradient"),
        (lambda w: LossOutput(w * 1, torch.tensor(1), {"loss": w}), "'loss' is a metric of the trainer"),
    ],
)
def test_loss_that_cannot_be_used_is_refused(make: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        sums_of(make)


def test_metrics_have_the_same_names_in_each_pass_and_on_each_rank() -> None:
    def output(*names: str) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        one = torch.tensor(1.0)
        return one, one, dict.fromkeys(names, one)

    sums = LossSums()
    sums.add(output("a"))
    with pytest.raises(UsageError, match="expected a, found b"):
        sums.add(output("b"))
    with pytest.raises(UsageError, match="expected a, found none on another rank"):
        LossSums(lambda mine: [mine, b""]).add(output("a"))


class NamesBlocks(nn.Module):
    """Its blocks are what ``choose`` takes of it."""

    def __init__(self, choose: Any) -> None:
        super().__init__()
        self.outer = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        self.list, self.choose = nn.ModuleList([nn.Linear(2, 2)]), choose

    def blocks(self) -> Any:
        """As ``choose`` says."""
        return self.choose(self)


@pytest.mark.parametrize(
    ("choose", "problem"),
    [
        (lambda p: [p.list], "expected modules that are called, found a ModuleList"),
        (lambda _: "ab", "found a str"),
        (lambda _: [nn.Linear(2, 2)], "Linear is no part of the policy"),
        (lambda p: [p.outer, p.outer], "a Sequential is named twice"),
        (lambda p: [p.outer, p.outer[0]], "a Linear is named twice, or after a block that holds it"),
    ],
)
def test_blocks_that_cannot_be_split_are_refused(choose: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        blocks_of(NamesBlocks(choose))
    assert len(blocks_of(NamesBlocks(lambda p: (each for each in (p.outer[0], p.outer))))) == 2

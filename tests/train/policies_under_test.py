"""Policies that misbehave on purpose."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch
from torch import Tensor, nn

from vlapipe.train.policies.regression import RegressionPolicy
from vlapipe.train.spec import SampleSpec


class NaNAtStep(RegressionPolicy):
    """Its loss is not a number in the ``at``-th training batch, on one rank."""

    def __init__(self, spec: SampleSpec, *, at: int, on_rank: int = 0, where: str = "loss", **sizes: Any) -> None:
        super().__init__(spec, **sizes)
        self.at, self.where, self.seen = at, where, 0
        self.here = int(os.environ.get("RANK", "0")) == on_rank

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """As it should be until then."""
        self.seen += self.training
        loss = super().loss(batch)
        if self.training and self.seen == self.at and self.here:
            # sqrt(0) has a value and no gradient.
            loss = loss * float("nan") if self.where == "loss" else loss + (self.head.bias * 0).sum().sqrt()
        return loss


class SignalAtStep(RegressionPolicy):
    """One rank sends itself SIGTERM in its ``at``-th training batch."""

    def __init__(self, spec: SampleSpec, *, at: int, on_rank: int = 0, **sizes: Any) -> None:
        super().__init__(spec, **sizes)
        self.at, self.seen = at, 0
        self.here = int(os.environ.get("RANK", "0")) == on_rank

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """As it should be."""
        self.seen += self.training
        if self.training and self.seen == self.at and self.here:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().loss(batch)


class Noisy(RegressionPolicy):
    """Draws from torch's generator in every step."""

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """With noise."""
        return super().loss(batch) * (1 + 0.1 * torch.rand(()))


class Odd(nn.Module):
    """One layer and a ``loss`` that is wrong, or odd, as ``kind`` says."""

    def __init__(self, spec: SampleSpec, *, kind: str) -> None:
        super().__init__()
        self.kind, self.seen = kind, 0
        self.spare = nn.Linear(3, 3)
        self.layer = nn.LazyLinear(1) if kind == "lazy" else nn.Linear(spec.state[1], 1)
        if kind == "no parameter":
            del self.layer, self.spare
        elif kind == "frozen":
            self.requires_grad_(False)

    def loss(self, batch: dict[str, Any]) -> Any:
        """Of the newest state alone; the layer ``spare`` is not used, or not always."""
        self.seen += self.training
        errors = self.layer(batch["observation.state"][:, -1] / 1000).square()
        kinds = {
            "vector": errors[:, 0],
            "dict": {"loss": errors.mean()},
            "number": 3.0,
            "whole": errors.sum().long(),
            "detached": errors.detach().mean(),
            "one of one": errors.mean().reshape(1),
        }
        if self.kind in kinds:
            return kinds[self.kind]
        rank = int(os.environ.get("RANK", "0"))
        spare_is_used = {"unused": False, "unused later": self.seen < 3, "used by one rank": rank == 1}[self.kind]
        kept = (~batch["action_is_pad"]).sum(dim=1, keepdim=True)
        return (errors * kept).sum() / kept.sum() + (self.spare(torch.ones(3)).square().sum() if spare_is_used else 0.0)

    def act(self, observation: dict[str, Any]) -> Tensor:
        """Nothing useful."""
        return torch.zeros(len(observation["task"]), 1, 1)

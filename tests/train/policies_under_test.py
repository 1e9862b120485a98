"""Policies that misbehave on purpose."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch
from torch import Tensor

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

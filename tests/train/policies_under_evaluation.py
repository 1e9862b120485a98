"""Policies whose ``act`` is not written yet, or wrong."""

from __future__ import annotations

from typing import Any

from tiny_policy import TinyPolicy
from torch import Tensor


class ActsLater(TinyPolicy):
    """Its ``act`` is still to be written."""

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """That of the tiny policy."""
        return (super().act(batch) - batch["action"]).square().mean()

    def act(self, observation: dict[str, Any]) -> Tensor:
        """Not yet."""
        raise NotImplementedError


class FirstAction(TinyPolicy):
    """Gives one action instead of a chunk."""

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """That of the chunk."""
        return (super().act(batch) - batch["action"]).square().mean()

    def act(self, observation: dict[str, Any]) -> Tensor:
        """The first action (B, A)."""
        return super().act(observation)[:, 0]

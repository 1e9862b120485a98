"""A policy of a few hundred numbers, for tests of what is around a policy: checkpoints, resumes, ranks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vlapipe.train.data.batch_layout import SampleSpec


class TinyPolicy(nn.Module):
    """One layer from the newest state to the action chunk, with dropout and a buffer that counts batches."""

    def __init__(self, spec: SampleSpec, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = spec.action
        self.layer = nn.Linear(spec.state[1], spec.action[0] * spec.action[1])
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("num_batches", torch.zeros((), dtype=torch.int64))

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """The mean over all actions that are not padded."""
        if self.training:
            self.num_batches += 1
        errors = (self.act(batch) - batch["action"]).square().mean(-1)
        kept = ~batch["action_is_pad"]
        return (errors * kept).sum() / kept.sum().clamp_min(1)

    def act(self, observation: dict[str, Any]) -> Tensor:
        """Actions (B, H, A)."""
        newest = self.dropout(observation["observation.state"][:, -1] / 100)
        return self.layer(newest).view(len(newest), *self.shape)


class WithExtraState(TinyPolicy):
    """Has state that is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        """What torch puts into the ``state_dict``."""
        return {"seen": 1}

    def set_extra_state(self, state: Any) -> None:
        """Forget it."""


class CallsOnce(TinyPolicy):
    """Calls a function of the test in the third batch."""

    call: Callable[[], object]

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """As it should be."""
        found = super().loss(batch)
        if self.num_batches == 3:
            type(self).call()
        return found


class WatchesSaves(TinyPolicy):
    """Counts in which batches a checkpoint is being written. In batch ``waits_at`` it waits for the end of the save."""

    num_seen = 0

    def __init__(self, spec: SampleSpec, *, ballast_mb: int, waits_at: int = 0) -> None:
        super().__init__(spec)
        self.register_buffer("ballast", torch.zeros(ballast_mb * 250_000))
        self.waits_at = waits_at

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """As it should be."""
        found = super().loss(batch)
        saves = [thread for thread in threading.enumerate() if thread.name == "vlapipe-save"]
        WatchesSaves.num_seen += len(saves)
        if self.num_batches == self.waits_at:
            for thread in saves:
                thread.join()
        return found

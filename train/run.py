"""What a training run holds while it goes on: one object that every part of the loop is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.data.loader import Loader
from vlapipe.train.optim.schedule import Schedule
from vlapipe.train.parallel.ranks import Ranks
from vlapipe.train.report.step_log import StepLog
from vlapipe.train.report.step_timer import StepTimer
from vlapipe.train.stopping import StopSignal

__all__ = ["LossOf", "Run"]


class LossOf(nn.Module):
    """What DDP and torch.compile wrap: their hooks need the loss to be a forward pass."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, batch: Batch) -> Tensor:
        """The policy's loss."""
        loss: Tensor = self.policy.loss(batch)  # type: ignore[operator]
        return loss


@dataclass(kw_only=True)
class Run:
    """A run in progress, after ``step`` steps."""

    config: TrainConfig
    ranks: Ranks
    precision: str
    policy: nn.Module
    module: nn.Module  # LossOf(policy), under DDP if there are several ranks
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    loader: Loader
    val_loader: Loader | None
    batches: Iterator[Batch]
    timer: StepTimer
    console: Progress
    step_log: StepLog
    stop: StopSignal
    dataset_digest: str  # of its manifest
    step: int = 0
    first_step: int = 0  # after which this process began
    checkpoint_step: int | None = None  # of the newest checkpoint
    val_loss: float | None = None  # the newest

    def leave_ranks(self) -> None:
        """Let go of DDP, which would keep the ranks' group and its threads alive; no step can be made after it."""
        self.module = LossOf(self.policy)

    @property
    def num_parameters(self) -> int:
        """Of the policy."""
        return sum(p.numel() for p in self.policy.parameters())

    @property
    def policy_name(self) -> str:
        """Of its class, for messages."""
        return type(self.policy).__name__

    @property
    def global_batch_size(self) -> int:
        """Samples of one step, over all ranks."""
        return self.config.batch_size * self.config.grad_accum * self.ranks.world_size

    @property
    def save_every(self) -> int:
        """Steps between checkpoints."""
        assert self.config.save_every is not None  # TrainConfig fills it in
        return self.config.save_every

    @property
    def evaluates_now(self) -> bool:
        """Whether this step is one to validate after: every ``eval_every``-th, and the last."""
        assert self.config.eval_every is not None
        return self.step % self.config.eval_every == 0 or self.step == self.config.max_steps

"""The state of a training run in progress: one ``Run`` object, passed to every function of the loop."""

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
    """The policy's loss as a module. DDP and torch.compile wrap this module, because their hooks run in ``forward``."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, batch: Batch) -> Tensor:
        """Returns the policy's loss, a scalar."""
        loss: Tensor = self.policy.loss(batch)  # type: ignore[operator]
        return loss


@dataclass(kw_only=True)
class Run:
    """A training run in progress. The run has made ``step`` steps."""

    config: TrainConfig
    ranks: Ranks
    precision: str
    policy: nn.Module
    module: nn.Module  # LossOf(policy); wrapped in DDP if there are several ranks
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    loader: Loader
    val_loader: Loader | None
    batches: Iterator[Batch]
    timer: StepTimer
    console: Progress
    step_log: StepLog
    stop: StopSignal
    dataset_digest: str  # SHA-256 over the manifests of all datasets
    step: int = 0
    first_step: int = 0  # steps that were made before this process began
    checkpoint_step: int | None = None  # step of the newest checkpoint
    val_loss: float | None = None  # newest validation loss

    def leave_ranks(self) -> None:
        """Drop DDP, which would keep the process group and its threads alive. The run cannot make a step afterwards."""
        self.module = LossOf(self.policy)

    @property
    def num_parameters(self) -> int:
        """Number of parameters of the policy."""
        return sum(p.numel() for p in self.policy.parameters())

    @property
    def policy_name(self) -> str:
        """Name of the policy's class, for messages."""
        return type(self.policy).__name__

    @property
    def global_batch_size(self) -> int:
        """Number of samples of one step, summed over all ranks."""
        return self.config.data.batch_size * self.config.optim.grad_accum * self.ranks.world_size

    @property
    def save_every(self) -> int:
        """Number of steps between two checkpoints."""
        assert self.config.checkpoint.save_every is not None  # TrainConfig fills in the default
        return self.config.checkpoint.save_every

    @property
    def evaluates_now(self) -> bool:
        """Whether to validate after this step: True after every ``eval_every``-th step and after the last step."""
        assert self.config.eval.eval_every is not None
        return self.step % self.config.eval.eval_every == 0 or self.step == self.config.max_steps

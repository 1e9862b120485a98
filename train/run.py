"""The state of a training run in progress: one ``Run`` object, passed to every function of the loop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.train.background_work import BackgroundWork
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.data.loader import Loader
from vlapipe.train.optim.ema import EMA
from vlapipe.train.optim.schedule import Schedule
from vlapipe.train.parallel.ranks import Ranks
from vlapipe.train.parallel.strategy import Strategy
from vlapipe.train.policies.compiled import CompileWatch
from vlapipe.train.policies.loss_module import LossSums
from vlapipe.train.report.samples_drawn import SamplesDrawn
from vlapipe.train.report.step_log import StepLog, StepOutcome
from vlapipe.train.report.step_timer import StepTimer
from vlapipe.train.stopping import StopSignal

__all__ = ["Run"]


@dataclass(kw_only=True)
class Run:
    """A training run in progress. The run has made ``step`` steps."""

    config: TrainConfig
    ranks: Ranks
    precision: str
    policy: nn.Module
    strategy: Strategy
    module: nn.Module  # LossOf(policy), as the strategy wraps it
    compiled: CompileWatch | None  # with --compile: what torch.compile made so far
    sums: LossSums  # of the step in progress, or of the validation
    drawn: SamplesDrawn  # of each dataset, by all ranks
    is_bad: Tensor  # scalar on the device: 1 after a loss or gradient that is not finite, and then for ever
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    loader: Loader
    val_loader: Loader | None
    batches: Iterator[Batch]
    timer: StepTimer
    console: Progress
    log: StepLog
    stop: StopSignal
    dataset_digest: str  # SHA-256 over the manifests of all datasets
    ema: EMA | None = None
    step: int = 0
    first_step: int = 0  # steps that were made before this process began
    checkpoint_step: int | None = None  # step of the newest checkpoint
    saving: BackgroundWork = field(default_factory=BackgroundWork)  # the checkpoint that is being written
    val_loss: float | None = None  # newest validation loss
    environment: Any = None  # of ``eval_env``; see train.evaluation.environments

    def leave_ranks(self) -> None:
        """Drop all that keeps the process groups and their threads alive. The run cannot make a step afterwards."""
        self.strategy.close()
        if self.compiled is not None:
            self.compiled.close()
        del self.strategy, self.module, self.policy, self.optimizer, self.ema

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Returns a context in which the policy has the weights that are validated: the EMA's, if there is one."""
        return contextlib.nullcontext() if self.ema is None else self.ema.swapped()

    @property
    def num_parameters(self) -> int:
        """Number of parameters of the policy."""
        return sum(p.numel() for p in self.policy.parameters())

    @property
    def global_batch_size(self) -> int:
        """Number of samples of one step, summed over all ranks."""
        return self.config.data.batch_size * self.config.optim.grad_accum * self.ranks.world_size

    def stops_after(self, outcome: StepOutcome) -> bool:
        """Whether to stop: one process at once, several ranks when all of them have been told of the request."""
        return outcome.stop or (self.ranks.world_size == 1 and bool(self.stop.requested))

    @property
    def saves_now(self) -> bool:
        """Whether to write a checkpoint after this step.

        True after every ``save_every``-th step, after the last step, and after each that is followed by closed loop.
        """
        assert self.config.checkpoint.save_every is not None  # TrainConfig fills in the default
        is_due = self.step % self.config.checkpoint.save_every == 0
        return is_due or self.step == self.config.num_steps or self.acts_now

    @property
    def evaluates_now(self) -> bool:
        """Whether to validate after this step: True after every ``eval_every``-th step and after the last step."""
        assert self.config.eval.eval_every is not None
        return self.step % self.config.eval.eval_every == 0 or self.step == self.config.num_steps

    @property
    def acts_now(self) -> bool:
        """Whether the policy acts in an environment after this step: after every ``eval_env_every``-th and the last."""
        if self.environment is None:
            return False
        every = self.config.eval.eval_env_every
        return (every is not None and self.step % every == 0) or self.step == self.config.num_steps

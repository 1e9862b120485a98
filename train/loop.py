"""The training loop, from top to bottom: step, validate, act, log, save, until the last step or a request to stop."""

from __future__ import annotations

from functools import partial

import torch

from vlapipe.train.build import build
from vlapipe.train.checkpoint.run_state import keep_options, save
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.data.device_copy import timing_waits, to_device
from vlapipe.train.evaluation.in_training import act_in_environment
from vlapipe.train.evaluation.validation import Validation
from vlapipe.train.faults import explain_device_errors
from vlapipe.train.optim.groups import set_learning_rate
from vlapipe.train.optim.optimizer import step_unless, trained_parameters
from vlapipe.train.optim.precision import autocast
from vlapipe.train.parallel.ranks import agree
from vlapipe.train.parallel.rng import seed_generators
from vlapipe.train.report.step_log import StepOutcome
from vlapipe.train.result import TrainResult, summarize
from vlapipe.train.run import Run

__all__ = ["TrainResult", "build", "train", "train_step"]


def train(config: TrainConfig) -> TrainResult:
    """Train a policy with the options of ``config``. Writes checkpoints and ``metrics.jsonl`` under ``config.out``.

    After SIGINT or SIGTERM, the run completes the step in progress, writes a checkpoint and returns.

    Raises:
        VlapipeError: the run cannot begin, or the loss is not finite.
    """
    with build(config) as run:
        stopped, validate = False, Validation()
        while run.step < run.config.num_steps and not stopped:
            outcome = train_step(run)
            run.step += 1
            stopped = run.stops_after(outcome)
            keep_options(run)
            saves = stopped or run.saves_now
            validated = validate(run) if run.evaluates_now else {}
            if run.acts_now and not stopped:
                validated = {**validated, **act_in_environment(run)}
            run.log.add(outcome, validated, now=saves)  # a step that is not finite ends the run before it is saved
            if saves:
                save(run)
        return summarize(run, stopped=stopped)


def train_step(run: Run) -> StepOutcome:
    """Make one step of the optimizer: its gradient is that of the mean loss over all samples of the step.

    A step reads ``grad_accum`` batches on each rank. It never waits for the device. If the loss or the gradient is not
    finite, then neither this step nor a later one moves the weights; ``run.log`` finds that out and ends the run.
    """
    config, ranks, timer = run.config, run.ranks, run.timer
    position = run.loader.state_dict()
    for part in range(config.optim.grad_accum):
        # What follows has a time-out on several ranks, so it begins only after every rank has its batch.
        with timer.phase("ranks"), agree(ranks, wish=bool(run.stop.requested)) as agreed:
            batch = _next_batch(run)
        with timer.phase("h2d"):
            batch = to_device(batch, ranks.device)
        run.drawn.add(batch)
        seed_generators(config.seed, "train", step=run.step, rank=ranks.rank, part=part)
        last = part == config.optim.grad_accum - 1
        with run.strategy.gradient_sync(enabled=last), explain_device_errors(run):
            with timer.phase("forward"), autocast(run.precision, ranks.device):
                loss = run.module(batch)
            with timer.phase("backward"):
                loss[0].backward()
        run.sums.add(loss)
    with timer.phase("optimizer"), explain_device_errors(run):
        own = run.sums.take()
        both = run.strategy.mean(torch.cat([own, run.drawn.take()]))
        mean, drawn = both[: len(own)], both[len(own) :]
        factor = torch.where(mean[1] > 0, 1 / mean[1], 1.0)
        norm = run.strategy.clip(trained_parameters(run.optimizer), config.optim.grad_clip, factor)
        run.is_bad |= ~(mean[0].isfinite() & norm.isfinite() & (mean[1] >= 0) & mean[1].isfinite())
        learning_rate = run.schedule.at(run.step)
        set_learning_rate(run.optimizer, learning_rate)
        step_unless(run.optimizer, run.strategy.for_optimizer(run.is_bad.float()))
        if run.ema is not None:
            run.ema.update(run.step, moved=~run.is_bad)
        run.optimizer.zero_grad(set_to_none=True)
    checks = norm.double(), run.is_bad.double(), own[0] / own[1].clamp_min(1)
    return StepOutcome(
        step=run.step + 1,
        values=torch.stack([*checks, *run.sums.means(mean), *run.drawn.shares(drawn)]),
        names=[*(f"train/{name}" for name in run.sums.names), *run.drawn.names],
        learning_rate=learning_rate,
        times=timer.take(),
        stop=agreed.wished,
        data_position=position,
    )


def _next_batch(run: Run) -> Batch:
    with run.timer.phase("data"), timing_waits(partial(run.timer.add, "h2d")):
        return next(run.batches)

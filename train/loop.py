"""The training loop, from top to bottom: step, evaluate, save, log, until the last step or a request to stop."""

from __future__ import annotations

import contextlib
import time
from functools import partial

import torch

from vlapipe.train.build import build
from vlapipe.train.checkpoint.run_state import keep_options, save
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.device_copy import timing_waits, to_device
from vlapipe.train.evaluate import evaluate
from vlapipe.train.faults import explain_out_of_memory, require_finite, require_loss
from vlapipe.train.optim.optimizer import kept_share, rescale_and_clip
from vlapipe.train.optim.precision import autocast
from vlapipe.train.parallel.ddp import unless
from vlapipe.train.parallel.ranks import agree, sum_of
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
        stopped = False
        while run.step < config.max_steps and not stopped:
            outcome = train_step(run)
            run.step += 1
            keep_options(run)
            stopped = outcome.stop
            last = stopped or run.step == config.max_steps
            val_loss = evaluate(run) if run.evaluates_now else None
            if last or run.step % run.save_every == 0:
                save(run)
            run.step_log.write(run.step, outcome, val_loss, last=last)
        return summarize(run, stopped=stopped)


def train_step(run: Run) -> StepOutcome:
    """Make one step of the optimizer. The gradient is that of the mean loss over all actions of the step.

    A step reads ``grad_accum`` batches on each rank.

    Raises:
        VlapipeError: the loss or the gradient is not finite. The weights are then unchanged.
    """
    config, device, timer = run.config, run.ranks.device, run.timer
    began = time.perf_counter()
    batches, shares, losses = [], [], []
    for i in range(config.optim.grad_accum):
        exchanges = i == config.optim.grad_accum - 1
        with timer.phase("data"), timing_waits(partial(timer.add, "h2d")):
            batch = next(run.batches)
        with timer.phase("h2d"):
            on_device = to_device(batch, device)
        share = kept_share(on_device)
        with timer.phase("compute"), unless(exchanges, run.module):
            # The reduce of the gradients has a time-out, so it begins only after every rank has read its batch.
            before_exchange = agree(run.ranks) if exchanges else contextlib.nullcontext()
            with before_exchange, explain_out_of_memory(config), autocast(run.precision, device):
                loss = require_loss(run, run.module(on_device)) * share
            with explain_out_of_memory(config):
                torch.autograd.backward(loss / config.optim.grad_accum)
        batches.append(batch)
        shares.append(share)
        losses.append(loss.detach())
    own_loss, own_share = torch.stack([*losses, *shares]).double().view(2, -1).sum(1).tolist()
    loss_sum, share_sum, wishes = sum_of([own_loss, own_share, bool(run.stop.requested)], run.ranks)
    with timer.phase("optimizer"):
        mean_share = share_sum / (config.optim.grad_accum * run.ranks.world_size)
        grad_norm = float(rescale_and_clip(run.policy, mean_share, config.optim.grad_clip))
    require_finite(run, loss_sum, own_loss, grad_norm, batches)
    with timer.phase("optimizer"), explain_out_of_memory(config):
        learning_rate = run.schedule.at(run.step)
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
    return StepOutcome(
        loss=loss_sum / share_sum if share_sum else 0.0,
        grad_norm=grad_norm,
        learning_rate=learning_rate,
        seconds=timer.read(),
        wall_s=time.perf_counter() - began,
        num_samples=run.global_batch_size,
        stop=wishes > 0,
    )

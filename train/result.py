"""The result of a finished run, and the last lines that the run prints."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import click

from vlapipe.train.checkpoint.files import latest_checkpoint
from vlapipe.train.optim.precision import choose_precision
from vlapipe.train.report.metrics import METRICS_FILE, median_ends, read_metrics
from vlapipe.train.report.step_timer import bottleneck
from vlapipe.train.run import Run

__all__ = ["TrainResult", "print_train_result", "summarize"]

_PHASE_NAMES = {
    "data": "waiting for data",
    "h2d": "host-to-device",
    "ranks": "waiting for other ranks",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "optimizer",
}


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The result of a run. Train losses come from metrics.jsonl and include steps before a resume; NaN if unknown."""

    out: Path
    checkpoint: Path | None  # newest checkpoint
    step: int
    max_steps: int
    stopped_by: str  # SIGINT, SIGTERM or "another rank"; empty if the run was not stopped
    first_loss: float  # median of train/loss over the first 5 % of the logged steps
    last_loss: float  # median of train/loss over the last 5 % of the logged steps
    val_loss: float | None  # newest validation loss
    num_new_steps: int  # steps that this process made
    samples_per_s: float | None  # over all ranks, by this rank's time; without the first step; None if no other ran
    num_parameters: int
    device: str
    precision: str
    phase_shares: dict[str, float]  # fraction of the steps' time by phase
    bottleneck: str  # the phase that limits the speed; empty if no step was timed
    rank: int


def summarize(run: Run, *, stopped: bool) -> TrainResult:
    """Wait for the last checkpoint and build the result. Print what limited the speed, and how to continue the run."""
    run.saving.finish()
    totals = run.log.totals
    spent = sum(totals.values())
    phase, share = bottleneck(totals)
    first, last = median_ends(read_metrics(run.config.out / METRICS_FILE) if run.ranks.is_first else [])
    result = TrainResult(
        out=run.config.out,
        checkpoint=latest_checkpoint(run.config.out),
        step=run.step,
        max_steps=run.config.max_steps,
        stopped_by=(run.stop.requested or "another rank") if stopped else "",
        first_loss=first,
        last_loss=last,
        val_loss=run.val_loss,
        num_new_steps=run.step - run.first_step,
        samples_per_s=run.log.num_timed * run.global_batch_size / spent if spent else None,
        num_parameters=run.num_parameters,
        device=str(run.ranks.device),
        precision=run.precision,
        phase_shares={name: seconds / spent for name, seconds in totals.items()} if spent else {},
        bottleneck=phase,
        rank=run.ranks.rank,
    )
    run.console.close()
    if run.compiled is not None and run.compiled.counts.versions:
        run.console.say(f"compiled in all: {run.compiled.counts}")
    if result.phase_shares:
        split = ", ".join(f"{_PHASE_NAMES[name]} {100 * part:.0f} %" for name, part in result.phase_shares.items())
        run.console.say(f"time: {split}")
        run.console.say(f"held back by {_PHASE_NAMES[phase]} ({100 * share:.0f} % of each step): {_advice(phase, run)}")
    if stopped:
        run.console.say(f"stopped by {result.stopped_by} after step {run.step}; the same command with --resume goes on")
    elif not result.num_new_steps:
        run.console.say(f"nothing was left to do after step {run.step}; a larger --max-steps goes on")
    return result


def _advice(phase: str, run: Run) -> str:
    """Returns advice that would shorten ``phase``. It leaves out what the run already uses or the device cannot do."""
    if phase == "data":
        return "raise --num-workers, resize images to less, or put the dataset on a faster disk"
    if phase == "h2d":
        return "resize images to less"
    if phase == "optimizer":
        return "raise --grad-accum, so that the optimizer steps less often"
    on_gpu = run.ranks.device.type == "cuda"
    faster_in_bf16 = run.precision == "fp32" and choose_precision("auto", run.ranks.device)[0] == "bf16"
    ways = ["--precision bf16"] if faster_in_bf16 else []
    ways += ["--compile"] if on_gpu and not run.config.compile else []
    return f"try {', '.join([*ways, 'smaller images', 'more GPUs' if on_gpu else 'a GPU'])}"


def print_train_result(result: TrainResult) -> None:
    """Print the losses, the speed, and the paths of the checkpoint and the metrics."""
    ended = f" (stopped by {result.stopped_by})" if result.stopped_by else ""
    done = f"trained {result.step} of {result.max_steps} steps{ended}"
    if not result.num_new_steps:
        done = f"already trained: {result.step} steps, and --max-steps is {result.max_steps}"
    speed = f", {result.samples_per_s:,.0f} samples/s" if result.samples_per_s is not None else ""
    click.echo(f"{done}: {result.num_parameters:,} parameters, {result.precision} on {result.device}{speed}")
    if not math.isnan(result.first_loss):
        val = f", validation loss {result.val_loss:.3f}" if result.val_loss is not None else ""
        click.echo(f"train loss {result.first_loss:.3f} -> {result.last_loss:.3f}{val}")
    if result.checkpoint is not None:
        click.echo(f"checkpoint {result.checkpoint}, metrics {result.out / METRICS_FILE}")

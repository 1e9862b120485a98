"""The result of a finished run, and the last lines that the run prints."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import click

from vlapipe.pipeline.shards.format.atomic import write_bytes
from vlapipe.train.checkpoint.files import latest_checkpoint
from vlapipe.train.data.prefetch import threads_at_most
from vlapipe.train.optim.precision import choose_precision
from vlapipe.train.report.metrics import METRICS_FILE, median_ends, read_metrics
from vlapipe.train.report.verdict import Setting, Verdict, judge
from vlapipe.train.run import Run
from vlapipe.train.run_files import RESULT_FILE
from vlapipe.train.stopping import explain_surroundings

__all__ = ["TrainResult", "print_train_result", "setting_of", "summarize"]


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
    samples_per_s: float | None  # over all ranks, in the time of the steps without the first; None if no other ran
    num_parameters: int
    device: str
    precision: str
    phase_shares: dict[str, float]  # fraction of the time by phase, with validation, checkpoints and "other"
    bottleneck: str  # what limits the speed: a phase, or "compute"; empty if no step was timed
    possible_gain: float | None  # factor by which the advice could raise the speed
    rank: int


def summarize(run: Run, *, stopped: bool) -> TrainResult:
    """Wait for the last checkpoint and build the result. Print what limited the speed, and how to continue the run."""
    run.saving.finish()
    spent = run.log.spent
    verdict = judge(spent, setting_of(run))
    first, last = median_ends(read_metrics(run.config.out / METRICS_FILE) if run.ranks.is_first else [])
    result = TrainResult(
        out=run.config.out,
        checkpoint=latest_checkpoint(run.config.out),
        step=run.step,
        max_steps=run.config.num_steps,
        stopped_by=(run.stop.requested or "another rank") if stopped else "",
        first_loss=first,
        last_loss=last,
        val_loss=run.val_loss,
        num_new_steps=run.step - run.first_step,
        samples_per_s=spent.num_steps * run.global_batch_size / spent.steps_s if spent.num_steps else None,
        num_parameters=run.num_parameters,
        device=str(run.ranks.device),
        precision=run.precision,
        phase_shares=spent.shares,
        bottleneck=verdict.cause if verdict else "",
        possible_gain=verdict.gain if verdict else None,
        rank=run.ranks.rank,
    )
    if run.ranks.is_first and result.num_new_steps:
        _save(result, verdict)
    run.console.close()
    if run.compiled is not None and run.compiled.counts.versions:
        run.console.say(f"compiled in all: {run.compiled.counts}")
    if verdict is not None:
        run.console.say(verdict.lines[0])
        hint = " (vlapipe bench measures what each gives)" if verdict.cause == "compute" else ""
        run.console.say(verdict.lines[1] + hint)
    if stopped:
        run.console.say(f"stopped by {result.stopped_by} after step {run.step}; the same command with --resume goes on")
    elif not result.num_new_steps:
        run.console.say(f"nothing was left to do after step {run.step}; a larger --max-steps goes on")
    return result


def _save(result: TrainResult, verdict: Verdict | None) -> None:
    """Write what only this process knows of the run to ``result.json``, for ``vlapipe inspect``."""
    kept = ("step", "max_steps", "num_parameters", "device", "precision", "samples_per_s", "phase_shares")
    judged = None if verdict is None else {"cause": verdict.cause, "lines": [*verdict.lines], "gain": verdict.gain}
    document = {name: getattr(result, name) for name in kept} | {"verdict": judged}
    file = result.out / RESULT_FILE
    with explain_surroundings(file):
        write_bytes(file, (json.dumps(document, indent=1) + "\n").encode())


def setting_of(run: Run) -> Setting:
    """Returns what the run uses, so that advice leaves out what is in use already or what the device cannot do."""
    config = run.config
    assert config.eval.eval_every is not None  # TrainConfig fills in the defaults
    assert config.checkpoint.save_every is not None
    return Setting(
        on_gpu=run.ranks.device.type == "cuda",
        compiles=config.compile is not None,
        faster_in_bf16=run.precision == "fp32" and choose_precision("auto", run.ranks.device)[0] == "bf16",
        num_workers=config.data.num_workers,
        most_workers=threads_at_most(),
        grad_accum=config.optim.grad_accum,
        eval_every=config.eval.eval_every,
        save_every=config.checkpoint.save_every,
    )


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

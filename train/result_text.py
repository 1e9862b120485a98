"""Prints how a training run ended, for a person, on stdout."""

from __future__ import annotations

import math

import click

from vlapipe.train.metrics import METRICS_FILE
from vlapipe.train.result import TrainResult

__all__ = ["print_train_result"]


def print_train_result(result: TrainResult) -> None:
    """Print the losses, the speed, and where everything is."""
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

"""Sends metrics to Weights & Biases, or to nowhere: a run never fails for it, and its files stay under OUT."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from vlapipe.pipeline.shards.format.atomic import write_bytes

__all__ = ["WANDB_FOLDER", "WANDB_ID_FILE", "MetricsSink", "NullSink", "open_wandb"]

WANDB_FOLDER = "wandb"  # the name that wandb itself gives it
WANDB_ID_FILE = "wandb_run_id"


class MetricsSink(Protocol):
    """Where a step's values also go."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take a step's values."""

    def close(self) -> None:
        """Send what is left."""


class NullSink:
    """Takes everything and keeps nothing."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Forget them."""

    def close(self) -> None:
        """Nothing is left."""


class _WandbSink:
    def __init__(self, run: Any) -> None:
        self._run = run

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


def open_wandb(mode: str, out: Path, config: Mapping[str, Any], say: Callable[[str], None]) -> MetricsSink:
    """A run in ``online`` or ``offline`` mode, or the null object where W&B is off, not installed or fails to start."""
    if mode == "disabled":
        return NullSink()
    try:
        import wandb
    except ImportError:
        say("wandb is not installed: metrics go to metrics.jsonl only (pip install wandb, or --wandb disabled)")
        return NullSink()
    if mode == "online" and not (os.environ.get("WANDB_API_KEY") or wandb.api.api_key):
        say("wandb: no API key, so this run is kept offline (run 'wandb login', or set WANDB_API_KEY)")
        mode = "offline"
    try:
        run = wandb.init(
            project="vlapipe",
            dir=out,
            id=_run_id(out),
            name=out.name,
            resume="allow",
            mode="online" if mode == "online" else "offline",
            config=dict(config),
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=True, disable_git=True, disable_code=True
            ),
        )
    except (wandb.Error, OSError, TimeoutError) as error:
        say(f"wandb does not start: {' '.join(str(error).split())}; metrics go to metrics.jsonl only")
        return NullSink()
    return _WandbSink(run)


def _run_id(out: Path) -> str:
    """The same for every resume of a run, so that W&B shows one curve."""
    file = out / WANDB_ID_FILE
    if not file.exists():
        write_bytes(file, secrets.token_hex(4).encode())
    return file.read_text().strip()

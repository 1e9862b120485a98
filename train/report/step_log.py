"""Writes the values of each step to metrics.jsonl and W&B, under the same names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.train.report.metrics import MetricsLog
from vlapipe.train.report.wandb_run import MetricsSink, NullSink
from vlapipe.train.stopping import explain_surroundings

__all__ = ["StepLog", "StepOutcome", "cpu_memory_percent", "gpu_memory_gb"]

_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """The result of one step over all ranks. ``seconds`` is this rank's time by phase."""

    loss: float
    grad_norm: float  # before clipping
    learning_rate: float
    seconds: dict[str, float]
    wall_s: float
    num_samples: int
    stop: bool  # whether any rank received a request to stop


@dataclass(kw_only=True)
class StepLog:
    """Shows the progress of a run and writes the run's steps. Only rank 0 has a ``file``."""

    progress: Progress
    device: torch.device
    every: int  # number of steps between two lines
    file: MetricsLog | None = None
    sink: MetricsSink = field(default_factory=NullSink)

    def write(self, step: int, outcome: StepOutcome, val_loss: float | None, *, last: bool) -> None:
        """Write the step's line if it is the ``every``-th step, has a validation loss, or is the last step.

        Raises:
            StoppedError: the disk is full, or a quota is used up.
        """
        self.progress.reach(step, f"loss {outcome.loss:.3f}, {1 / outcome.wall_s:.2f} steps/s")
        if self.file is None or not (last or val_loss is not None or step % self.every == 0):
            return
        values = {
            "train/loss": outcome.loss,
            "train/lr": outcome.learning_rate,
            "train/grad_norm": outcome.grad_norm,
            "train/step": 1 / outcome.wall_s,  # steps per second
            "train/samples_per_s": outcome.num_samples / outcome.wall_s,
            **{f"time/{phase}_s": seconds for phase, seconds in outcome.seconds.items()},
            "system/gpu_mem_GB": gpu_memory_gb(self.device),
            "system/cpu_mem_%": cpu_memory_percent(),
        }
        if val_loss is not None:
            values["val/loss"] = val_loss
        with explain_surroundings(self.file.path):
            self.file.write(step, values)
        self.sink.write(step, values)


def gpu_memory_gb(device: torch.device) -> float:
    """Returns the maximum GPU memory that this process has reserved, in units of 1e9 bytes; 0 on a CPU."""
    return torch.cuda.max_memory_reserved(device) / 1e9 if device.type == "cuda" else 0.0


def cpu_memory_percent() -> float:
    """Returns the machine's used memory in percent, without the page cache; 0 if the system does not report it."""
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        available, total = (float(lines[key].split()[0]) for key in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError, IndexError):
        return 0.0
    return 100.0 * (1 - available / total) if total else 0.0

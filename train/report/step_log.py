"""What is written of each step, under the names that metrics.jsonl and W&B show."""

from __future__ import annotations

from pathlib import Path

import torch

from vlapipe.train.report.metrics import METRICS_FILE
from vlapipe.train.result import StepOutcome
from vlapipe.train.run import Run
from vlapipe.train.stopping import explain_surroundings

__all__ = ["cpu_memory_percent", "gpu_memory_gb", "log_step"]


def log_step(run: Run, outcome: StepOutcome, val_loss: float | None, *, last: bool) -> None:
    """Write the step that was just made, every ``log_every`` steps and whenever there is news; show the progress."""
    run.console.reach(run.step, f"loss {outcome.loss:.3f}, {1 / outcome.wall_s:.2f} steps/s")
    if run.log is None or not (last or val_loss is not None or run.step % run.config.log_every == 0):
        return
    values = {
        "train/loss": outcome.loss,
        "train/lr": outcome.learning_rate,
        "train/grad_norm": outcome.grad_norm,
        "train/step": 1 / outcome.wall_s,  # steps a second
        "train/samples_per_s": outcome.num_samples / outcome.wall_s,
        **{f"time/{phase}_s": seconds for phase, seconds in outcome.seconds.items()},
        "system/gpu_mem_GB": gpu_memory_gb(run.ranks.device),
        "system/cpu_mem_%": cpu_memory_percent(),
    }
    if val_loss is not None:
        values["val/loss"] = val_loss
    with explain_surroundings(run.config.out / METRICS_FILE):
        run.log.write(run.step, values)
    run.sink.write(run.step, values)


_MEMINFO = Path("/proc/meminfo")


def gpu_memory_gb(device: torch.device) -> float:
    """The most that this process has held on the GPU, in 1e9 bytes."""
    return torch.cuda.max_memory_reserved(device) / 1e9 if device.type == "cuda" else 0.0


def cpu_memory_percent() -> float:
    """Share of the machine's memory that is in use, in percent; the page cache, which is given back, is not counted."""
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        available, total = (float(lines[key].split()[0]) for key in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError, IndexError):
        return 0.0
    return 100.0 * (1 - available / total) if total else 0.0

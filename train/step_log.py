"""What is written of each step, under the names that metrics.jsonl and W&B show."""

from __future__ import annotations

from vlapipe.train.memory import cpu_memory_percent, gpu_memory_gb
from vlapipe.train.metrics import METRICS_FILE
from vlapipe.train.result import StepOutcome
from vlapipe.train.run import Run
from vlapipe.train.stopping import explain_surroundings

__all__ = ["log_step"]


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

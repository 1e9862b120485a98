"""Reads the results of steps from the device one step late, and writes them to metrics.jsonl and W&B.

Nothing in a step waits for the device. The values of a step are copied to the host while the next step is launched.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.train.report.metrics import MetricsLog
from vlapipe.train.report.step_timer import PHASES, PhaseTimes
from vlapipe.train.report.wandb_run import MetricsSink, NullSink
from vlapipe.train.stopping import explain_surroundings

__all__ = ["StepLog", "StepOutcome", "StepValues", "cpu_memory_percent", "gpu_memory_gb"]

_MEMINFO = Path("/proc/meminfo")
_NAMES = {"data": "data_wait", "ranks": "ranks_wait"}


@dataclass(frozen=True, kw_only=True)
class StepValues:
    """The values of one step on the host."""

    step: int  # from 1
    loss: float  # over all ranks
    metrics: Mapping[str, float]  # further values of the policy's loss, by their names
    grad_norm: float  # over all ranks, before clipping
    is_bad: bool  # whether a loss or gradient of this step or of an earlier one is not finite
    own_loss: float  # of this rank; NaN also if nothing counts in this rank's batches
    data_position: Mapping[str, int]  # the loader's state before the step


class StepOutcome:
    """The result of one step, which may still be running on the device. Creating it starts the copy to the host."""

    def __init__(
        self,
        *,
        step: int,
        values: Tensor,
        names: Sequence[str],
        learning_rate: float,
        times: PhaseTimes,
        stop: bool,
        data_position: Mapping[str, int],
    ) -> None:
        """``values`` are: norm, is bad, own loss, loss, and a value for each of ``names``; float64."""
        self.step, self.learning_rate, self.times, self.stop = step, learning_rate, times, stop
        self.ended = time.perf_counter()
        self._names, self._data_position = names, data_position
        self._arrived: torch.cuda.Event | None = None
        if values.is_cuda:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.current_stream(values.device).record_event()
        else:
            self._values = values

    def read(self) -> StepValues:
        """Wait until the device has completed the step."""
        if self._arrived is not None:
            self._arrived.synchronize()
        norm, bad, own_loss, loss, *metrics = self._values.tolist()
        return StepValues(
            step=self.step,
            loss=loss,
            metrics=dict(zip((f"train/{name}" for name in self._names), metrics, strict=True)),
            grad_norm=norm,
            is_bad=bool(bad),
            own_loss=own_loss,
            data_position=self._data_position,
        )


@dataclass(kw_only=True)
class StepLog:
    """Shows the progress of a run and writes the run's steps. Only rank 0 has a ``file``."""

    progress: Progress
    device: torch.device
    every: int  # number of steps between two lines
    num_samples: int  # samples of one step over all ranks
    check: Callable[[StepValues], None]  # raises an error for a bad step; all ranks call it for the same steps
    file: MetricsLog | None = None
    sink: MetricsSink = field(default_factory=NullSink)
    totals: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))  # seconds by phase
    newest: Mapping[str, float] = field(default_factory=dict)  # values of the line that was written last
    num_timed: int = 0  # number of steps in ``totals``: all but the first, which builds caches and compiles

    def __post_init__(self) -> None:
        self._unread: list[StepOutcome] = []  # since the last step that was read
        self._due: tuple[StepOutcome, Mapping[str, float]] | None = None  # the step that is read after the next one
        self._is_first = True
        self._read_at = time.perf_counter()
        self._aside: list[tuple[float, float]] = []  # end and seconds of each validation and checkpoint

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the time of the block out of the steps' time: a validation or a checkpoint."""
        began = time.perf_counter()
        yield
        ended = time.perf_counter()
        self._aside.append((ended, ended - began))

    def add(self, outcome: StepOutcome, validated: Mapping[str, float], *, now: bool) -> None:
        """Take over a step. If a line is due, it is written after the next step, or immediately if ``now``.

        Raises:
            VlapipeError: a step had a loss or gradient that is not finite.
            StoppedError: the disk is full, or a quota is used up.
        """
        self._write_due()
        self._unread.append(outcome)
        if now or validated or outcome.step % self.every == 0:
            self._due = outcome, validated
        if now:
            self._write_due()

    def _write_due(self) -> None:
        if self._due is None:
            return
        (outcome, validated), self._due = self._due, None
        values = outcome.read()  # the steps before it are complete as well
        steps, self._unread = self._unread, [step for step in self._unread if step.step > outcome.step]
        steps = steps[: len(steps) - len(self._unread)]
        if values.is_bad:
            self.check(next(found for found in (step.read() for step in steps) if found.is_bad))
        seconds = dict.fromkeys(PHASES, 0.0)
        for step in steps:
            for name, spent in step.times.read().items():
                seconds[name] += spent
                self.totals[name] += 0.0 if self._is_first else spent
            self.num_timed += not self._is_first
            self._is_first = False
        aside_s = sum(seconds for ended, seconds in self._aside if ended <= outcome.ended)
        self._aside = [entry for entry in self._aside if entry[0] > outcome.ended]
        wall_s = max(1e-9, outcome.ended - self._read_at - aside_s)
        self._read_at = outcome.ended
        speed = len(steps) / wall_s
        self.progress.reach(outcome.step, f"loss {values.loss:.3f}, {speed:.2f} steps/s")
        if self.file is None:
            return
        line = {
            "train/loss": values.loss,
            **values.metrics,
            "train/learning_rate": outcome.learning_rate,
            "train/grad_norm": values.grad_norm,
            "train/step": speed,  # steps per second
            "train/samples_per_s": speed * self.num_samples,
            **{f"time/{_NAMES.get(name, name)}_ms": 1e3 * spent / len(steps) for name, spent in seconds.items()},
            "system/gpu_mem_GB": gpu_memory_gb(self.device),
            "system/cpu_mem_%": cpu_memory_percent(),
            **validated,
        }
        self.newest = line
        with explain_surroundings(self.file.path):
            self.file.write(outcome.step, line)
        self.sink.write(outcome.step, line)


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

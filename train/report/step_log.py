"""Reads the results of steps from the device one step late, and writes them to the destinations of a run.

Nothing in a step waits for the device. The values of a step are copied to the host while the next step is launched.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.train.report.outputs import Outputs
from vlapipe.train.report.step_profile import StepProfile
from vlapipe.train.report.step_timer import PHASES, PhaseTimes
from vlapipe.train.report.verdict import TimeSpent

__all__ = ["StepLog", "StepOutcome", "StepValues"]

_NAMES = {"data": "data_wait", "ranks": "ranks_wait"}


@dataclass(frozen=True, kw_only=True)
class StepValues:
    """The values of one step on the host."""

    step: int  # from 1
    loss: float  # over all ranks
    metrics: Mapping[str, float]  # further values, by their names in the log
    grad_norm: float  # over all ranks, before clipping
    is_bad: bool  # whether a loss or gradient of this step or of an earlier one is not finite
    own_loss: float  # of this rank
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
        """``values`` are: norm, is bad, own loss, loss, and a value for each of ``names``, as logged; float64."""
        self.step, self.learning_rate, self.times, self.stop = step, learning_rate, times, stop
        self.ended = time.perf_counter()
        self.wall_s = 0.0  # since the end of the step before, without what ran aside; the log sets it
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
            metrics=dict(zip(self._names, metrics, strict=True)),
            grad_norm=norm,
            is_bad=bool(bad),
            own_loss=own_loss,
            data_position=self._data_position,
        )


@dataclass(kw_only=True)
class StepLog:
    """Shows the progress of a run and writes the run's steps. Only rank 0 has ``outputs``."""

    progress: Progress
    every: int  # number of steps between two lines
    num_samples: int  # samples of one step over all ranks
    check: Callable[[StepValues], None]  # raises an error for a bad step; all ranks call it for the same steps
    peak_share: float | None = None  # part of the GPUs' peak that one sample a second uses
    outputs: Outputs | None = None
    profile: StepProfile | None = None
    newest: Mapping[str, float] = field(default_factory=dict)  # values of the line that was written last
    spent: TimeSpent = field(default_factory=TimeSpent)

    def __post_init__(self) -> None:
        self._unread: list[StepOutcome] = []  # since the last step that was read
        self._due: tuple[StepOutcome, Mapping[str, float]] | None = None  # the step that is read after the next one
        self._is_first = True
        self._ended = time.perf_counter()  # of the newest step
        self._asides: list[tuple[float, float]] = []  # when it began, and how long it took; since the newest step

    @contextlib.contextmanager
    def aside(self, name: str) -> Iterator[None]:
        """Count the time of the block as ``name`` (validation, checkpoints), and not as time of the steps."""
        began = time.perf_counter()
        yield
        spent_s = time.perf_counter() - began
        self._asides.append((began, spent_s))
        self.spent.aside[name] = self.spent.aside.get(name, 0.0) + spent_s

    def add(self, outcome: StepOutcome, validated: Mapping[str, float], *, now: bool) -> None:
        """Take over a step. If a line is due, it is written after the next step, or immediately if ``now``.

        Raises:
            VlapipeError: a step had a loss or gradient that is not finite.
            StoppedError: the disk is full, or a quota is used up.
        """
        outcome.wall_s = self._wall_s(outcome.ended)
        self._write_due()
        self._unread.append(outcome)
        if now or validated or outcome.step % self.every == 0:
            self._due = outcome, validated
        if now:
            self._write_due()
        if self.profile is not None:
            with self.aside("profile"):
                self.profile.after_step(outcome.step)

    def _wall_s(self, ended: float) -> float:
        """Returns the seconds from the end of the step before to ``ended``, without those that ran aside."""
        aside_s = sum(spent_s for began, spent_s in self._asides if began < ended)
        self._asides = [aside for aside in self._asides if aside[0] >= ended]
        wall_s, self._ended = ended - self._ended - aside_s, ended
        return wall_s

    def _write_due(self) -> None:
        if self._due is None:
            return
        (outcome, validated), self._due = self._due, None
        values = outcome.read()  # the steps before it are complete as well
        steps, self._unread = self._unread, [step for step in self._unread if step.step > outcome.step]
        steps = steps[: len(steps) - len(self._unread)]
        if values.is_bad:
            self.check(next(found for found in (step.read() for step in steps) if found.is_bad))
        phases = self._add_times(steps)
        speed = len(steps) / max(1e-9, sum(step.wall_s for step in steps))
        self.progress.reach(outcome.step, f"loss {values.loss:.3f}, {speed:.2f} steps/s")
        if self.outputs is None:
            return
        samples_per_s = speed * self.num_samples
        line = {
            "train/loss": values.loss,
            **values.metrics,
            "train/learning_rate": outcome.learning_rate,
            "train/grad_norm": values.grad_norm,
            "train/step": speed,  # steps per second
            "train/samples_per_s": samples_per_s,
            **({} if self.peak_share is None else {"train/mfu_%": 100 * self.peak_share * samples_per_s}),
            **{f"time/{_NAMES.get(name, name)}_ms": 1e3 * spent / len(steps) for name, spent in phases.items()},
            **validated,
        }
        self.newest = line
        self.outputs.write(outcome.step, line)

    def _add_times(self, steps: Sequence[StepOutcome]) -> dict[str, float]:
        """Returns the seconds of the steps by phase, and adds them to ``spent`` without those of the first step."""
        seconds = dict.fromkeys(PHASES, 0.0)
        for step in steps:
            for name, spent in step.times.read().items():
                seconds[name] += spent
                self.spent.phases[name] += 0.0 if self._is_first else spent
            if not self._is_first:
                self.spent.num_steps += 1
                self.spent.steps_s += step.wall_s
            self._is_first = False
        return seconds

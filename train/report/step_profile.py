"""Traces a few steps with torch's profiler, if asked, into OUT/profile: one file for each rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vlapipe.train.report.step_timer import StepTimer

__all__ = ["PROFILE_FOLDER", "StepProfile"]

PROFILE_FOLDER = "profile"
_SKIPPED = 5  # first steps of the process: they build caches, compile, and find out the number of threads


class StepProfile:
    """Traces ``num_steps`` steps, after the first steps of a process and one more that warms the profiler up."""

    def __init__(
        self,
        out: Path,
        *,
        num_steps: int,
        steps_left: int,
        rank: int,
        timer: StepTimer,
        say: Callable[[str], None],
    ) -> None:
        """Store the arguments; begins to trace if the run has no step to skip. ``steps_left`` is up to the last one."""
        self._folder, self._rank, self._timer, self._say = out / PROFILE_FOLDER, rank, timer, say
        self._num_steps = num_steps
        self._to_skip = min(_SKIPPED, max(0, steps_left - 1 - num_steps))
        self._profiler: Any = None
        self._step, self._num_traced, self._is_done = 0, -1, False  # the first step with the profiler warms it up
        self._begin_if_due()

    def after_step(self, step: int) -> None:
        """Begin, go on or end, after the step of this number."""
        if self._is_done:
            return
        self._step = step
        if self._profiler is not None:
            self._num_traced += 1
            self._profiler.step()
        else:
            self._to_skip -= 1
            self._begin_if_due()

    def close(self) -> None:
        """Write the steps that were traced if the run ends early."""
        if self._is_done:
            return
        if self._profiler is not None:
            self._profiler.stop()  # writes what was traced
        if not self._is_done:
            self._end("the run ended before a step could be traced")

    def _begin_if_due(self) -> None:
        if self._to_skip > 0:
            return
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(
            activities=activities,
            schedule=torch.profiler.schedule(wait=0, warmup=1, active=self._num_steps, repeat=1),
            on_trace_ready=self._write,
            record_shapes=True,
        )
        self._timer.names_in_trace = True
        self._profiler.start()

    def _write(self, profiler: Any) -> None:
        if self._num_traced < 1:
            return
        file = self._folder / f"step-{self._step:08d}-rank-{self._rank}.json.gz"
        try:
            self._folder.mkdir(exist_ok=True)
            profiler.export_chrome_trace(str(file))
        except OSError as error:
            self._end(f"{file} cannot be written: {error.strerror}")
        else:
            self._end(
                f"the {self._num_traced} steps up to {self._step} are in {file}; open it in https://ui.perfetto.dev"
            )

    def _end(self, text: str) -> None:
        self._timer.names_in_trace, self._is_done = False, True
        self._say(f"profile: {text}")

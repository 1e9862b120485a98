"""Measures this machine with a dataset and a policy: the loader alone, the policy alone, and both together.

The steps are those of a training run. They go into a temporary folder, which is removed at the end.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.train.build import build
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.data.prefetch import threads_at_most
from vlapipe.train.loop import train_step
from vlapipe.train.report.step_log import StepLog
from vlapipe.train.report.verdict import TimeSpent, judge, milliseconds
from vlapipe.train.result import setting_of
from vlapipe.train.run import Run

__all__ = ["BenchResult", "bench"]

_IN_MEMORY = 4  # batches that the policy sees again and again
_WARM_UP_STEPS = 3
_ENOUGH = 0.95  # of the fastest loader: the fewest threads that reach this much are taken
_TIME_IS_UP = "the time of the measurement is up"


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """Speeds in samples per second over all ranks, and where the time of a step went."""

    loader: dict[int, float]  # alone, by number of threads; this rank's, times the ranks
    num_workers: int  # threads beside the policy: the fewest that are about as fast as any
    policy: float  # alone, on batches in memory
    together: float
    policy_ms: dict[str, float]  # of a step of the policy alone, by phase
    data_share: float  # of the time together: waiting for data
    limit: str  # "data" or "compute": which of them alone is slower
    mfu: float | None  # model FLOPs utilisation of the policy alone; None if unknown
    samples_a_step: int
    num_parameters: int
    device: str
    precision: str
    num_ranks: int
    num_threads: int  # of torch on a CPU
    is_settled: bool  # False: shards were still being unpacked, so the loader was slower than it will be
    advice: str  # what to try, with the number that it would gain
    rank: int

    @property
    def headroom(self) -> float:
        """How many times as fast the faster one of loader and policy is."""
        slower, faster = sorted((self.loader[self.num_workers], self.policy))
        return faster / slower

    def to_json(self) -> dict[str, Any]:
        """Returns the result as JSON values."""
        return asdict(self) | {"headroom": self.headroom}

    def lines(self) -> list[str]:
        """Returns three lines of figures, and the verdict."""
        threads = ", ".join(f"{speed:,.0f} with {_threads(n)}" for n, speed in self.loader.items())
        phases = ", ".join(f"{name} {milliseconds(ms / 1e3)}" for name, ms in self.policy_ms.items())
        mfu = f"; MFU {100 * self.mfu:.0f} %" if self.mfu is not None else ""
        lines = [
            f"loader alone:   {threads} samples/s",
            f"policy alone:   {self.policy:,.0f} samples/s ({phases} a step of {self.samples_a_step} samples{mfu})",
            f"both together:  {self.together:,.0f} samples/s with {_threads(self.num_workers)}; "
            f"waiting for data {100 * self.data_share:.0f} % of the time",
        ]
        if self.limit == "data":
            lines.append(f"data is the limit: the policy takes {self.headroom:.1f} times what the loader makes")
        else:
            lines.append(f"compute is the limit: the loader makes {self.headroom:.1f} times what the policy takes")
        slower = min(self.policy, self.loader[self.num_workers])
        if self.device == "cpu" and self.together < 0.9 * slower:
            share = f"{100 * self.together / slower:.0f} % of the slower one"
            lines.append(f"together they reach {share}, because both compute on the same cores")
        lines.append(self.advice)
        if not self.is_settled:
            lines.append("shards were still being unpacked into the cache; a second measurement is faster")
        return lines


def bench(file: Path | None, flags: Mapping[str, Any], *, seconds: float) -> BenchResult:
    """Measure for about ``seconds`` each, with the options of a training run from ``file`` and ``flags``.

    Raises:
        VlapipeError: a run cannot be built with these options.
    """
    with tempfile.TemporaryDirectory(prefix="vlapipe-bench-") as folder:
        quiet = {"out": Path(folder) / "run", "resume": False, "wandb": "disabled", "tensorboard": False, "profile": 0}
        with build(TrainConfig.from_sources(file, {**flags, **quiet})) as run:
            return _measure(run, seconds)


def _measure(run: Run, seconds: float) -> BenchResult:
    together, loader, say = run.batches, run.loader, run.console.say
    say(f"measuring for {3 * seconds:.0f} s, and a little more to warm up")
    in_memory = _fill_cache(run, seconds)
    speeds = _loader_speeds(run, seconds)
    loader.num_workers = next(n for n, speed in speeds.items() if speed >= _ENOUGH * max(speeds.values()))
    run.batches = cycle(in_memory)
    _step_for(run, seconds / 4, least=1, most=_WARM_UP_STEPS)
    alone = _step_for(run, seconds)
    run.batches = together
    # Threads make several small batches at once: a mean over fewer than all of them would depend on where it begins.
    least = 1 + loader.num_ahead
    _step_for(run, seconds / 4, least=least)  # uses up the batches that were made before the steps began
    both = _step_for(run, seconds, least=least)
    policy, together_speed = (spent.num_steps * run.global_batch_size / spent.steps_s for spent in (alone, both))
    verdict = judge(both, setting_of(run))
    assert verdict is not None
    run.console.close()
    return BenchResult(
        loader=speeds,
        num_workers=loader.num_workers,
        policy=policy,
        together=together_speed,
        policy_ms={n: 1e3 * alone.phases[n] / alone.num_steps for n in ("forward", "backward", "optimizer")},
        data_share=both.shares["data"] + both.shares["ranks"],
        limit="data" if speeds[loader.num_workers] < policy else "compute",
        mfu=None if run.log.peak_share is None else run.log.peak_share * policy,
        samples_a_step=run.global_batch_size,
        num_parameters=run.num_parameters,
        device=str(run.ranks.device),
        precision=run.precision,
        num_ranks=run.ranks.world_size,
        num_threads=torch.get_num_threads(),
        is_settled=loader.is_settled,
        advice=verdict.lines[1],
        rank=run.ranks.rank,
    )


def _fill_cache(run: Run, seconds: float) -> list[Batch]:
    """Read until no shard is being unpacked, for ``seconds`` at most. Returns a few batches that stay in memory."""
    with contextlib.closing(iter(run.loader)) as batches:  # type: ignore[type-var]
        kept = list(islice(batches, _IN_MEMORY))
        _for(seconds, run, partial(next, batches), until=lambda: run.loader.is_settled)
    return kept


def _loader_speeds(run: Run, seconds: float) -> dict[int, float]:
    """Returns the samples per second of the loader alone by number of threads: as chosen, or 1, 2, 4 and so on."""
    chosen, most = run.loader.num_workers, threads_at_most()
    counts = [chosen] if chosen is not None else [*(2**k for k in range(most.bit_length()) if 2**k < most), most]
    speeds = {}
    for num_workers in counts:
        run.loader.num_workers = num_workers
        with contextlib.closing(iter(run.loader)) as batches:  # type: ignore[type-var]
            _for(seconds / len(counts) / 4, run, partial(next, batches))
            count, spent_s = _for(
                seconds / len(counts) * 3 / 4, run, partial(next, batches), least=run.loader.num_ahead
            )
        speeds[num_workers] = count * run.config.data.batch_size * run.ranks.world_size / spent_s
    return speeds


def _for(
    seconds: float,
    run: Run,
    take: Callable[[], object],
    *,
    least: int = 1,
    until: Callable[[], bool] = lambda: False,
) -> tuple[int, float]:
    """Call ``take`` for ``seconds``, at least ``least`` times. Returns the number of calls, and the seconds of them."""
    began, count = time.perf_counter(), 0
    while count < least or (time.perf_counter() - began < seconds and not until()):
        take()
        count += 1
        _stop_if_asked(run)
    if run.ranks.device.type == "cuda":
        torch.cuda.synchronize(run.ranks.device)
    return count, time.perf_counter() - began


def _step_for(run: Run, seconds: float, *, least: int = 2, most: float = math.inf) -> TimeSpent:
    """Make steps of training for ``seconds``, as the training loop does. The first one is not counted."""
    log = StepLog(
        progress=Progress("bench", 1, "step", silent=True),
        every=1,
        num_samples=run.global_batch_size,
        check=lambda _: None,  # weights that see four batches again and again say nothing
    )
    began, num_steps, is_over = time.perf_counter(), 0, False
    while not is_over:
        outcome = train_step(run)
        run.step, num_steps = run.step + 1, num_steps + 1
        # Ranks agree in the next step that the time of one of them is up.
        if num_steps >= most or (num_steps >= least and time.perf_counter() - began > seconds):
            run.stop.requested = run.stop.requested or _TIME_IS_UP
        is_over = run.stops_after(outcome)
        log.add(outcome, {}, now=is_over)
    _stop_if_asked(run)
    run.stop.requested = ""
    return log.spent


def _stop_if_asked(run: Run) -> None:
    if run.stop.requested not in ("", _TIME_IS_UP):
        raise KeyboardInterrupt


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"

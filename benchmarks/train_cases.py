"""What the benchmarks of the trainer share: the machine, the demo as a dataset, runs to measure, and turns."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from machine import machine, rounded

from vlapipe.pipeline.demo import make_demo
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.train.build import build
from vlapipe.train.config import TrainConfig
from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.loop import train_step
from vlapipe.train.run import Run

__all__ = [
    "DEVICE",
    "POLICIES",
    "Line",
    "demo_dataset",
    "medians",
    "one_step",
    "open_run",
    "ratio",
    "report",
    "settle",
]

Line = dict[str, Any]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Arguments of the regression policy, by its millions of parameters.
POLICIES: dict[int, Line] = {
    1: {"dim": 104},
    20: {"dim": 384, "depth": 9, "num_heads": 6, "image_width": 48},
    150: {"dim": 1024, "depth": 11, "num_heads": 16, "image_width": 64},
}


def report(bench: str, case: str, line: Line, out: Path | None) -> None:
    """Print a figure as one JSON line, with the machine, the commit and the load; also append it to ``out``."""
    gpu = {"gpu": torch.cuda.get_device_name()} if DEVICE.type == "cuda" else {}
    about = {**gpu, **machine(), "torch": torch.__version__, "load_before": round(os.getloadavg()[0], 1)}
    values = {key: rounded(value) for key, value in line.items()}
    text = json.dumps({"bench": bench, "case": case, **values, "device": DEVICE.type, **about})
    print(text, flush=True)
    if out:
        with out.open("a") as file:
            file.write(text + "\n")


def demo_dataset(folder: Path, num_episodes: int) -> Path:
    """Return the dataset of the demo: two cameras of 640x480, states and sensors. Keeps it for the next call."""
    raw, out = folder / f"demo-{num_episodes}", folder / f"data-{num_episodes}"
    if not (out / "manifest.json").exists():
        if not raw.exists():
            make_demo(raw, num_episodes=num_episodes)
        ingest(IngestConfig(source=raw, out=out))
    return out


@contextlib.contextmanager
def open_run(dataset: Path, **options: Any) -> Iterator[Run]:
    """Yield a run on ``dataset`` in a folder of its own, with nothing in its steps but what training needs."""
    never = 10**9
    common = {"wandb": "disabled", "eval_every": never, "save_every": never, "max_steps": never}
    with tempfile.TemporaryDirectory(prefix="bench-train-") as out:
        config = TrainConfig.of(data=dataset, out=Path(out) / "run", **(common | options))
        with build(config) as run:
            yield run


def one_step(run: Run) -> None:
    """Make one step as ``train`` does, and log it."""
    outcome = train_step(run)
    run.step += 1
    run.stops_after(outcome)
    run.log.add(outcome, {}, now=False)


def in_memory(run: Run, count: int = 4) -> Iterator[Batch]:
    """Give the run ``count`` batches on its device, over and over. Returns another iterator over the same ones."""
    from vlapipe.train.data.device_copy import to_device

    batches = [to_device(next(run.batches), run.ranks.device) for _ in range(count)]
    run.batches = itertools.cycle(batches)
    return itertools.cycle(batches)


def settle() -> None:
    """Wait until the device has done everything."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def medians(
    ways: dict[str, Callable[[], object]], *, turns: int, calls: int = 1, skip: int = 0
) -> dict[str, list[float]]:
    """Call each way ``calls`` times in each of ``turns`` turns, after ``skip`` calls that do not count.

    Returns seconds a call by way, one number a turn, with the processor's seconds of this thread as ``<way> cpu``.
    """
    took: dict[str, list[float]] = {key: [] for way in ways for key in (way, f"{way} cpu")}
    for _ in range(turns):
        for name, way in ways.items():
            for _ in range(skip):
                way()
            settle()
            began, began_cpu = time.perf_counter(), time.thread_time()
            for _ in range(calls):
                way()
            settle()
            took[name].append((time.perf_counter() - began) / calls)
            took[f"{name} cpu"].append((time.thread_time() - began_cpu) / calls)
    return took


def ratio(took: dict[str, list[float]], ours: str, baseline: str) -> float:
    """Return the median of the turns' ratios."""
    return statistics.median(a / b for a, b in zip(took[ours], took[baseline], strict=True))

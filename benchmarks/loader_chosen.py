"""Measures samples that are chosen when training: from several tables, and other fields, chunks and forms."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from loader_data import ONE_TABLE, ROBOT, THREE_TABLES, make_episodes, write_dataset
from loader_timing import Line, Settings, line, measure, warm_rate
from loader_windows import BATCH, STATE_ROWS

import vlapipe
from vlapipe import Window

__all__ = ["bench_chosen"]

LEAST_SHARE = 0.9  # of one table's speed
MOST_S = 5.0  # from opening the dataset to the first batch of a sample that nobody chose before
CHOICES = {
    "other fields": Window(state=["robot/tcp_pose"], state_rows=50),
    "chunk of 50 instead of 8": Window(action_rows=50, action_stride=1),
    "relative actions": Window(
        state_rows=1, action={"kind": "absolute", "append": {}}, action_form="relative", action_rows=50, action_stride=1
    ),
    "windows in seconds": Window(state_s=1.0, state_rows=20, action_s=0.8, action_rows=8),
}


def bench_chosen(settings: Settings) -> Iterator[Line]:
    """Measure three tables against one, the first batch of a new choice, and windows in seconds against rows."""
    torch.set_num_threads(1)
    rows = int(STATE_ROWS * settings.scale)
    tables = {}
    for name, toml in (("one", ONE_TABLE), ("three", THREE_TABLES)):
        path = write_dataset(settings.folder / f"{name}-{rows}", toml, make_episodes(toml, rows))
        tables[name] = vlapipe.open_dataset(path)
    ways = {name: _rate(dataset, None, settings) for name, dataset in tables.items()}
    about = {"batch_size": BATCH, "unit": "samples/s", "state_bytes": rows * 48}
    rates = measure(ways, settings.repeat)
    yield {"against": "state and action from one table", **about, **line(rates, "three", "one", LEAST_SHARE)}
    del ways
    dataset = vlapipe.open_dataset(write_dataset(settings.folder / f"state-{rows}", ROBOT, make_episodes(ROBOT, rows)))
    for what, window in CHOICES.items():
        seconds = [_first_batch_s(dataset, window, settings) for _ in range(min(3, settings.repeat))]
        value = statistics.median(seconds)
        yield {
            "against": f"5 s to the first batch, {what}",
            "unit": "s",
            "state_bytes": rows * 48,
            "ours": value,
            "baseline": MOST_S,
            "ratio": MOST_S / value,
            "target": 1.0,
            "met": value <= MOST_S,
        }
    by_time = _rate(dataset, CHOICES["windows in seconds"], settings)
    by_row = _rate(dataset, Window(state_rows=20, state_stride=5, action_rows=8, action_stride=10), settings)
    rates = measure({"seconds": by_time, "rows": by_row}, settings.repeat)
    yield {"against": "the same windows in rows", **about, **line(rates, "seconds", "rows", 0.0)}


def _rate(dataset: vlapipe.Dataset, window: Window | None, settings: Settings) -> Callable[[], float]:
    loader = vlapipe.Loader(dataset, window=window, batch_size=BATCH, num_workers=0, endless=True)
    for shard in range(len(dataset.manifest.shards)):
        loader.dataset.sample_arrays(shard)  # unpacks it
    return warm_rate(iter(loader), BATCH, settings.seconds, warm_s=6 * settings.seconds)


def _first_batch_s(dataset: vlapipe.Dataset, window: Window, settings: Settings) -> float:
    """Return the seconds from opening the dataset to the first batch. Nothing of the choice is unpacked yet."""
    cache = settings.folder / "chosen-cache"
    shutil.rmtree(cache, ignore_errors=True)
    started = time.perf_counter()
    opened = vlapipe.open_dataset(dataset.path, cache_dir=cache)
    batches = iter(vlapipe.Loader(opened, window=window, batch_size=BATCH, num_workers=2))
    next(batches)
    took = time.perf_counter() - started
    del batches, opened
    return took

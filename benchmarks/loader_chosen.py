"""Measures samples that are chosen when training: from several tables, and other fields, chunks and forms."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Iterator

import torch
from loader_data import ONE_TABLE, ROBOT, THREE_TABLES, make_episodes, write_dataset
from loader_probe import CHOICES
from loader_start import probe
from loader_timing import Line, Settings, line, measure, warm_rate
from loader_windows import BATCH, STATE_ROWS

import vlapipe
from vlapipe import Window

__all__ = ["bench_chosen"]

LEAST_SHARE = 0.9  # of one table's speed
MOST_S = 5.0  # from opening the dataset to the first batch of a sample that nobody chose before


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
    for what in CHOICES:
        cache = settings.folder / "chosen-cache"
        seconds = []
        for _ in range(min(3, settings.repeat)):
            shutil.rmtree(cache, ignore_errors=True)  # nothing of the choice is unpacked yet
            seconds.append(probe("chosen", dataset.path, cache, what)["seconds"])
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

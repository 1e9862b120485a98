"""Measures the two ways of copying rows side by side: the gather over addresses, and the plain strided copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from loader_data import ROBOT, make_episodes, write_dataset
from loader_images import BATCH as IMAGE_BATCH
from loader_images import EPISODES, RAW_EPISODES, THREADS, rate_of, stored
from loader_timing import Line, Settings, line, measure, warm_rate
from loader_windows import BATCH, LARGE_BATCH, STATE_ROWS, sensor_dataset, state_dataset

import vlapipe
from vlapipe.train.data import batch_maker
from vlapipe.train.data.rows.row_reader import StridedRows

__all__ = ["bench_rows"]

SMALL_SHARD_BYTES = 6_000_000  # spreads the states over about 200 shards, as 50 GB of data would be
EARNED = 1.2  # the ratio that the fast way must reach to be the default


def bench_rows(settings: Settings) -> Iterator[Line]:
    """Measure the fast way against the plain one: states in few and in many shards, a sensor, and images."""
    torch.set_num_threads(1)
    few, many = state_dataset(settings), many_shards(settings)
    for dataset, batch_size in [(few, BATCH), (few, LARGE_BATCH), (many, BATCH), (many, LARGE_BATCH)]:
        yield compared("states", dataset, settings, EARNED, batch_size=batch_size)
    yield compared("states and a wide sensor", sensor_dataset(settings), settings, 0.95, batch_size=BATCH)
    for storage, episodes in (("raw", RAW_EPISODES), ("jpeg", EPISODES)):
        dataset = stored(settings, storage, episodes, "--image-storage", storage)
        yield compared(f"states and {storage} images", dataset, settings, 0.95, batch_size=IMAGE_BATCH, threads=THREADS)


def many_shards(settings: Settings) -> vlapipe.Dataset:
    """Return the states of ``state_dataset`` in small shards."""
    rows = int(STATE_ROWS * settings.scale)
    folder = settings.folder / f"state-many-{rows}"
    episodes = make_episodes(ROBOT, rows)
    return vlapipe.open_dataset(write_dataset(folder, ROBOT, episodes, shard_bytes=SMALL_SHARD_BYTES))


def compared(
    what: str, dataset: vlapipe.Dataset, settings: Settings, target: float, *, batch_size: int, threads: int = 0
) -> Line:
    """Measure samples per second of both ways, in turns."""

    def rate() -> Callable[[], float]:
        loader = vlapipe.Loader(dataset, batch_size=batch_size, num_workers=threads, endless=True)
        stream: Iterator[Any] = iter(loader)
        if threads:
            return rate_of(stream, settings)
        return warm_rate(stream, batch_size, settings.seconds, warm_s=4 * settings.seconds)

    fast, chosen = rate(), batch_maker.choose_reader
    batch_maker.choose_reader = StridedRows
    try:
        plain = rate()
    finally:
        batch_maker.choose_reader = chosen
    rates = measure({"fast": fast, "plain": plain}, settings.repeat)
    about = {"rows": what, "batch_size": batch_size, "threads": threads or 1, "shards": len(dataset.manifest.shards)}
    return {"against": "the plain way", **about, "unit": "samples/s", **line(rates, "fast", "plain", target)}

"""Measures windows of states and of a sensor, gathered on one thread, against other ways to read the same windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader_data import ROBOT, ROBOT_AND_SENSOR, make_episodes, write_dataset
from loader_hdf5 import hdf5_ways, write_hdf5
from loader_peers import NUM_FRAMES, Way, Windows, bare_ways, streams, whole_ways
from loader_timing import Line, Settings, best_of, line, measure, memcpy, nbytes, warm_rate

import vlapipe

__all__ = ["bench_hdf5", "bench_sensor", "bench_state"]

STATE_ROWS = 24_000_000  # rows of 12 float32: 1.15 GB
SENSOR_ROWS = 45_000  # rows of the robot; the sensor's 290,000 rows of 1026 float32 are 1.2 GB
ORIGINAL_WINDOWS = 200  # windows of an episode's file in the original format: 53 MB
BATCH, LARGE_BATCH = 64, 1024
SKIP = 16  # batches that a DataLoader's workers prepared while others were measured


def state_dataset(settings: Settings) -> vlapipe.Dataset:
    """Return a dataset of states and the actions derived from them."""
    rows = int(STATE_ROWS * settings.scale)
    folder = settings.folder / f"state-{rows}"
    return vlapipe.open_dataset(write_dataset(folder, ROBOT, make_episodes(ROBOT, rows)))


def sensor_dataset(settings: Settings) -> vlapipe.Dataset:
    """Return the same dataset with a sensor of 1026 columns at 650 Hz."""
    rows = int(SENSOR_ROWS * max(settings.scale, 0.05))
    folder = settings.folder / f"sensor-{rows}"
    return vlapipe.open_dataset(write_dataset(folder, ROBOT_AND_SENSOR, make_episodes(ROBOT_AND_SENSOR, rows)))


def ours(dataset: vlapipe.Dataset, batch_size: int, settings: Settings) -> tuple[Callable[[], float], int]:
    """Measure samples per second of the loader without threads of its own. Also returns the bytes of one sample."""
    batches = iter(vlapipe.Loader(dataset, batch_size=batch_size, num_workers=0, endless=True))
    size = nbytes(next(batches)) // batch_size
    # Long enough to touch every page of the maps.
    return warm_rate(batches, batch_size, settings.seconds, warm_s=6 * settings.seconds), size


def fastest(ways: dict[str, Way], settings: Settings) -> tuple[str, Callable[[], float], dict[str, float]]:
    """Return the fastest way and number of workers: its name, its measure, and the rates of all of them."""
    candidates = {
        name: warm_rate(batches, BATCH, settings.seconds, warm_s=2 * settings.seconds, skip=SKIP)
        for name, batches in streams(ways, NUM_FRAMES, BATCH).items()
    }
    best, rates = best_of(candidates)
    return best, candidates[best], {name: round(rate) for name, rate in rates.items()}


def bench_state(settings: Settings) -> Iterator[Line]:
    """Measure state windows against a DataLoader over arrays in memory, and at a large batch size against memcpy."""
    torch.set_num_threads(1)
    dataset = state_dataset(settings)
    windows = Windows.of(dataset)
    size = {"state_bytes": windows.state.nbytes, "unit": "samples/s"}
    whole = whole_ways(windows)
    baselines = {
        "whole samples in RAM, PyTorch's collate": {"default collate": whole["default collate"]},
        "whole samples in RAM, the leanest collate": {"numpy": whole["numpy"]},
        "bare slices in RAM": bare_ways(windows),
    }
    for what, ways in baselines.items():
        way, theirs, tried = fastest(ways, settings)
        mine, _ = ours(dataset, BATCH, settings)
        rates = measure({"ours": mine, "theirs": theirs}, settings.repeat)
        yield {
            "against": what,
            "batch_size": BATCH,
            **size,
            **line(rates, "ours", "theirs", 6.0),
            "baseline_way": way,
            "ways": tried,
        }
    del windows, theirs
    yield {"batch_size": LARGE_BATCH, **size, **against_memcpy(dataset, LARGE_BATCH, 0.6, settings)}


def against_memcpy(dataset: vlapipe.Dataset, batch_size: int, target: float, settings: Settings) -> Line:
    """Measure the bytes per second of batches against ``np.copyto``, both on one thread."""
    mine, sample_bytes = ours(dataset, batch_size, settings)
    rates = measure({"ours": lambda: mine() * sample_bytes, "memcpy": memcpy(settings)}, settings.repeat)
    result = {"against": "memcpy", **line(rates, "ours", "memcpy", target), "unit": "bytes/s"}
    return {**result, "samples_s": result["ours"] / sample_bytes, "sample_bytes": sample_bytes}


def bench_hdf5(settings: Settings) -> Iterator[Line]:
    """Measure state windows against HDF5."""
    torch.set_num_threads(1)
    dataset = state_dataset(settings)
    windows = Windows.of(dataset)
    path = write_hdf5(settings.folder / f"state-{len(windows.state)}.h5", windows)
    num_bytes = windows.state.nbytes
    way, theirs, tried = fastest(hdf5_ways(path, windows), settings)
    mine, _ = ours(dataset, BATCH, settings)
    rates = measure({"ours": mine, "theirs": theirs}, settings.repeat)
    yield {
        "against": "HDF5",
        "batch_size": BATCH,
        "state_bytes": num_bytes,
        "unit": "samples/s",
        **line(rates, "ours", "theirs", 10.0),
        "baseline_way": way,
        "ways": tried,
    }


def bench_sensor(settings: Settings) -> Iterator[Line]:
    """Measure sensor windows against the original's way and against memcpy."""
    torch.set_num_threads(1)
    dataset = sensor_dataset(settings)
    path = original_file(settings)
    mine, sample_bytes = ours(dataset, BATCH, settings)
    original = warm_rate(original_windows(path), 1, settings.seconds)
    rates = measure({"ours": mine, "original": original}, settings.repeat)
    yield {
        "against": "the original's np.load",
        "batch_size": BATCH,
        "unit": "samples/s",
        "file_bytes": path.stat().st_size,
        "sample_bytes": sample_bytes,
        **line(rates, "ours", "original", 500.0),
    }
    yield {"batch_size": BATCH, **against_memcpy(dataset, BATCH, 0.7, settings)}


def original_file(settings: Settings) -> Path:
    """Write one episode's sensor windows in the original format, uncompressed, which reads fastest."""
    path = settings.folder / f"windows-{ORIGINAL_WINDOWS}.npz"
    if not path.exists():
        values = np.random.default_rng(0).integers(0, 4096, (ORIGINAL_WINDOWS, 65, 1026), dtype=np.int16)
        data = (values / np.float32(4096)).astype(np.float32)
        np.savez(path, data=data, timestamps=np.arange(ORIGINAL_WINDOWS, dtype=np.float64))
    return path


def original_windows(path: Path) -> Iterator[Any]:
    """Yield one window at a time, read as the original reads it: NumPy ignores the ``mmap_mode`` for an ``.npz``."""
    rng = np.random.default_rng(1)
    while True:
        yield torch.from_numpy(np.load(path, mmap_mode="r")["data"][int(rng.integers(ORIGINAL_WINDOWS))])

"""The cost of a batch, counted in calls and copies: neither may grow with the number of samples in the batch."""

from __future__ import annotations

import re
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from types import FrameType
from typing import Any

import pytest
from factories import make_episode

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.registry import load_schema
from vlapipe.train.data.loader import Batch, Loader
from vlapipe.train.data.window_size import Window

# Short enough that few frames of a short episode lack history.
WINDOW = Window(state_rows=8, sensor_rows=20, action_rows=4, action_stride=2)
SHORTEST = Window(state_rows=1, sensor_rows=1, action_rows=1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Windows of states and sensors, from two shards; decoding images costs calls an image by its nature."""
    root = tmp_path_factory.mktemp("cost")
    for i in range(4):
        make_episode(root / "raw" / "task" / f"episode_{i}", num_rows=300, seed=i, cameras=())
    schema = root / "no_cameras.toml"
    schema.write_text(re.sub(r"\[streams\.camera\].*?(?=\[action\])", "", load_schema("meca500").toml, flags=re.S))
    config = IngestConfig(source=root / "raw", out=root / "data", schema=str(schema), shard_bytes=10_000_000)
    assert ingest(config).num_shards > 1
    return vlapipe.open_dataset(root / "data")


def running(dataset: Dataset, window: Window, batch_size: int, **options: Any) -> Iterator[Batch]:
    """Batches once shards are open and the memory of batches is there."""
    batches = iter(Loader(dataset, window=window, batch_size=batch_size, num_workers=0, endless=True, **options))
    for _ in range(4):
        next(batches)
    return batches


def calls_of(batches: Iterator[Batch], count: int) -> Counter[str]:
    """Calls of Python functions, and of C functions by Python code, that ``count`` batches take, by name."""
    calls: Counter[str] = Counter()

    def on_event(frame: FrameType, event: str, called: Any) -> None:
        if event == "call":
            calls[frame.f_code.co_qualname] += 1
        elif event == "c_call":
            calls[getattr(called, "__qualname__", repr(called))] += 1

    before = sys.getprofile()
    sys.setprofile(on_event)
    try:
        for _ in islice(batches, count):
            pass
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize("options", [{}, {"shuffle": False}], ids=["shuffled", "in order"])
def test_a_batch_twice_as_large_takes_hardly_more_calls(dataset: Dataset, options: dict[str, Any]) -> None:
    # Large batches, so that each is planned and made by itself.
    once, twice = (calls_of(running(dataset, SHORTEST, size, **options), 4) for size in (8192, 16384))
    # The order walks on, in whole arrays, for as long as one of the batch's frames needs: now and then a step more.
    assert twice.total() < 1.25 * once.total(), (twice - once).most_common(5)


@pytest.mark.parametrize("batch_size", [256, 2048])
def test_windows_are_copied_once_straight_into_the_batch(dataset: Dataset, batch_size: int) -> None:
    batches = running(dataset, WINDOW, batch_size)
    tracemalloc.start()
    try:
        batch = next(batches)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    values = [value for value in batch.values() if not isinstance(value, list)]
    num_bytes = sum(value.numel() * value.element_size() for value in values)
    # Where windows lie, and those that lack history, which are put together apart.
    assert peak < 0.1 * num_bytes, f"{peak} bytes were held beside a batch of {num_bytes}"

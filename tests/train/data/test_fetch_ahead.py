"""Batches from a store are those from a disk; shards come ahead of the batches, in their order, within a limit."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.stores.store import Store
from vlapipe.schemas.errors import DamageError
from vlapipe.schemas.paths import Address, dataset_path
from vlapipe.train.data.fetch_ahead import FetchAhead
from vlapipe.train.data.loader import Loader

SHARD = 300_000


@pytest.fixture
def in_store(s3: str, tiny_raw: Path) -> str:
    ingest(IngestConfig(source=tiny_raw, out=dataset_path(s3), shard_bytes=SHARD))
    return s3


def digests(dataset: Dataset, count: int, **options: Any) -> list[str]:
    found = []
    with Loader(dataset, batch_size=4, seed=3, **options) as loader:
        batches = iter(loader)
        for _, batch in zip(range(count), batches, strict=False):
            tensors = [batch[key].contiguous().numpy().tobytes() for key in sorted(batch) if key != "task"]
            found.append(hashlib.sha256(b"".join(tensors)).hexdigest())
        batches.close()  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("options", [{}, {"shuffle_shards": 1}, {"shuffle": False}, {"num_workers": 0}])
def test_batches_are_those_from_a_disk(options: dict[str, Any], in_store: str, tiny_raw: Path, tmp_path: Path) -> None:
    ingest(IngestConfig(source=tiny_raw, out=tmp_path / "disk", shard_bytes=SHARD))
    expected = digests(vlapipe.open_dataset(tmp_path / "disk"), 12, endless=True, **options)
    for _ in ("fetched", "from the cache"):
        assert digests(vlapipe.open_dataset(in_store), 12, endless=True, **options) == expected
    small = vlapipe.open_dataset(in_store, cache_dir=tmp_path / "small", cache_bytes=SHARD)
    with pytest.warns(UserWarning, match="more than --cache-size allows"):
        assert digests(small, 12, endless=True, **options) == expected


def test_threads_end_with_the_iteration(in_store: str, new_threads: Callable[[str], list[threading.Thread]]) -> None:
    digests(vlapipe.open_dataset(in_store), 1, endless=True)
    assert not new_threads("vlapipe-fetching")


def test_damaged_shard_is_told_by_the_batch_that_needs_it(in_store: str) -> None:
    address = dataset_path(in_store)
    assert isinstance(address, Address)
    dataset = vlapipe.open_dataset(in_store)
    name = dataset.manifest.shards[0]["file"]
    data = bytearray(Store(address).read(name))
    data[len(data) // 2] ^= 1
    Store(address).put(name, bytes(data))
    with pytest.raises(DamageError, match=f"{in_store}/{name}: its bytes differ"):
        digests(dataset, 100, endless=True)


def test_shards_come_in_order_and_no_more_than_the_limit_ahead() -> None:
    fetched: list[int] = []
    fetching = FetchAhead(iter(range(10)), lambda shard, _: fetched.append(shard), lambda _: 100, most_bytes=250)
    assert_holds(fetched, [0, 1])
    fetching.use([0])
    assert_holds(fetched, [0, 1, 2])
    fetching.use([1, 2, 3])
    assert_holds(fetched, [0, 1, 2, 3, 4, 5])
    fetching.close()
    assert not fetching.is_busy


def test_shard_larger_than_the_limit_is_fetched_alone() -> None:
    fetched: list[int] = []
    fetching = FetchAhead(iter(range(3)), lambda shard, _: fetched.append(shard), lambda _: 900, most_bytes=250)
    assert_holds(fetched, [0])
    fetching.use([0])
    assert_holds(fetched, [0, 1])
    fetching.close()


def assert_holds(found: list[int], expected: list[int]) -> None:
    """That the list comes to hold this, and holds it for a while."""
    deadline = time.monotonic() + 60
    while len(found) < len(expected) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert found == expected

"""Reading rows of open shards: both ways of copying equal a naive one, for any memory layout and shard state."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import vlapipe
from vlapipe.schemas.errors import DamageError
from vlapipe.train.data import batch_maker as batches
from vlapipe.train.data.images.augment import Augmentation
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.rows import row_addresses
from vlapipe.train.data.rows import shard_table as open_shards
from vlapipe.train.data.rows.row_addresses import AddressedRows, choose_reader
from vlapipe.train.data.rows.row_reader import RowReader, Rows, StridedRows
from vlapipe.train.data.rows.shard_table import ShardTable
from vlapipe.train.data.window_size import Window

Arrays = dict[str, NDArray[Any]]
NUM_SHARDS, NUM_ROWS = 4, 50
EVERY = np.arange(NUM_SHARDS)


def arrays_of(shard: int) -> Arrays:
    rng = np.random.default_rng(shard)
    num_rows = NUM_ROWS + 7 * shard
    return {
        "state": rng.random((num_rows, 12), dtype=np.float32),
        "sensor": rng.random((num_rows, 5, 300), dtype=np.float32),  # six rows are more than 32 kB
        "align": rng.integers(0, 2**30, num_rows, dtype=np.int32),
        "offset": rng.integers(0, 2**60, num_rows + 1),
        "is_set": rng.random((num_rows, 3)) < 0.5,
    }


class Packed:
    """What ``PackedRows`` offers, of arrays in memory."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays

    def num_rows(self, name: str) -> int:
        return len(self._arrays[name])

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        return self._arrays[name][start:stop].copy()


class Source:
    """What ``ShardTable`` needs of ``Sources``; ``packed`` shards are not unpacked yet."""

    num_shards = NUM_SHARDS

    def __init__(self, packed: set[int] | None = None) -> None:
        self.packed = packed or set()
        self.opened: list[Arrays] = []

    def sample_arrays(self, shard: int) -> Arrays:
        self.opened.append(arrays_of(shard))
        return self.opened[-1]

    def sample_rows(self, shard: int) -> Packed | None:
        return Packed(arrays_of(shard)) if shard in self.packed else None

    def sample_names(self, shard: int) -> dict[str, str]:
        return {name: name for name in arrays_of(shard)}

    def unpacked_bytes(self, shard: int) -> int:
        return 2 * open_shards.WAIT_BYTES if shard in self.packed else 0

    def shard_file(self, shard: int) -> str:
        return f"shard-{shard}"


def opened(source: Source | None = None, most: int | None = None) -> ShardTable:
    return ShardTable(source or Source(), most)  # type: ignore[arg-type]


READERS = [AddressedRows, StridedRows]


def naive(rows: Rows) -> NDArray[Any]:
    found = []
    for shard, first, low, high in zip(rows.shard, rows.first, rows.low, rows.high, strict=True):
        array = arrays_of(int(shard))[rows.name]
        numbers = [min(max(first + i * rows.stride, low), high) for i in range(rows.num_rows)]
        found.append(array[numbers])
    return np.stack(found)


def read(reader: RowReader, shards: ShardTable, rows: Rows) -> NDArray[Any]:
    array = arrays_of(0)[rows.name]
    out = np.full((len(rows.first), rows.num_rows, *array.shape[1:]), 99).astype(array.dtype)
    with shards.lease(rows.shard):
        reader.read(rows, out)
    return out


@st.composite
def some_rows(draw: st.DrawFn) -> Rows:
    name = draw(st.sampled_from(sorted(arrays_of(0))))
    num_rows, stride = draw(st.integers(1, 12)), draw(st.sampled_from([1, 1, 1, 3]))
    samples = []
    for _ in range(draw(st.one_of(st.integers(1, 12), st.just(60)))):
        low = draw(st.integers(0, NUM_ROWS - 1))
        high = draw(st.integers(low, NUM_ROWS - 1))
        samples.append((draw(st.integers(0, NUM_SHARDS - 1)), draw(st.integers(-20, NUM_ROWS + 20)), low, high))
    shard, first, low_rows, high_rows = np.array(samples, dtype=np.int64).T
    return Rows(name, num_rows, shard, first, low_rows, high_rows, stride)


@pytest.mark.parametrize("make", READERS)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=some_rows(), packed=st.sets(st.integers(0, NUM_SHARDS - 1)))
def test_rows_are_those_of_a_naive_reading(make: type[RowReader], rows: Rows, packed: set[int]) -> None:
    shards = opened(Source(packed))
    found = read(make(shards), shards, rows)  # type: ignore[call-arg]
    assert np.array_equal(found, naive(rows))
    is_pad = np.zeros(found.shape[:2], dtype=bool)
    is_pad[rows.apart] = rows.is_pad
    wanted = rows.first[:, None] + rows.stride * np.arange(rows.num_rows)
    assert np.array_equal(is_pad, (wanted < rows.low[:, None]) | (wanted > rows.high[:, None]))


@pytest.mark.parametrize("make", READERS)
@pytest.mark.parametrize("first", [-1, NUM_ROWS - 7, NUM_ROWS, 2**40, -(2**40)])
def test_row_outside_its_array_is_damage_and_nothing_is_read(make: type[RowReader], first: int) -> None:
    shards = opened()
    reader = make(shards)  # type: ignore[call-arg]
    numbers = np.zeros(4, dtype=np.int64)
    read(reader, shards, Rows.from_first("state", 8, numbers, numbers))  # the shard is open
    rows = Rows.from_first("state", 8, numbers, np.array([0, first, 3, 4]))
    with pytest.raises(DamageError, match="shard-0: state: has fewer rows than its episodes"):
        read(reader, shards, rows)


def whole_rows(name: str = "state", num_rows: int = 9) -> Rows:
    rng = np.random.default_rng(3)
    shard = rng.integers(0, NUM_SHARDS, 40)
    return Rows.from_first(name, num_rows, shard, rng.integers(0, NUM_ROWS - num_rows, 40))


@pytest.fixture
def plainly_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that the plain way is asked for."""
    found: list[str] = []
    plain = StridedRows.read

    def note(self: StridedRows, rows: Rows, out: NDArray[Any]) -> None:
        found.append(rows.name)
        plain(self, rows, out)

    monkeypatch.setattr(StridedRows, "read", note)
    return found


def test_fast_way_reads_narrow_rows_of_mapped_shards_itself(plainly_read: list[str]) -> None:
    shards = opened()
    reader = choose_reader(shards)
    for name in ("state", "align", "is_set", "offset"):
        assert np.array_equal(read(reader, shards, whole_rows(name)), naive(whole_rows(name)))
    assert plainly_read == []
    read(reader, shards, whole_rows("sensor"))
    assert plainly_read == ["sensor"]


@pytest.mark.parametrize("offset", [0, 1 << 47, 1 << 48, 1 << 52, 1 << 56, (1 << 63) - (1 << 40), 3 << 62])
def test_no_address_is_too_high(monkeypatch: pytest.MonkeyPatch, plainly_read: list[str], offset: int) -> None:
    """All arithmetic as if memory lay so much higher; only what NumPy is told at the very end is moved back."""
    address_of, memory = row_addresses._address_of, row_addresses._Memory
    monkeypatch.setattr(row_addresses, "_address_of", lambda array: address_of(array) + offset)
    monkeypatch.setattr(row_addresses, "_Memory", lambda address, shape: memory(address - offset, shape))
    monkeypatch.setattr(row_addresses, "_base_of", lambda windows: windows.data_ptr() + offset)
    shards = opened()
    reader = AddressedRows(shards)
    assert np.array_equal(read(reader, shards, whole_rows()), naive(whole_rows()))
    assert plainly_read == []


@pytest.mark.parametrize("address", [1 << 12, 1 << 46, 1 << 47, (1 << 48) - 8192, 1 << 52, 1 << 56, (1 << 64) - 8192])
def test_numpy_and_torch_take_any_address(monkeypatch: pytest.MonkeyPatch, address: int) -> None:
    monkeypatch.setattr(row_addresses, "_address_of", lambda _: address)
    arrays = row_addresses._Arrays(np.zeros((100, 12), dtype=np.float32), 3)
    arrays.enter(1, np.zeros((100, 12), dtype=np.float32))
    assert arrays.start.tolist()[::2] == [-1, -1]
    for width in (1, 48, 4800, (1 << 15) - 1):
        assert arrays._all_windows(width).data_ptr() + int(arrays.start[1]) == address


def test_arrays_that_lie_too_far_apart_are_read_plainly(
    monkeypatch: pytest.MonkeyPatch, plainly_read: list[str]
) -> None:
    address_of, calls = row_addresses._address_of, iter(range(10**6))
    monkeypatch.setattr(row_addresses, "_address_of", lambda array: address_of(array) + (next(calls) // 4 << 48))
    shards = opened()
    reader = AddressedRows(shards)
    assert np.array_equal(read(reader, shards, whole_rows()), naive(whole_rows()))
    assert plainly_read == ["state"]


@pytest.mark.parametrize("fault", ["values", "error"])
def test_platform_on_which_the_fast_way_does_not_work_gets_the_plain_one(
    monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        if fault == "error":
            raise ValueError("array is too big")

    monkeypatch.setattr(torch, "index_select", broken)
    row_addresses._works_here.cache_clear()
    try:
        assert isinstance(choose_reader(opened()), StridedRows)
    finally:
        row_addresses._works_here.cache_clear()


def test_shards_that_are_closed_and_opened_elsewhere_are_read_where_they_are(plainly_read: list[str]) -> None:
    source = Source()
    shards = opened(source, most=1)
    reader = AddressedRows(shards)
    for shard in [0, 1, 2, 3, 0, 2, 1, 3, 0, 0]:
        rows = Rows.from_first("state", 5, np.full(6, shard), np.arange(6))
        assert np.array_equal(read(reader, shards, rows), naive(rows))
        for arrays in source.opened[:-1]:  # they are closed: nobody may read them
            for array in arrays.values():
                array[...] = 0
    assert len(source.opened) > 6
    assert plainly_read == []


def test_shard_that_is_unpacked_meanwhile_is_read_fast_from_then_on(plainly_read: list[str]) -> None:
    source = Source(packed={1, 2})
    shards = opened(source)
    reader = AddressedRows(shards)
    rows = whole_rows()
    assert np.array_equal(read(reader, shards, rows), naive(rows))
    assert plainly_read == ["state"]
    for thread in threading.enumerate():
        if thread.name == "vlapipe-unpacking":
            thread.join(60)
    assert np.array_equal(read(reader, shards, rows), naive(rows))
    assert plainly_read == ["state"]


@pytest.fixture(scope="module")
def dataset(tiny_dataset: Path) -> vlapipe.Dataset:
    return vlapipe.open_dataset(tiny_dataset)


OPTIONS: list[dict[str, Any]] = [
    {"window": Window(state_rows=20, sensor_rows=30, image_rows=2, action_rows=8)},
    {"window": Window(state_rows=1, sensor_rows=1, action_rows=1), "batch_size": 1},
    {"window": Window(state_rows=70, sensor_rows=3, action_rows=12, action_stride=3), "shuffle_shards": 1},
    {"augmentation": Augmentation(), "image_size": (24, 32)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_batches_are_the_same_in_both_ways_over_two_epochs(
    monkeypatch: pytest.MonkeyPatch, dataset: vlapipe.Dataset, options: dict[str, Any]
) -> None:
    def two_epochs() -> Iterator[Any]:
        loader = Loader(dataset, **{"split": None, "batch_size": 16, "num_workers": 3, **options})
        for _ in range(2):
            yield from loader

    fast = list(two_epochs())
    monkeypatch.setattr(batches, "choose_reader", StridedRows)
    for ours, plain in zip(fast, two_epochs(), strict=True):
        assert ours.keys() == plain.keys()
        for key, value in ours.items():
            assert torch.equal(value, plain[key]) if isinstance(value, torch.Tensor) else value == plain[key], key

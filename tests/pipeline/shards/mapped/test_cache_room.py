"""The cache keeps its limit as far as possible, never ends a run because of it, and reports a full disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import vlapipe
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import StoppedError, UsageError

SHARDS = range(4)

HOLD = """
import sys
import vlapipe
arrays = vlapipe.open_dataset(sys.argv[1], cache_dir=sys.argv[2]).arrays(0)
print("mapped", flush=True)
sys.stdin.read()
print(float(arrays["sensor/aline"].sum()), flush=True)
"""


@pytest.fixture(scope="module")
def sizes(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    """Bytes that each shard takes when it is unpacked."""
    found = []
    for shard in SHARDS:
        folder = tmp_path_factory.mktemp("one")
        vlapipe.open_dataset(tiny_dataset, cache_dir=folder).arrays(shard)
        found.append(used(folder))
    return found


def used(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def state(dataset: Dataset, shard: int) -> np.ndarray:
    return np.array(dataset.sample_arrays(shard)["observation.state"])


def test_entries_that_were_not_used_for_longest_make_room(tiny_dataset: Path, tmp_path: Path, sizes: list[int]) -> None:
    names = []
    for age, shard in enumerate((0, 1, 2)):
        before = set(tmp_path.iterdir())
        vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path).arrays(shard)
        [name] = set(tmp_path.iterdir()) - before
        os.utime(name, (age, age))
        names.append(name)
    vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path).arrays(0)  # used again: the others are older now
    limit = sizes[0] + sizes[2] + sizes[3]
    vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path, cache_bytes=limit).arrays(3)
    assert [name.exists() for name in names] == [True, False, True]
    assert used(tmp_path) == limit


def test_limit_is_kept_while_all_shards_are_read_one_after_another(
    tiny_dataset: Path, tmp_path: Path, sizes: list[int]
) -> None:
    plain = vlapipe.open_dataset(tiny_dataset)
    dataset = vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path, cache_bytes=max(sizes))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for shard in [*SHARDS, *SHARDS]:
            assert np.array_equal(state(dataset, shard), state(plain, shard))
            assert used(tmp_path) <= max(sizes)


def test_limit_that_cannot_be_kept_is_exceeded_with_one_warning(
    tiny_dataset: Path, tmp_path: Path, sizes: list[int]
) -> None:
    dataset = vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path, cache_bytes=sizes[0])
    with pytest.warns(UserWarning, match="more than --cache-size allows") as told:
        held = [dataset.arrays(shard) for shard in SHARDS]
    assert len(told) == 1
    assert used(tmp_path) == sum(sizes)
    plain = vlapipe.open_dataset(tiny_dataset)
    for shard in SHARDS:
        assert np.array_equal(held[shard]["sensor/aline"], plain.arrays(shard)["sensor/aline"])


def test_entry_that_another_process_holds_stays_until_it_ends(
    tiny_dataset: Path, tmp_path: Path, sizes: list[int]
) -> None:
    command = [sys.executable, "-c", HOLD, str(tiny_dataset), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "mapped\n"
        [theirs] = tmp_path.iterdir()
        with pytest.warns(UserWarning, match="more than --cache-size allows"):
            vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path, cache_bytes=sizes[1]).arrays(1)
        assert theirs.exists()
        other.stdin.close()
        total = float(vlapipe.open_dataset(tiny_dataset).arrays(0)["sensor/aline"].sum())
        assert float(other.stdout.readline()) == total
        other.wait(120)
    vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path, cache_bytes=sizes[2]).arrays(2)
    assert not theirs.exists()


def test_what_is_mapped_stays_good_though_its_file_is_removed(tiny_dataset: Path, tmp_path: Path) -> None:
    dataset = vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path)
    arrays = dataset.arrays(0)
    [entry] = tmp_path.iterdir()
    entry.unlink()
    assert np.array_equal(arrays["sensor/aline"], vlapipe.open_dataset(tiny_dataset).arrays(0)["sensor/aline"])


def test_limit_comes_from_the_environment_unless_it_is_chosen(
    tiny_dataset: Path, tmp_path: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLAPIPE_CACHE_SIZE", f"{max(sizes)}B")
    dataset = vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path)
    for shard in SHARDS:
        dataset.arrays(shard)
    assert used(tmp_path) <= max(sizes)
    chosen = vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path, cache_bytes=sum(sizes))
    for shard in SHARDS:
        chosen.arrays(shard)
    assert used(tmp_path) == sum(sizes)
    monkeypatch.setenv("VLAPIPE_CACHE_SIZE", "much")
    with pytest.raises(UsageError, match="'much' is not a size"):
        vlapipe.open_dataset(tiny_dataset)


class SmallDisk:
    """A disk of so many bytes for the cache; a real one of that size cannot be mounted in a test."""

    def __init__(self, folder: Path, num_bytes: int) -> None:
        self._folder, self._num_bytes = folder, num_bytes
        self._allocate = os.posix_fallocate

    def __call__(self, file: int, offset: int, length: int) -> None:
        if used(self._folder) + length > self._num_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._allocate(file, offset, length)


def test_full_disk_makes_room_before_it_is_an_error(
    tiny_dataset: Path, tmp_path: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = vlapipe.open_dataset(tiny_dataset)
    expected = [state(plain, shard) for shard in SHARDS]  # unpacked beside the dataset, while the disk is large
    monkeypatch.setattr(os, "posix_fallocate", SmallDisk(tmp_path, max(sizes)))
    dataset = vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path)
    for shard in SHARDS:
        assert np.array_equal(state(dataset, shard), expected[shard])


def test_full_disk_is_told_with_the_cure_and_leaves_nothing(
    tiny_dataset: Path, tmp_path: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", SmallDisk(tmp_path, min(sizes) // 2))
    dataset = vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path)
    with pytest.raises(StoppedError, match=r"2 MB cannot be unpacked there: the disk is full.*--cache-dir"):
        dataset.arrays(0)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    assert len(dataset.arrays(0))

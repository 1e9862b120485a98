"""Batches of a packed dataset come at once and are the same as later; shards are unpacked meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

import vlapipe
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.mapped.cache_files import temporary_path
from vlapipe.pipeline.shards.mapped.mapped_shards import shard_key
from vlapipe.schemas.errors import DamageError
from vlapipe.train.data.loader import Batch, Loader
from vlapipe.train.data.prefetch import Pace
from vlapipe.train.data.rows import shard_table as open_shards
from vlapipe.train.data.window_size import Window

WINDOW = Window(state_rows=20, sensor_rows=30, image_rows=2, action_rows=8)
EVERYTHING: dict[str, Any] = {"window": WINDOW, "split": None}


@pytest.fixture(autouse=True)
def nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """These shards are so small that it would be quicker to unpack them."""
    monkeypatch.setattr(open_shards, "WAIT_BYTES", -1)


@pytest.fixture
def dataset(tiny_dataset: Path, tmp_path: Path) -> Dataset:
    return vlapipe.open_dataset(tiny_dataset, cache_dir=tmp_path)


@contextlib.contextmanager
def nobody_can_unpack(dataset: Dataset, folder: Path) -> Iterator[None]:
    """As if another process were at it, for as long as the block lasts."""
    with contextlib.ExitStack() as stack:
        for shard in range(len(dataset.manifest.shards)):
            path = temporary_path(folder, shard_key(dataset.manifest, shard))
            fcntl.flock(stack.enter_context(path.open("wb")), fcntl.LOCK_EX)
        yield
        for path in folder.iterdir():
            path.unlink()


def unpacking_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "vlapipe-unpacking"]


def wait_until_unpacked(seconds: float = 60) -> None:
    for thread in unpacking_threads():
        thread.join(seconds)
    assert not unpacking_threads()


def assert_same(found: list[Batch], expected: list[Batch]) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            same = torch.equal(value, theirs[key]) if isinstance(value, torch.Tensor) else value == theirs[key]
            assert same, key


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"shuffle_shards": 1}, {"num_workers": 3}], ids=str)
def test_batches_need_nothing_unpacked_and_are_the_same(
    dataset: Dataset, tiny_dataset: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    unpacked = vlapipe.open_dataset(tiny_dataset)
    for shard in range(len(unpacked.manifest.shards)):
        unpacked.arrays(shard)
    expected = list(Loader(unpacked, **EVERYTHING, batch_size=16, **options))
    loader = Loader(dataset, **EVERYTHING, batch_size=16, **options)
    with nobody_can_unpack(dataset, tmp_path):
        assert_same(list(loader), expected)
        assert unpacking_threads()
        assert not list(tmp_path.glob("vlapipe-*.mapped"))
    wait_until_unpacked()
    assert len(list(tmp_path.glob("vlapipe-*.mapped"))) == len(dataset.manifest.shards)
    loader.load_state_dict({**loader.state_dict(), "epoch": 0, "position": 0})
    assert_same(list(loader), expected)


def test_nothing_is_read_from_the_compressed_shards_any_more_once_they_are_unpacked(dataset: Dataset) -> None:
    loader = Loader(dataset, **EVERYTHING, batch_size=16, num_workers=0, endless=True)
    batches = iter(loader)
    for _ in range(len(loader)):
        next(batches)
    wait_until_unpacked()
    for _ in range(len(loader)):
        next(batches)
        assert not unpacking_threads()  # or it would ask again
    assert all(dataset.sample_rows(shard) is None for shard in range(len(dataset.manifest.shards)))


def test_damage_in_what_was_not_read_ends_the_run_once_it_is_unpacked(tiny_dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(tiny_dataset, copy, ignore=shutil.ignore_patterns(".cache"))
    for shard in (copy / "shards").iterdir():
        shard.chmod(0o644)
        data = bytearray(shard.read_bytes())
        data[data.index(b"\xff\xd8\xff") + 200] ^= 1  # a byte of a JPEG: nothing that is decoded would notice
        shard.write_bytes(data)
    loader = Loader(vlapipe.open_dataset(copy), **EVERYTHING, batch_size=4, num_workers=0, endless=True)

    def read_on() -> None:
        for _ in islice(loader, 10_000):
            time.sleep(0.001)

    with pytest.raises(DamageError, match=r"shard-\d+.*its bytes differ from those that were written"):
        read_on()


def test_nobody_unpacks_for_a_loader_that_is_gone(dataset: Dataset, tmp_path: Path) -> None:
    loader = Loader(dataset, **EVERYTHING, batch_size=64, num_workers=0)
    with nobody_can_unpack(dataset, tmp_path):
        next(iter(loader))
        del loader
    wait_until_unpacked()
    assert len(list(tmp_path.glob("vlapipe-*.mapped"))) <= 1  # the one that had been begun


def test_process_that_ends_meanwhile_ends_quietly_and_leaves_nothing_half_made(
    tiny_dataset: Path, tmp_path: Path
) -> None:
    code = f"""
import vlapipe
from vlapipe.train.data.rows import shard_table as open_shards
open_shards.WAIT_BYTES = -1
loader = vlapipe.Loader(vlapipe.open_dataset({str(tiny_dataset)!r}, cache_dir={str(tmp_path)!r}), batch_size=64)
next(iter(loader))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".") and path.stat().st_size]


def test_other_trainers_processes_are_free_to_fork(dataset: Dataset, tiny_dataset: Path) -> None:
    frames = vlapipe.torch_dataset(dataset, **EVERYTHING)
    first = frames[0]
    assert not unpacking_threads()
    workers = torch.utils.data.DataLoader(frames, batch_size=16, collate_fn=frames.collate, num_workers=2)
    unpacked = vlapipe.torch_dataset(vlapipe.open_dataset(tiny_dataset), **EVERYTHING)
    plain = torch.utils.data.DataLoader(unpacked, batch_size=16, collate_fn=unpacked.collate)
    assert_same(list(workers), list(plain))
    assert torch.equal(first["observation.state"], unpacked[0]["observation.state"])


def test_number_of_threads_is_not_decided_while_shards_are_unpacked() -> None:
    settled = False
    pace = Pace(8, is_settled=lambda: settled)
    assert not any(pace.step(waited_s=1.0, num_threads=1) for _ in range(1000))
    settled = True
    assert any(pace.step(waited_s=1.0, num_threads=1) for _ in range(1000))

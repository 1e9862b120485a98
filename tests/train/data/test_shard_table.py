"""Shards beyond a process's limit of maps are closed and reopened, and errors name what failed."""

from __future__ import annotations

import gc
import shutil
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from many import repeat_dataset

import vlapipe
from vlapipe.pipeline.shards.format import file_maps as maps
from vlapipe.schemas.errors import DamageError, StoppedError
from vlapipe.train.data import batch_maker as batches
from vlapipe.train.data.loader import Batch, Loader
from vlapipe.train.data.rows import shard_table as open_shards
from vlapipe.train.data.window_size import Window

SMALL = Window(state_rows=4, sensor_rows=2, image_rows=1, action_rows=2)


def num_maps(folder: Path) -> int:
    return sum(f" {folder}/" in line for line in Path("/proc/self/maps").read_text().splitlines())


def wait_until_unmapped(folder: Path) -> None:
    """Wait until a dropped loader has closed its shards: when they are collected, and its thread has unpacked one."""
    deadline = time.monotonic() + 60
    while gc.collect() >= 0 and num_maps(folder):
        assert time.monotonic() < deadline, "a dropped loader keeps its maps"
        time.sleep(0.01)


def assert_same(ours: Batch, theirs: Batch) -> None:
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]) if isinstance(value, torch.Tensor) else value == theirs[key], key


@pytest.mark.parametrize("wait_bytes", [-1, open_shards.WAIT_BYTES], ids=["packed", "unpacked"])
@pytest.mark.parametrize("options", [{"num_workers": 0}, {"num_workers": 5}], ids=str)
def test_shuffle_over_more_shards_than_may_be_mapped_is_the_same(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_bytes: int, options: dict[str, Any]
) -> None:
    data = repeat_dataset(tiny_dataset, tmp_path / "data", num_shards=60)
    arguments: dict[str, Any] = {"split": None, "window": SMALL, "batch_size": 8, "endless": True, **options}
    monkeypatch.setattr(open_shards, "WAIT_BYTES", wait_bytes)
    whole = Loader(vlapipe.open_dataset(data), **arguments)
    num_batches = 2 * len(whole) // 20  # of two epochs, a few of each
    expected = list(islice(whole.every_other(0, 20), num_batches))
    del whole
    wait_until_unmapped(data)
    for module in (maps, open_shards):
        monkeypatch.setattr(module, "most_maps", lambda: 40)
    few = Loader(vlapipe.open_dataset(data), **arguments)
    for ours, theirs in zip(islice(few.every_other(0, 20), num_batches), expected, strict=True):
        assert_same(ours, theirs)
        in_use = 2 * 8 * (options["num_workers"] + 2)
        assert num_maps(data) <= 40 + in_use
    assert len(expected) > 30


def test_fault_of_ours_is_raised_as_it_is(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (TypeError, ValueError, IndexError, KeyError, AttributeError, RuntimeError):

        def broken(*args: object, kind: type[Exception] = kind) -> None:
            raise kind("ours")

        for module, name in ((batches, "fill"), (batches.RowLookup, "locate"), (open_shards.Sources, "sample_names")):
            with monkeypatch.context() as patch:
                patch.setattr(module, name, broken)
                loader = Loader(vlapipe.open_dataset(tiny_dataset), split=None, num_workers=0)
                with pytest.raises(kind, match="ours") as caught:
                    next(iter(loader))
            assert type(caught.value) is kind


@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "Too many open files"), OSError(12, "Cannot allocate")])
def test_what_the_surroundings_lack_is_no_damage(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*args: object) -> None:
        raise error

    monkeypatch.setattr(batches, "fill", broken)
    with pytest.raises(StoppedError, match=r"a batch of insert_.*: (out of memory|this process has as many files)"):
        next(iter(Loader(vlapipe.open_dataset(tiny_dataset), split=None, num_workers=0)))


@pytest.mark.parametrize("wait_bytes", [-1, open_shards.WAIT_BYTES], ids=["packed", "unpacked"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "missing", "directory", "middle", "names"])
def test_damaged_shard_is_called_so(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, wait_bytes: int
) -> None:
    monkeypatch.setattr(open_shards, "WAIT_BYTES", wait_bytes)
    copy = tmp_path / "data"
    shutil.copytree(tiny_dataset, copy, ignore=shutil.ignore_patterns(".cache"))
    for shard in (copy / "shards").iterdir():
        data = bytearray(shard.read_bytes())
        shard.unlink()
        if damage == "cut":
            del data[len(data) // 2 :]
        elif damage == "emptied":
            data.clear()
        elif damage == "directory":
            data[-3000:-2000] = bytes(1000)
        elif damage == "middle":
            at = data.index(b"sensor/aline/c/0/0")
            data[at + 100 : at + 200_000] = b"\xa5" * (200_000 - 100)
        elif damage == "names":
            data = data.replace(b"zarr.json", b"zarr.jsom")
        if damage != "missing":
            shard.write_bytes(data)
    loader = Loader(vlapipe.open_dataset(copy), split=None, window=SMALL, batch_size=4, num_workers=0, endless=True)
    with pytest.raises(DamageError, match=r"shard-\d+-.*(its bytes differ|bytes, found|not a whole shard|no member)"):
        list(islice(loader, 400))

"""Batches that the loader's threads copy to a GPU equal the batches of the CPU."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from test_loop import config, lines

import vlapipe
from vlapipe.train.data.device_copy import SideCopy, timing_waits, to_device
from vlapipe.train.data.loader import Loader
from vlapipe.train.loop import train
from vlapipe.train.report.step_timer import StepTimer


def test_without_a_gpu_nothing_is_copied(tiny_dataset: Path) -> None:
    loader = Loader(vlapipe.open_dataset(tiny_dataset), batch_size=8, num_workers=1, device=torch.device("cpu"))
    batch = next(iter(loader))
    same = to_device(batch, torch.device("cpu"))
    assert all(same[key] is batch[key] for key in batch)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("num_workers", [0, 3])
def test_batches_on_the_gpu_are_those_of_the_cpu(tiny_dataset: Path, num_workers: int) -> None:
    dataset, device = vlapipe.open_dataset(tiny_dataset), torch.device("cuda")
    on_gpu = Loader(dataset, batch_size=8, num_workers=num_workers, device=device, seed=5)
    on_cpu = Loader(dataset, batch_size=8, num_workers=0, seed=5)
    for copied, batch in zip(on_gpu, on_cpu, strict=True):
        busy = torch.zeros(1024, 1024, device=device)
        for key, value in batch.items():
            if isinstance(value, torch.Tensor):
                assert copied[key].is_cuda, key
                assert torch.equal(copied[key].cpu(), value), key
                busy = busy @ busy  # work on the stream that the copies do not wait for
            else:
                assert copied[key] == value


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_wait_for_a_copy_is_measured_and_a_copy_that_has_ended_costs_nothing() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    batch = {"x": torch.zeros(256 << 20, dtype=torch.uint8).pin_memory()}
    side_copy, timer = SideCopy(device), StepTimer(device)

    def waited(*, ended: bool) -> float:
        copied, arrived = side_copy.begin(batch)
        if ended:
            torch.cuda.synchronize(device)
        with timer.phase("data"), timing_waits(partial(timer.add, "h2d")):
            side_copy.finish(copied, arrived)
        torch.cuda.synchronize(device)
        return timer.take().read()["h2d"]

    waited(ended=True)
    assert waited(ended=False) > 2e-3  # at 60 GB/s it takes 4 ms
    assert waited(ended=True) < 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_batch_for_a_device_that_is_not_the_current_one_is_awaited_there() -> None:
    device = torch.device("cuda", 1)
    batch = {"x": torch.ones(256 << 20, dtype=torch.uint8).pin_memory()}
    side_copy = SideCopy(device)
    with torch.cuda.device(0):
        copied, arrived = side_copy.begin(batch)
        side_copy.finish(copied, arrived)
        assert int(copied["x"].sum(dtype=torch.int64)) == 256 << 20


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_run_on_a_gpu_reports_its_wait_for_copies(tiny_dataset: Path, tmp_path: Path) -> None:
    train(config(tiny_dataset, tmp_path / "run", max_steps=4, batch_size=64))
    assert all(line["time/h2d_s"] > 0 for line in lines(tmp_path / "run"))

"""Batches that are copied to a GPU by the loader's own threads are the batches of the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import vlapipe
from vlapipe.train.loader import Loader
from vlapipe.train.transfer import to_device


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

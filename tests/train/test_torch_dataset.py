"""The datasets for other trainers, read by torch's own DataLoader with real worker processes."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler

import vlapipe
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.train.loader import Loader
from vlapipe.train.torch_dataset import FrameDataset
from vlapipe.train.window import Window

SMALL = Window(state_rows=20, sensor_rows=10)


@pytest.fixture(scope="module")
def dataset(tiny_dataset: Path) -> Dataset:
    return vlapipe.open_dataset(tiny_dataset)


@pytest.fixture(scope="module")
def frames(dataset: Dataset) -> FrameDataset:
    return vlapipe.torch_dataset(dataset, window=SMALL)


def same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)


def test_samples_are_those_of_the_loader(dataset: Dataset, frames: FrameDataset) -> None:
    batch = next(iter(Loader(dataset, window=SMALL, batch_size=5, num_workers=0)))
    for i, index in enumerate(batch["index"].tolist()):
        assert equal(frames[index], {key: value[i] for key, value in batch.items()})
    assert len(frames) == Loader(dataset, window=SMALL).num_frames
    assert equal(frames[-1], frames[len(frames) - 1])
    with pytest.raises(IndexError):
        frames[len(frames)]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("collate", ["ours", "torch's"])
def test_data_loader_reads_every_frame_once(frames: FrameDataset, num_workers: int, collate: str) -> None:
    loader = DataLoader(
        frames,
        batch_size=16,
        sampler=RandomSampler(frames, generator=torch.Generator().manual_seed(0)),
        num_workers=num_workers,
        collate_fn=frames.collate if collate == "ours" else None,
    )
    batches = list(loader)
    assert sorted(index for batch in batches for index in batch["index"].tolist()) == list(range(len(frames)))
    first = batches[0]
    assert first["observation.images.View1"].shape == (16, 1, 3, 24, 32)
    assert first["task"][3] == frames[int(first["index"][3])]["task"]
    for key in ("action", "observation.state", "observation.images.View2", "action_is_pad"):
        assert torch.equal(first[key][3], frames[int(first["index"][3])][key]), key


def test_samples_read_together_are_collated_without_a_copy(frames: FrameDataset) -> None:
    samples = frames.__getitems__([3, 5, 8])
    batch = frames.collate(samples)
    assert samples[1]["action"].data_ptr() == batch["action"][1].data_ptr()
    assert equal(frames.collate(list(samples)), batch)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_stream_gives_the_loaders_batches_in_its_order(dataset: Dataset, num_workers: int) -> None:
    options: dict[str, Any] = {"window": SMALL, "batch_size": 8, "seed": 3}
    stream = vlapipe.torch_dataset(dataset, iterable=True, **options)
    found = list(DataLoader(stream, batch_size=None, num_workers=num_workers))
    expected = list(Loader(dataset, num_workers=0, **options))
    assert len(found) == len(expected)
    assert all(equal(one, other) for one, other in zip(found, expected, strict=True))


def test_stream_goes_on_where_its_reader_stopped(dataset: Dataset) -> None:
    options: dict[str, Any] = {"window": SMALL, "batch_size": 8, "iterable": True}
    stream = vlapipe.torch_dataset(dataset, **options)
    expected = [batch["index"].tolist() for batch in DataLoader(stream, batch_size=None)]
    state = stream.state_after(5)
    later = vlapipe.torch_dataset(dataset, **options)
    later.load_state_dict(state)
    found = [batch["index"].tolist() for batch in DataLoader(later, batch_size=None, num_workers=2)]
    assert found == expected[5:]


def test_both_survive_the_way_to_another_process(dataset: Dataset, frames: FrameDataset) -> None:
    assert len(pickle.dumps(frames)) < 50_000  # arguments, not arrays
    stream = vlapipe.torch_dataset(dataset, iterable=True, window=SMALL, batch_size=8)
    context = multiprocessing.get_context("spawn")
    for data in (frames, stream):
        loader = DataLoader(
            data, batch_size=8 if data is frames else None, num_workers=1, multiprocessing_context=context,
            collate_fn=frames.collate if data is frames else None,
        )  # fmt: skip
        assert len(next(iter(loader))["task"]) == 8


def test_unknown_split_is_refused(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="torch_dataset split: unknown split 'trian'"):
        vlapipe.torch_dataset(dataset, split="trian")

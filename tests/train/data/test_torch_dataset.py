"""The datasets for other trainers, read by torch's own DataLoader with real worker processes."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from free_ports import free_port
from launching import environment
from torch.utils.data import DataLoader, RandomSampler

import vlapipe
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.torch_dataset import BatchStream, FrameDataset
from vlapipe.train.data.window_size import Window

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


OPTIONS: dict[str, Any] = {"window": SMALL, "batch_size": 8, "seed": 3}


def stream_of(dataset: Dataset, **more: Any) -> BatchStream:
    return vlapipe.torch_dataset(dataset, iterable=True, **OPTIONS, **more)


def read(loader: Any, at_most: int | None = None) -> list[list[int]]:
    """The frames of each batch of an iteration, or of its first batches."""
    return [batch["index"].tolist() for batch in itertools.islice(loader, at_most)]


def epochs(dataset: Dataset, count: int) -> list[list[list[int]]]:
    """The same from a ``Loader``, an epoch after the other."""
    loader = Loader(dataset, num_workers=0, **OPTIONS)
    return [read(loader) for _ in range(count)]


def reader(stream: BatchStream, num_workers: int = 0, **more: Any) -> DataLoader[Any]:
    return DataLoader(stream, batch_size=None, num_workers=num_workers, **more)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_stream_gives_the_loaders_batches_in_its_order(dataset: Dataset, num_workers: int) -> None:
    found = list(reader(stream_of(dataset), num_workers))
    expected = list(Loader(dataset, num_workers=0, **OPTIONS))
    assert len(found) == len(expected)
    assert all(equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize(
    ("num_workers", "more"),
    [
        (0, {}),
        (3, {}),
        (2, {"persistent_workers": True}),
        pytest.param(2, {"multiprocessing_context": "spawn"}, marks=pytest.mark.slow),
    ],
    ids=["this process", "new workers", "persistent workers", "spawned workers"],
)
def test_each_iteration_gives_the_next_epoch(dataset: Dataset, num_workers: int, more: dict[str, Any]) -> None:
    """Also where the trainer seeds torch before each epoch, so that workers cannot tell iterations by their seed."""
    loader = reader(stream_of(dataset), num_workers, **more)
    found = [read(loader)]
    for _ in range(3):
        torch.manual_seed(0)
        found.append(read(loader))
    assert found == epochs(dataset, 4)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_each_iteration_gives_the_next_epoch_whoever_reads_it(dataset: Dataset) -> None:
    stream = stream_of(dataset)
    loaders = [reader(stream, num_workers) for num_workers in (0, 2, 4, 0, 3)]
    assert [read(loader) for loader in loaders] == epochs(dataset, 5)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_iteration_that_is_left_early_is_followed_by_the_next_epoch(dataset: Dataset, num_workers: int) -> None:
    loader = reader(stream_of(dataset), num_workers)
    found = [read(loader, 3) for _ in range(3)]
    assert found == [epoch[:3] for epoch in epochs(dataset, 3)]


@pytest.mark.parametrize(("num_workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_epoch_that_is_set_is_the_next_one(dataset: Dataset, num_workers: int, persistent: bool) -> None:
    expected = epochs(dataset, 4)
    stream = stream_of(dataset)
    loader = reader(stream, num_workers, persistent_workers=persistent)
    for epoch in (0, 1, 3, 1):
        stream.set_epoch(epoch)
        assert read(loader) == expected[epoch]
    assert read(loader) == expected[2]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_stream_goes_on_where_its_reader_stopped(dataset: Dataset, num_workers: int) -> None:
    expected = epochs(dataset, 3)
    per_epoch = len(expected[0])
    stream = stream_of(dataset)
    for taken in (0, 5, per_epoch, per_epoch + 4):
        later = stream_of(dataset)
        later.load_state_dict(stream.state_after(taken))
        later.set_epoch(taken // per_epoch)  # as a trainer does that knows the epoch it resumes in
        loader = reader(later, num_workers)
        assert read(loader) == expected[taken // per_epoch][taken % per_epoch :]
        assert read(loader) == expected[taken // per_epoch + 1]


def test_state_is_that_after_the_last_batch_that_was_taken(dataset: Dataset) -> None:
    expected = epochs(dataset, 3)
    stream = stream_of(dataset)
    loader = reader(stream)
    assert read(loader) == expected[0]
    assert (
        stream.state_dict()
        == stream.state_after(len(expected[0]))
        == Loader(dataset, **OPTIONS).state_dict() | {"epoch": 1}
    )
    iterator = iter(loader)
    for taken in range(1, 4):
        next(iterator)
        later = stream_of(dataset)
        later.load_state_dict(stream.state_dict())
        assert read(reader(later, 2)) == expected[1][taken:]


def test_state_that_only_the_taker_can_know_is_refused(dataset: Dataset) -> None:
    stream = stream_of(dataset)
    read(reader(stream, 2), 2)
    with pytest.raises(
        UsageError, match=r"state_dict: worker processes are ahead .*\(count these, and ask state_after"
    ):
        stream.state_dict()
    stream.load_state_dict(stream.state_after(2))
    assert stream.state_dict() == stream.state_after(0)


def test_two_iterations_at_once_by_worker_processes_are_refused(dataset: Dataset) -> None:
    stream = stream_of(dataset)
    first, second = (iter(reader(stream, 1, prefetch_factor=1)) for _ in range(2))
    with pytest.raises(UsageError, match="two iterations of one stream"):
        for _ in itertools.zip_longest(first, second):
            pass


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "2"}, {"RANK": "1"}, {"SLURM_STEP_NUM_TASKS": "4"}])
def test_ranks_that_are_evident_but_not_known_are_refused(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (said,) = (f"{name}={value}" for name, value in variables.items())
    stream = stream_of(dataset)  # torch.distributed may be initialised later
    with pytest.raises(UsageError, match=f"torch_dataset: {said} says that there are several ranks, but not which one"):
        next(iter(stream))
    assert read(stream_of(dataset, rank=0, world_size=1)) == epochs(dataset, 1)[0]


def test_rank_comes_from_the_environment_unless_it_is_given(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = [stream_of(dataset, rank=rank, world_size=2) for rank in range(2)]
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, given in enumerate(shares):
        monkeypatch.setenv("RANK", str(rank))
        found = stream_of(dataset)
        assert len(found) == len(given)
        assert read(reader(found, 2)) == read(given)
    with pytest.raises(UsageError, match="expected rank and world_size, found one of them"):
        stream_of(dataset, rank=1)


RANKS = """
import json, os, sys
import torch
import torch.distributed as dist
import vlapipe
from vlapipe.train.data.window_size import Window
data, out, how = sys.argv[1:]
dataset = vlapipe.open_dataset(data)
rank = int(os.environ["RANK"])
stream = vlapipe.torch_dataset(
    dataset, iterable=True, window=Window(state_rows=20, sensor_rows=10), batch_size=2, seed=3
)
if how == "distributed":  # the stream is made before the group is, as in a script that a trainer runs
    dist.init_process_group("gloo")
    for name in ("RANK", "WORLD_SIZE"):
        del os.environ[name]
loader = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=1 + (how == "distributed"))
epochs = [[(b["index"].tolist(), b["task"]) for b in loader] for _ in range(2)]
with open(f"{out}/{rank}.json", "w") as file:
    json.dump(epochs, file)
"""


@pytest.mark.parametrize("how", ["distributed", pytest.param("environment", marks=pytest.mark.slow)])
def test_four_ranks_read_batches_of_their_own_that_are_the_epoch_together(
    dataset: Dataset, tmp_path: Path, how: str
) -> None:
    (tmp_path / "ranks.py").write_text(RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=4", "--master-addr", "127.0.0.1"]
    command += ["--master-port", str(free_port()), str(tmp_path / "ranks.py"), str(dataset.path), str(tmp_path), how]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(4)]
    expected = epochs(dataset, 2)  # by one process, in batches of 8
    tasks = vlapipe.torch_dataset(dataset, window=SMALL)
    for epoch in range(2):
        for step, whole in enumerate(expected[epoch]):
            parts = [rank[epoch][step] for rank in ranks if step < len(rank[epoch])]
            assert [index for part, _ in parts for index in part] == whole
            assert [task for _, part in parts for task in part] == [tasks[index]["task"] for index in whole]
        assert max(len(rank[epoch]) for rank in ranks) == len(expected[epoch])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_stateful_data_loader_resumes_exactly(dataset: Dataset, num_workers: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    expected = epochs(dataset, 3)
    loader = stateful(stream_of(dataset), batch_size=None, num_workers=num_workers)
    assert read(loader) == expected[0]
    assert read(loader, 5) == expected[1][:5]
    state = loader.state_dict()
    later = stateful(stream_of(dataset), batch_size=None, num_workers=num_workers)
    later.load_state_dict(state)
    assert read(later) == expected[1][5:]
    assert read(later) == expected[2]


def test_accelerate_reads_a_loader_that_it_does_not_share_out_again(dataset: Dataset) -> None:
    accelerate = pytest.importorskip("accelerate")
    expected = epochs(dataset, 2)
    for dispatch in (False, None):  # None, the default, sends all batches through the first rank
        config = accelerate.DataLoaderConfiguration(dispatch_batches=dispatch)
        loader = accelerate.Accelerator(cpu=True, dataloader_config=config).prepare(reader(stream_of(dataset)))
        if dispatch is False:
            assert [read(loader) for _ in range(2)] == expected
        else:
            with pytest.raises(UsageError, match="Accelerate would share out the batches again"):
                read(loader)


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

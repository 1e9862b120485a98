"""Weights and several datasets: how often each episode is drawn, over any number of ranks."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import make_dataset, make_episode

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.images.augment import Augmentation
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.window_size import Window

SMALL = Window(state_rows=1, sensor_rows=1, image_rows=1, action_rows=1)


@pytest.fixture(scope="module")
def dataset(tiny_dataset: Path) -> Dataset:
    return vlapipe.open_dataset(tiny_dataset)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Longer episodes, ingested apart."""
    root = tmp_path_factory.mktemp("other")
    ingest(IngestConfig(source=make_dataset(root / "raw", num_episodes=3, num_rows=90), out=root / "data"))
    return vlapipe.open_dataset(root / "data")


def drawn(loader: Loader) -> Counter[int]:
    """How often each episode comes in sixty epochs, of which each is one iteration."""
    return Counter(episode for _ in range(60) for batch in loader for episode in batch["episode_index"].tolist())


def test_episode_of_twice_the_weight_comes_twice_as_often(dataset: Dataset) -> None:
    plain = drawn(Loader(dataset, window=SMALL, split=None))
    ids = dataset.episodes.column("id").to_pylist()
    counts = drawn(Loader(dataset, window=SMALL, split=None, weights={"episode": {ids[1]: 2.0, ids[2]: 0.0}}))
    assert counts[2] == 0
    per_frame = {episode: counts[episode] / plain[episode] for episode in (0, 1, 3)}
    assert per_frame[1] == pytest.approx(2 * per_frame[0], rel=0.02)
    assert per_frame[3] == pytest.approx(per_frame[0], rel=0.02)


@pytest.mark.parametrize("shuffle_shards", [None, pytest.param(1, marks=pytest.mark.slow), 2])
def test_factors_of_task_and_episode_multiply(dataset: Dataset, shuffle_shards: int | None) -> None:
    tasks, ids = (dataset.episodes.column(name).to_pylist() for name in ("task", "id"))
    weights = {"task": {tasks[0]: 3.0}, "episode": {ids[0]: 0.5}}
    plain = drawn(Loader(dataset, window=SMALL, split=None))
    counts = drawn(Loader(dataset, window=SMALL, split=None, weights=weights, shuffle_shards=shuffle_shards))
    factor = [(3.0 if task == tasks[0] else 1.0) * (0.5 if i == 0 else 1.0) for i, task in enumerate(tasks)]
    per_weight = np.array([counts[i] / plain[i] / factor[i] for i in range(len(ids))])
    assert len(set(tasks)) > 1
    assert np.allclose(per_weight, per_weight.mean(), rtol=0.03)


@pytest.mark.parametrize("shuffle_shards", [None, pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("kind", ["task", "episode"])
def test_little_weight_is_no_more_than_that_in_every_shard(
    dataset: Dataset, shuffle_shards: int | None, kind: str
) -> None:
    """Two episodes in shards of their own, due half a position an epoch together: one in every second epoch."""
    tasks, ids = (dataset.episodes.column(name).to_pylist() for name in ("task", "id"))
    blue = [i for i, task in enumerate(tasks) if task == "insert_blue"]
    factors = {"task": {"insert_blue": 0.002}, "episode": {ids[i]: 0.002 + 1e-5 * k for k, i in enumerate(blue)}}
    assert len({int(dataset.column("shard")[i]) for i in blue}) == 2
    options: dict[str, Any] = {"window": SMALL, "split": None, "num_workers": 0}
    plain = Counter(e for batch in Loader(dataset, **options) for e in batch["episode_index"].tolist())
    num_frames = sum(plain.values())
    num_blue = sum(plain[i] for i in blue)
    due = num_frames * 0.002 * num_blue / (num_frames - num_blue + 0.002 * num_blue)
    loader = Loader(dataset, weights={kind: factors[kind]}, shuffle_shards=shuffle_shards, batch_size=64, **options)
    epochs = [[e for batch in loader for e in batch["episode_index"].tolist()] for _ in range(40)]
    assert {len(epoch) for epoch in epochs} == {num_frames}
    assert sum(e in blue for epoch in epochs for e in epoch) == pytest.approx(40 * due, abs=2)
    assert max(sum(e in blue for e in epoch) for epoch in epochs) <= 1


@pytest.mark.parametrize(
    "options",
    [
        {"weights": {"task": {"insert_blue": 2.5}}},
        {"shuffle_shards": 1},
        {"weights": {"task": {"insert_blue": 2.5}}, "shuffle_shards": 1},
    ],
)
def test_ranks_together_draw_what_one_alone_draws(dataset: Dataset, options: dict[str, Any]) -> None:
    def indices(rank: int, world_size: int, batch_size: int, num_steps: int) -> list[list[int]]:
        loader = Loader(
            dataset, window=SMALL, split=None, batch_size=batch_size, rank=rank, world_size=world_size, endless=True,
            num_workers=0, **options,
        )  # fmt: skip
        batches = iter(loader)
        return [next(batches)["index"].tolist() for _ in range(num_steps)]

    alone = [index for batch in indices(0, 1, 12, 40) for index in batch]
    ranks = [indices(rank, 4, 3, 40) for rank in range(4)]
    assert [index for step in zip(*ranks, strict=True) for batch in step for index in batch] == alone


@pytest.mark.parametrize("weights", [{}, {"task": {"insert_blue": 2.5}}])
def test_blocks_of_shards_are_read_one_after_the_other(dataset: Dataset, weights: dict[str, dict[str, float]]) -> None:
    shards = dataset.column("shard")
    assert len(set(shards.tolist())) > 1
    loader = Loader(dataset, window=SMALL, split=None, shuffle_shards=1, weights=weights, batch_size=1)
    order = [int(shards[int(batch["episode_index"][0])]) for batch in loader]
    assert len(order) == pytest.approx(loader.num_frames, abs=2)
    assert sum(a != b for a, b in itertools.pairwise(order)) == len(set(order)) - 1


def test_several_datasets_are_read_as_one(dataset: Dataset, other: Dataset) -> None:
    both = Loader([dataset, other], window=SMALL, split=None, shuffle=False, num_workers=0)
    apart = [Loader(d, window=SMALL, split=None, shuffle=False, num_workers=0) for d in (dataset, other)]
    assert both.num_frames == sum(loader.num_frames for loader in apart)
    one = [row for batch in both for row in zip(batch["observation.state"].tolist(), batch["task"], strict=True)]
    two = [
        row for loader in apart for batch in loader
        for row in zip(batch["observation.state"].tolist(), batch["task"], strict=True)
    ]  # fmt: skip
    assert one == two
    assert {episode for batch in both for episode in batch["episode_index"].tolist()} == set(range(7))


def test_dataset_is_weighted_by_its_path(dataset: Dataset, other: Dataset) -> None:
    weights = {"dataset": {str(other.path): 0.25}}
    counts = drawn(Loader([dataset, other], window=SMALL, split=None, weights=weights))
    plain = drawn(Loader([dataset, other], window=SMALL, split=None))
    per_frame = {which: counts[which] / plain[which] for which in plain}
    assert per_frame[len(dataset)] == pytest.approx(0.25 * per_frame[0], rel=0.03)


def test_statistics_of_several_datasets_are_those_of_all_their_rows(dataset: Dataset, other: Dataset) -> None:
    moments = Loader([dataset, other], window=SMALL).spec.moments["observation.state"]
    rows = [
        np.concatenate([episode[path] for path in d.schema.sample.state], axis=1)
        for d in (dataset, other)
        for episode in map(d.episode, range(len(d)))
        if episode.row["split"] == "train"
    ]
    values = np.concatenate(rows).astype(np.float64)
    assert np.allclose(moments.mean, values.mean(0), rtol=1e-5, atol=1e-5)
    assert np.allclose(moments.std, values.std(0), rtol=1e-4, atol=1e-5)


def test_datasets_of_other_entries_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    make_episode(tmp_path / "raw" / "task" / "episode_1", cameras=("View1",), num_rows=80)
    ingest(IngestConfig(source=tmp_path / "raw", out=tmp_path / "data"))
    with pytest.raises(UsageError, match=r"observation\.images\.View2: expected colours .* no such entry"):
        Loader([dataset, vlapipe.open_dataset(tmp_path / "data")], split=None)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"tsak": {}}, r"Loader weights: unknown kind 'tsak' \(did you mean 'task'\?\)"),
        ({"task": {"insert_blu": 2}}, r"weights: no task 'insert_blu' in .* \(did you mean 'insert_blue'\?\)"),
        ({"task": {"insert_blue": -1}}, "Loader weights task 'insert_blue': expected a number from 0, found -1"),
        ({"task": {"insert_blue": float("nan")}}, "expected a number from 0, found nan"),
        ({"task": 3}, "Loader weights task: expected a table, found 3"),
        ([], None),
        ("x", "Loader weights: expected a table of tables, found 'x'"),
    ],
)
def test_impossible_weights_are_refused(dataset: Dataset, weights: Any, message: str | None) -> None:
    if message is None:
        assert Loader(dataset, window=SMALL, weights=weights).num_frames
        return
    with pytest.raises(UsageError, match=message):
        Loader(dataset, window=SMALL, weights=weights)


@pytest.mark.parametrize("weights", [{}, {"task": {}}, {"task": {}, "episode": {}}])
def test_weights_that_name_nothing_are_no_weights(dataset: Dataset, weights: dict[str, dict[str, float]]) -> None:
    """A run that was begun with them goes on without them, so both must mean one order."""
    loader, plain = (Loader(dataset, window=SMALL, batch_size=7, num_workers=0, weights=w) for w in (weights, None))
    for batch, expected in zip(loader, plain, strict=True):
        assert torch.equal(batch["index"], expected["index"])
    assert loader.state_dict() == plain.state_dict()
    assert len(Loader(dataset, window=SMALL, weights=weights, shuffle_shards=1)) > 0


def test_weights_of_an_empty_kind_beside_others_say_nothing(dataset: Dataset) -> None:
    weights = {"task": {"insert_blue": 2.0}}
    state = Loader(dataset, window=SMALL, weights=weights).state_dict()
    assert Loader(dataset, window=SMALL, weights={**weights, "episode": {}}).state_dict() == state


def test_weights_that_leave_nothing_are_refused(dataset: Dataset) -> None:
    weights = {"task": dict.fromkeys(set(dataset.episodes.column("task").to_pylist()), 0)}
    with pytest.raises(UsageError, match="no frame has a weight above 0"):
        Loader(dataset, window=SMALL, weights=weights)


def test_weights_need_shuffled_frames(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="Loader weights: expected shuffled frames, found shuffle=False"):
        Loader(dataset, window=SMALL, weights={"task": {"insert_blue": 2}}, shuffle=False)


def test_state_of_other_weights_is_refused(dataset: Dataset) -> None:
    state = Loader(dataset, window=SMALL, weights={"task": {"insert_blue": 2}}).state_dict()
    with pytest.raises(UsageError, match="loader state: weights was"):
        Loader(dataset, window=SMALL, weights={"task": {"insert_blue": 3}}).load_state_dict(state)


def test_blocks_of_shards_keep_few_of_them_open(dataset: Dataset) -> None:
    num_shards = len(dataset.manifest.shards)
    assert num_shards > 2
    fresh = vlapipe.open_dataset(dataset.path)
    loader = Loader(fresh, window=SMALL, split=None, shuffle_shards=1, batch_size=4, num_workers=2)
    plain = Loader(dataset, window=SMALL, split=None, shuffle_shards=1, batch_size=4, num_workers=0)
    shards = loader._maker._shards
    for batch, expected in zip(loader, plain, strict=True):
        assert torch.equal(batch["action"], expected["action"])
        # Two stay open; those that the threads are at come on top.
        assert shards._is_open.sum() <= 2 + 2
    assert shards._is_open.sum() == 2


def varied(dataset: Dataset, num_samples: int, after: int = 0, **options: Any) -> list[tuple[int, bytes]]:
    """Samples of an endless, weighted and augmented sequence, from batch ``after`` on: each one's frame and image."""
    weights = {"task": {"insert_red": 8.0}}
    loader = Loader(dataset, window=SMALL, weights=weights, augmentation=Augmentation(), endless=True, **options)
    loader.load_state_dict(loader.state_after(after))
    samples: list[tuple[int, bytes]] = []
    for batch in loader:
        images = batch["observation.images.View1"]
        samples += [
            (index, image.numpy().tobytes()) for index, image in zip(batch["index"].tolist(), images, strict=True)
        ]
        if len(samples) >= num_samples:
            return samples[:num_samples]
    raise AssertionError("an endless loader ended")


def test_frame_that_comes_twice_in_an_epoch_is_varied_anew_each_time(dataset: Dataset) -> None:
    num_frames = Loader(dataset, window=SMALL).num_frames
    samples = varied(dataset, 2 * num_frames, batch_size=16, num_workers=0)
    for epoch in (samples[:num_frames], samples[num_frames:]):
        frames = Counter(index for index, _ in epoch)
        assert max(frames.values()) > 1
        assert len(set(epoch)) == len(epoch)  # no frame with the same pixels twice


def test_variation_is_the_same_for_any_ranks_threads_and_after_a_resume(dataset: Dataset) -> None:
    num_frames = Loader(dataset, window=SMALL).num_frames
    count = num_frames + 32  # over the end of an epoch
    alone = varied(dataset, count, batch_size=16, num_workers=0)
    assert varied(dataset, count, batch_size=16, num_workers=5) == alone
    ranks = [varied(dataset, count // 4, batch_size=4, num_workers=0, rank=rank, world_size=4) for rank in range(4)]
    steps = [[samples[i : i + 4] for i in range(0, len(samples) // 4 * 4, 4)] for samples in ranks]
    together = [sample for step in zip(*steps, strict=True) for part in step for sample in part]
    assert together == alone[: len(together)]
    assert varied(dataset, count - 80, after=10, batch_size=8, num_workers=2) == alone[80:]

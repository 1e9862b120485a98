"""A mix draws each dataset in its share of the samples, exactly, whatever the datasets' sizes, ranks and resumes."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_dataset

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.joining.dataset_names import index_of, short_names
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.window_size import Window

SMALL = Window(state_rows=1, sensor_rows=1, image_rows=1, action_rows=1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    """``lab`` has more frames than ``field``; each has several shards."""
    root = tmp_path_factory.mktemp("pair")
    for name, num_episodes, num_rows in (("lab", 4, 60), ("field", 3, 30)):
        raw = make_dataset(root / "raw" / name, num_episodes=num_episodes, num_rows=num_rows)
        ingest(IngestConfig(source=raw, out=root / name, shard_bytes=200_000))
    return [vlapipe.open_dataset(root / name) for name in ("lab", "field")]


def loader(pair: list[Dataset], **options: Any) -> Loader:
    return Loader(pair, window=SMALL, split=None, num_workers=0, batch_size=16, **options)


def epochs(pair: list[Dataset], count: int, **options: Any) -> list[Counter[int]]:
    """How often each episode comes in each of the first epochs."""
    made = loader(pair, **options)
    return [Counter(e for batch in made for e in batch["episode_index"].tolist()) for _ in range(count)]


@pytest.mark.parametrize("shuffle_shards", [None, 1, 3])
@pytest.mark.parametrize("mix", [{"lab": 0.25, "field": 0.75}, {"lab": 95, "field": 5}, {"field": 1, "lab": 0}])
def test_each_dataset_has_its_share_of_every_epoch(
    pair: list[Dataset], mix: dict[str, float], shuffle_shards: int | None
) -> None:
    due = mix["field"] / sum(mix.values())
    found = epochs(pair, 6, mix=mix, shuffle_shards=shuffle_shards)
    for epoch in found:
        of_field = sum(count for episode, count in epoch.items() if episode >= len(pair[0]))
        assert abs(of_field - due * epoch.total()) <= 1
    every = sum(found, Counter())
    of_field = sum(count for episode, count in every.items() if episode >= len(pair[0]))
    assert abs(of_field - due * every.total()) <= 1  # the fractions of a sample are made up for
    assert [part.share for part in loader(pair, mix=mix).parts] == pytest.approx([1 - due, due])


def test_weights_act_inside_a_dataset(pair: list[Dataset]) -> None:
    weights = {"task": {"insert_blue": 3.0}}
    counts = sum(epochs(pair, 20, mix={"lab": 0.5, "field": 0.5}, weights=weights), Counter())
    first_of_field = len(pair[0])
    assert sum(counts[i] for i in range(first_of_field)) == pytest.approx(counts.total() / 2, abs=2)
    for first, dataset in ((0, pair[0]), (first_of_field, pair[1])):
        tasks, frames = dataset.column("task"), dataset.column("num_frames")
        a_frame = np.array([counts[first + i] / n for i, n in enumerate(frames.tolist())])
        blue = tasks == "insert_blue"
        assert a_frame[blue].mean() == pytest.approx(3 * a_frame[~blue].mean(), rel=0.03)


def test_without_a_mix_each_frame_counts_alike(pair: list[Dataset]) -> None:
    parts = loader(pair).parts
    assert [part.name for part in parts] == ["lab", "field"]
    assert [part.num_frames for part in parts] == [int(d.column("num_frames").sum()) for d in pair]
    assert [part.repeats for part in parts] == pytest.approx([1, 1])
    assert parts[1].share == pytest.approx(parts[1].num_frames / (parts[0].num_frames + parts[1].num_frames))
    mixed = loader(pair, mix={"lab": parts[0].num_frames, "field": parts[1].num_frames})
    assert [part.repeats for part in mixed.parts] == pytest.approx([1, 1])


@pytest.mark.parametrize("shuffle_shards", [None, 2])
def test_ranks_and_resumes_draw_what_one_run_draws(pair: list[Dataset], shuffle_shards: int | None) -> None:
    def indices(first: int, count: int, **options: Any) -> list[list[int]]:
        made = Loader(
            pair,
            window=SMALL,
            split=None,
            num_workers=0,
            endless=True,
            mix={"field": 0.6, "lab": 0.4},
            shuffle_shards=shuffle_shards,
            **options,
        )
        made.load_state_dict(made.state_after(first))
        return [batch["index"].tolist() for batch in islice(made, count)]

    alone = [i for batch in indices(0, 60, batch_size=12) for i in batch]
    ranks = [indices(0, 60, batch_size=3, rank=rank, world_size=4) for rank in range(4)]
    assert [i for step in zip(*ranks, strict=True) for batch in step for i in batch] == alone
    assert [i for batch in indices(25, 35, batch_size=12) for i in batch] == alone[25 * 12 :]


def test_state_of_another_mix_is_refused_and_one_from_before_mixes_goes_on(pair: list[Dataset]) -> None:
    state = loader(pair, mix={"lab": 7, "field": 3}).state_dict()
    loader(pair, mix={"field": 0.3, "lab": 0.7}).load_state_dict(state)
    for mix in ({"lab": 0.6, "field": 0.4}, None):
        with pytest.raises(UsageError, match="loader state: mix was"):
            loader(pair, mix=mix).load_state_dict(state)
    old = {name: value for name, value in loader(pair).state_dict().items() if name != "mix"}
    loader(pair).load_state_dict(old)
    with pytest.raises(UsageError, match="loader state: mix was 0"):
        loader(pair, mix={"lab": 1, "field": 1}).load_state_dict(old)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mix": {"lab": 1, "feild": 1}}, r"Loader mix: no dataset 'feild' \(did you mean 'field'\?\)"),
        ({"mix": {"lab": 1}}, r"Loader mix: no share for 'field' \(a share of 0 leaves a dataset out\)"),
        ({"mix": {"lab": -1, "field": 1}}, "Loader mix 'lab': expected a number from 0, found -1"),
        ({"mix": {"lab": 0, "field": 0}}, "Loader mix: no dataset has a share above 0"),
        ({"mix": [1, 2]}, r"Loader mix: expected a table of shares, found \[1, 2\]"),
        ({"mix": {"lab": 1, "field": 1}, "shuffle": False}, "Loader mix: expected shuffled frames"),
        (
            {"mix": {"lab": 1, "field": 1}, "weights": {"dataset": {"x": 2.0}}},
            "Loader mix: the weights of datasets say otherwise",
        ),
        (
            {"mix": {"lab": 1, "field": 1}, "weights": {"episode": {}, "task": {"insert_red": 0, "insert_blue": 0}}},
            "no frame has a weight above 0",
        ),
    ],
)
def test_impossible_mixes_are_refused(pair: list[Dataset], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        loader(pair, **options)


def test_dataset_of_the_mix_that_weights_leave_out_is_refused(pair: list[Dataset]) -> None:
    of_field = pair[1].column("id").tolist()
    assert set(pair[0].column("id").tolist()) > set(of_field)
    weights = {"episode": dict.fromkeys(of_field, 0.0)}
    with pytest.raises(UsageError, match=r"mix: .*field has no frame to draw"):
        loader(pair, mix={"lab": 1, "field": 1}, weights=weights)


def test_names_are_the_ends_of_paths_that_tell_datasets_apart(tmp_path: Path) -> None:
    paths = [tmp_path / "lab" / "data", tmp_path / "field" / "data", tmp_path / "hall", tmp_path / "hall"]
    assert short_names(paths) == ["lab/data", "field/data", "hall", "hall-2"]
    assert [index_of(name, paths[:3]) for name in ("lab/data", "data", "hall", str(paths[1]))] == [0, None, 2, 1]

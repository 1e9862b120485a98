"""Batches equal a plain reading of the raw files; also order, ranks, resume, threads and damage."""

from __future__ import annotations

import itertools
import pickle
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import make_dataset, make_episode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import RawReference, is_close

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import DamageError, UsageError
from vlapipe.schemas.registry import load_schema
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.window_size import Window


@pytest.fixture(scope="module")
def dataset(tiny_dataset: Path) -> Dataset:
    return vlapipe.open_dataset(tiny_dataset)


@pytest.fixture(scope="module")
def of_other_rates(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Dataset, list[RawReference]]]:
    """Recordings at half and at twice the rate, some with hardly a frame, each with what its raw files say."""
    found = []
    for rate_hz, num_rows in ((50.0, 40), (200.0, 24), (100.0, 13)):
        root = tmp_path_factory.mktemp("rate")
        raw = make_dataset(root / "raw", num_episodes=3, num_rows=num_rows, rate_hz=rate_hz)
        ingest(IngestConfig(source=raw, out=root / "data", shard_bytes=1_000_000))
        dataset = vlapipe.open_dataset(root / "data")
        assert len(dataset)
        ids = dataset.episodes.column("id").to_pylist()
        found.append((dataset, [RawReference(raw / episode) for episode in ids]))
    return found


@pytest.fixture(scope="module")
def references(dataset: Dataset, tiny_raw: Path) -> list[RawReference]:
    return [RawReference(tiny_raw / episode) for episode in dataset.episodes.column("id").to_pylist()]


def indices(loader: Loader, limit: int | None = None) -> list[int]:
    found: list[int] = []
    for batch in loader:
        found += batch["index"].tolist()
        if limit is not None and len(found) >= limit:
            break
    return found


def equals_the_raw_files(batch: dict[str, Any], references: list[RawReference], window: Window) -> None:
    for i, (episode, row) in enumerate(zip(batch["episode_index"], batch["frame_index"], strict=True)):
        expected = references[int(episode)].sample(
            int(row),
            state_rows=window.state_rows,
            sensor_rows=window.sensor_rows,
            action_rows=window.action_rows,
            stride=window.action_stride,
        )
        for key, value in expected.items():
            assert is_close(batch[key][i].numpy(), value), (key, i)


windows = st.builds(
    Window,
    state_rows=st.sampled_from([1, 2, 30, 100]),
    sensor_rows=st.sampled_from([1, 65, 400]),
    action_rows=st.integers(1, 12),
    action_stride=st.sampled_from([1, 3, 10, 50]),
)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    window=windows,
    batch_size=st.integers(1, 7),
    num_workers=st.sampled_from([0, 2, None]),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_sample_equals_a_plain_reading_of_the_raw_files(
    dataset: Dataset,
    references: list[RawReference],
    window: Window,
    batch_size: int,
    num_workers: int | None,
    seed: int,
) -> None:
    loader = Loader(dataset, window=window, batch_size=batch_size, seed=seed, num_workers=num_workers, split=None)
    batches = iter(loader)
    for _ in range(3):  # the first is made alone, the others together
        equals_the_raw_files(next(batches), references, window)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(window=windows, which=st.integers(0, 2), seed=st.integers(0, 1000))
def test_every_sample_of_other_rates_and_lengths_equals_the_raw_files(
    of_other_rates: list[tuple[Dataset, list[RawReference]]], window: Window, which: int, seed: int
) -> None:
    dataset, references = of_other_rates[which]
    batch = next(iter(Loader(dataset, window=window, batch_size=8, seed=seed, num_workers=0, split=None)))
    equals_the_raw_files(batch, references, window)


def test_frames_without_an_action_among_others_are_marked(tmp_path: Path) -> None:
    """Where rows are missing, what lies 0.1 s ahead is too far from any row, while the episode goes on."""

    def drop_some(rows: list[list[str]]) -> None:
        del rows[31:38]

    raw = make_episode(tmp_path / "raw" / "task" / "episode_1", edit_rows=drop_some)
    ingest(IngestConfig(source=tmp_path / "raw", out=tmp_path / "data"))
    reference = RawReference(raw)
    assert any(reference.row_ahead(row) is None for row in reference.frames())
    window = Window(state_rows=3, sensor_rows=2, action_rows=4, action_stride=2)
    loader = Loader(vlapipe.open_dataset(tmp_path / "data"), window=window, split=None, num_workers=0, batch_size=16)
    assert sum(int(batch["action_is_pad"].any(1).sum()) for batch in loader)
    for batch in loader:
        equals_the_raw_files(batch, [reference], window)


def test_frames_are_those_at_which_every_stream_has_begun_and_an_action_follows(
    dataset: Dataset, references: list[RawReference]
) -> None:
    loader = Loader(dataset, batch_size=50, split=None, shuffle=False, window=Window(state_rows=1, sensor_rows=1))
    found = {
        (e, r)
        for batch in loader
        for e, r in zip(batch["episode_index"].tolist(), batch["frame_index"].tolist(), strict=True)
    }
    expected = {(e, row) for e, reference in enumerate(references) for row in reference.frames()}
    assert found == expected


def test_default_window_is_the_schemas(dataset: Dataset) -> None:
    loader = vlapipe.Loader(dataset, window=vlapipe.Window(), batch_size=3, num_workers=0)
    batch = next(iter(loader))
    shapes = {key: tuple(value.shape) for key, value in batch.items() if isinstance(value, torch.Tensor)}
    assert shapes["observation.state"] == (3, 100, 12)
    assert shapes["observation.sensors.aline"] == (3, 65, 1025)
    assert shapes["observation.images.View1"] == (3, 1, 3, 24, 32)
    assert shapes["action"] == (3, 8, 7)
    assert shapes["action_is_pad"] == (3, 8)
    assert batch["observation.images.View1"].dtype == torch.uint8
    assert all(text.startswith("insert the needle into the") for text in batch["task"])
    for key, shape in [("state", loader.spec.state), *((f"sensors.{k}", v) for k, v in loader.spec.sensors.items())]:
        assert shapes[f"observation.{key}"][1:] == shape


def test_one_epoch_gives_every_frame_of_the_split_once(dataset: Dataset) -> None:
    for split in ("train", "val", None):
        loader = Loader(dataset, batch_size=16, split=split)
        found = indices(loader)
        assert sorted(found) == list(range(loader.num_frames))
        assert len(loader) == -(-loader.num_frames // 16)


def test_train_and_val_share_no_episode(dataset: Dataset) -> None:
    seen = {
        split: {int(e) for batch in Loader(dataset, split=split) for e in batch["episode_index"]}
        for split in ("train", "val")
    }
    assert seen["train"]
    assert seen["val"]
    assert not seen["train"] & seen["val"]


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("endless", [True, False])
def test_ranks_together_follow_one_global_sequence(dataset: Dataset, world_size: int, endless: bool) -> None:
    def batches(rank: int, of: int, size: int) -> list[list[int]]:
        loader = Loader(dataset, batch_size=size, rank=rank, world_size=of, endless=endless, num_workers=0)
        found: list[list[int]] = []
        for batch in loader:
            found.append(batch["index"].tolist())
            if endless and sum(map(len, found)) * of >= 400:
                break
        return found

    alone = [i for batch in batches(0, 1, 4 * world_size) for i in batch]
    ranks = [batches(rank, world_size, 4) for rank in range(world_size)]
    steps = max(map(len, ranks))
    together = [i for step in range(steps) for rank in ranks if step < len(rank) for i in rank[step]]
    length = min(len(alone), len(together))
    assert length >= 100
    assert together[:length] == alone[:length]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    stops=st.lists(st.tuples(st.integers(1, 9), st.sampled_from([1, 2, 4]), st.integers(0, 3)), min_size=1, max_size=5)
)
def test_sequence_survives_stops_and_changes_of_world_size(dataset: Dataset, stops: list[tuple[int, int, int]]) -> None:
    """A ledger: what all ranks were handed, over kills and other numbers of ranks, against one uninterrupted run."""
    small = Window(state_rows=1, sensor_rows=1, image_rows=1, action_rows=1)
    ledger: list[int] = []
    state: dict[str, int] | None = None
    for num_batches, world_size, num_workers in stops:
        ranks = []
        for rank in range(world_size):
            loader = Loader(
                dataset, window=small, batch_size=5, rank=rank, world_size=world_size, num_workers=num_workers,
                prefetch_factor=3, endless=True,
            )  # fmt: skip
            if state is not None:
                loader.load_state_dict(state)
            iterator = iter(loader)
            ranks.append([next(iterator)["index"].tolist() for _ in range(num_batches)])
            states = loader.state_dict()
        state = states
        ledger += [i for step in range(num_batches) for rank_batches in ranks for i in rank_batches[step]]
    whole = Loader(dataset, window=small, batch_size=len(ledger), endless=True, num_workers=0)
    assert ledger == next(iter(whole))["index"].tolist()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_ranks_without_a_share_of_the_last_step_go_on_with_the_others(dataset: Dataset, num_workers: int) -> None:
    small = Window(state_rows=1, sensor_rows=1, image_rows=1, action_rows=1)
    num_frames = Loader(dataset, window=small).num_frames
    world_size = next(w for w in range(5, 12) if 0 < num_frames % (2 * w) < w - 1)
    ranks = [
        Loader(dataset, window=small, batch_size=2, rank=r, world_size=world_size, num_workers=num_workers)
        for r in range(world_size)
    ]
    for epoch in range(3):
        found = [indices(loader) for loader in ranks]
        assert sorted(itertools.chain(*found)) == list(range(num_frames))
        states = [loader.state_dict() for loader in ranks]
        assert all(state == states[0] for state in states)
        assert (states[0]["epoch"], states[0]["position"]) == (epoch + 1, 0)
        assert [len(loader) for loader in ranks] == [-(-len(of_rank) // 2) for of_rank in found]


@pytest.mark.parametrize("num_workers", [1, 2, 5])
def test_batches_do_not_depend_on_the_number_of_threads(dataset: Dataset, num_workers: int) -> None:
    plain = list(Loader(dataset, batch_size=32, num_workers=0))
    threaded = list(Loader(dataset, batch_size=32, num_workers=num_workers, prefetch_factor=2))
    assert len(plain) == len(threaded)
    for one, other in zip(plain, threaded, strict=True):
        for key, value in one.items():
            assert torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]


def test_pass_that_another_thread_closes_ends_and_the_loader_goes_on_where_it_stood(
    dataset: Dataset, new_threads: Callable[[str], list[threading.Thread]]
) -> None:
    loader = Loader(dataset, batch_size=4, num_workers=8, endless=True)
    expected = indices(Loader(dataset, batch_size=4, num_workers=0, endless=True), limit=400)
    found: list[int] = []
    while len(found) < 400:
        batches = iter(loader)
        closer = threading.Timer(0.002, batches.close)  # type: ignore[attr-defined]
        closer.start()
        for batch in batches:
            found += batch["index"].tolist()
        closer.join(60)
        assert not closer.is_alive()
        assert not new_threads("vlapipe-loader")
    assert found[:400] == expected[:400]


def test_state_of_another_dataset_seed_or_version_is_refused(dataset: Dataset) -> None:
    loader = Loader(dataset, seed=1)
    state = loader.state_dict()
    for change in ({"seed": 2}, {"num_frames": 7}, {"shuffle": 0}, {"version": 1}):
        with pytest.raises(UsageError):
            loader.load_state_dict({**state, **change})


@pytest.mark.parametrize("state", [{"version": 2}, {}, None, [], "x"])
def test_state_that_is_none_is_refused(dataset: Dataset, state: Any) -> None:
    with pytest.raises(UsageError, match="loader state: "):
        Loader(dataset).load_state_dict(state)


@pytest.mark.parametrize("change", [{"position": None}, {"position": 1.5}, {"epoch": -1}])
def test_state_with_a_place_that_is_none_is_refused(dataset: Dataset, change: dict[str, Any]) -> None:
    loader = Loader(dataset)
    with pytest.raises(UsageError, match=f"loader state: {next(iter(change))}: expected a whole number from 0"):
        loader.load_state_dict(loader.state_dict() | change)


def test_images_are_resized_to_the_size_asked_for(dataset: Dataset) -> None:
    loader = Loader(dataset, batch_size=4, image_size=(12, 20), shuffle=False, num_workers=0)
    small = next(iter(loader))["observation.images.View1"]
    full = next(iter(Loader(dataset, batch_size=4, shuffle=False, num_workers=0)))["observation.images.View1"]
    assert small.shape == (4, 1, 3, 12, 20)
    expected = torch.nn.functional.interpolate(full[:, 0].float(), (12, 20), mode="bilinear", antialias=True)
    assert (small[:, 0].float() - expected).abs().mean() < 6


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_damaged_shard_is_named_before_anything_is_read_from_it(
    tiny_dataset: Path, tmp_path: Path, damage: str
) -> None:
    copy = tmp_path / "data"
    shutil.copytree(tiny_dataset, copy, ignore=shutil.ignore_patterns(".cache"))
    for shard in (copy / "shards").iterdir():
        shard.chmod(0o644)
        data = bytearray(shard.read_bytes())
        if damage == "cut":
            shard.write_bytes(data[:-1])
        elif damage == "flipped":
            data[len(data) // 3] ^= 1
            shard.write_bytes(data)
        else:
            shard.unlink()
    with pytest.raises(DamageError) as caught:
        next(iter(Loader(vlapipe.open_dataset(copy))))
    assert "shard-0000" in str(caught.value)


def test_image_whose_scan_cannot_be_decoded_is_named_before_training(tmp_path: Path) -> None:
    raw = make_episode(tmp_path / "raw" / "task" / "episode_1")
    victim = max((raw / "images" / "View1").iterdir(), key=lambda image: image.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[data.index(b"\xff\xda") + 5] = 99  # a scan of a colour component that does not exist
    victim.write_bytes(data)
    report = ingest(IngestConfig(source=tmp_path / "raw", out=tmp_path / "data"))
    (reason,) = [each for each in report.rejects[0]["reasons"] if each["severity"] == "error"]
    assert reason["file"] == f"task/episode_1/images/View1/{victim.name}"


@pytest.mark.parametrize(
    "arguments",
    [
        *({"batch_size": value} for value in (0, 2.5, True, "8", None)),
        {"num_workers": -1},
        {"prefetch_factor": 0},
        {"rank": 2, "world_size": 2},
        {"world_size": 2.0},
        {"seed": 1.5},
        {"seed": 2**63},
        {"shuffle_shards": 0},
        *({"image_size": value} for value in (96, (96,), (96, 0), (96.0, 96), (1, 2, 3), "ab")),
    ],
)
def test_impossible_argument_is_refused(dataset: Dataset, arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"Loader {next(iter(arguments))}.*: expected .*, found "):
        Loader(dataset, **arguments)


def test_unknown_split_is_refused_with_the_nearest(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match=r"Loader split: unknown split 'vall' \(did you mean 'val'\?\)"):
        Loader(dataset, split="vall")


def test_image_size_is_checked_though_there_is_no_camera(tmp_path: Path) -> None:
    make_episode(tmp_path / "raw" / "task" / "episode_1", cameras=())
    text = load_schema("meca500").toml
    camera, action = text.index("[streams.camera]"), text.index("[action]")
    (tmp_path / "blind.toml").write_text(text[:camera] + text[action:])
    ingest(IngestConfig(source=tmp_path / "raw", out=tmp_path / "data", schema=str(tmp_path / "blind.toml")))
    with pytest.raises(UsageError, match=r"image_size: expected \(height, width\), or 'WIDTHxHEIGHT', found \(96,\)"):
        Loader(vlapipe.open_dataset(tmp_path / "data"), split=None, image_size=(96,))  # type: ignore[arg-type]


def test_window_that_memory_cannot_hold_is_refused_before_anything_is_read(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match=r"a batch takes 3,136,\d{3} GB, and this machine has"):
        Loader(dataset, window=Window(state_rows=10**12))


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3"])
def test_window_of_other_than_rows_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="Window state_rows: expected a whole number from 1"):
        Window(state_rows=value)


def test_window_takes_numpy_integers() -> None:
    window = Window(state_rows=np.int64(5))  # type: ignore[arg-type]
    assert window == Window(state_rows=5)
    assert type(window.state_rows) is int


def test_loader_says_what_to_send_instead_of_itself(tiny_dataset: Path) -> None:
    with pytest.raises(TypeError, match="send the dataset"):
        pickle.dumps(Loader(vlapipe.open_dataset(tiny_dataset)))

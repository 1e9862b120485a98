"""Finding episodes and planning shards depend only on the names and sizes of files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import make_dataset, make_episode

from vlapipe.pipeline.discover.discovery import Discovery, discover
from vlapipe.pipeline.plan.plan import Plan, make_plan
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.registry import load_schema
from vlapipe.schemas.schema import Schema

MECA = load_schema("meca500")


def plan(discovery: Discovery, shard_bytes: int = 1 << 30, schema: Schema = MECA) -> Plan:
    return make_plan(discovery, schema, shard_bytes=shard_bytes, options={})


def test_episodes_are_found_at_any_depth_and_ordered_by_id(tmp_path: Path) -> None:
    for place in ("b/episode_2", "b/episode_1", "deep/er/a/data_collection_x", "recv_all_7", "b/not_an_episode"):
        make_episode(tmp_path / place, num_rows=3, num_images=1, sensor=False)
    found = discover(tmp_path, MECA)
    assert [episode.id for episode in found.episodes] == [
        "b/episode_1",
        "b/episode_2",
        "deep/er/a/data_collection_x",
        "recv_all_7",
    ]
    assert [episode.task for episode in found.episodes] == ["b", "b", "a", tmp_path.name]


def test_views_are_found_below_images_or_as_direct_children(tmp_path: Path) -> None:
    below = make_episode(tmp_path / "episode_1", num_rows=3, num_images=2)
    direct = make_episode(tmp_path / "recv_all_1", num_rows=3, num_images=2)
    for camera in list((direct / "images").iterdir()):
        camera.rename(direct / camera.name)
    (direct / "images").rmdir()
    first, second = discover(tmp_path, MECA).episodes
    assert first.cameras == second.cameras == {"camera": ("View1", "View2")}
    assert [len(first.files[camera]) for camera in ("View1", "View2")] == [2, 2]
    assert below.exists()


def test_leftovers_of_file_managers_are_ignored_and_counted(tmp_path: Path) -> None:
    episode = make_episode(tmp_path / "episode_1", num_rows=3, num_images=2)
    for name in ("._1.0.jpg", "Thumbs.db", ".DS_Store"):
        (episode / "images" / "View1" / name).write_bytes(b"x")
    found = discover(tmp_path, MECA)
    assert found.num_ignored == 3
    assert len(found.episodes[0].files["View1"]) == 2


@pytest.mark.parametrize("case", ["missing", "a file", "nothing in it"])
def test_dataset_that_cannot_be_used_is_refused_with_a_cure(tmp_path: Path, case: str) -> None:
    path = tmp_path / "data"
    if case == "a file":
        path.write_text("x")
    elif case == "nothing in it":
        path.mkdir()
    with pytest.raises(UsageError) as caught:
        discover(path, MECA)
    assert caught.value.cure
    assert str(path) in str(caught.value)


def test_single_episode_needs_no_particular_name(tmp_path: Path) -> None:
    make_episode(tmp_path / "task" / "monday", num_rows=3)
    (episode,) = discover(tmp_path / "task" / "monday", MECA, single=True).episodes
    assert (episode.id, episode.task) == ("monday", "task")


def test_shards_are_filled_in_order_up_to_their_size(tmp_path: Path) -> None:
    found = discover(make_dataset(tmp_path / "lab", num_episodes=6), MECA)
    one = plan(found)
    many = plan(found, 4_000_000)
    each = plan(found, 1)
    assert [len(p.shards) for p in (one, many, each)] == [1, 4, 6]
    for p in (one, many, each):
        assert [e.id for shard in p.shards for e in shard.episodes] == [e.id for e in found.episodes]


def test_shards_of_tiny_episodes_have_a_thousand_at_most(tmp_path: Path) -> None:
    for i in range(1001):
        (tmp_path / f"episode_{i:04d}").mkdir()
    assert [len(shard.episodes) for shard in plan(discover(tmp_path, MECA)).shards] == [1000, 1]


def splits_of(raw: Path, names: list[str], schema: Schema = MECA) -> dict[str, str]:
    """Which split each of so many empty episodes is put into."""
    for name in names:
        (raw / name).mkdir(parents=True, exist_ok=True)
    made = plan(discover(raw, schema), schema=schema)
    return {e.id: split for shard in made.shards for e, split in zip(shard.episodes, shard.splits, strict=True)}


@pytest.mark.parametrize(("before", "after"), [(1, 40), (4, 5), (9, 300)])
def test_an_episode_keeps_its_split_whatever_is_added(tmp_path: Path, before: int, after: int) -> None:
    names = [f"episode_{i:03d}" for i in np.random.default_rng(before).permutation(after)]
    grown = splits_of(tmp_path / "grown", names)
    assert splits_of(tmp_path / "small", names[:before]).items() <= grown.items()


@pytest.mark.parametrize(("val", "least", "most"), [(0.0, 0, 0), (0.1, 30, 50), (0.5, 170, 230), (0.9, 340, 380)])
def test_the_fraction_of_many_episodes_validates(tmp_path: Path, val: float, least: int, most: int) -> None:
    schema = replace(MECA, val_fraction=val)
    splits = splits_of(tmp_path, [f"episode_{i}" for i in range(400)], schema)
    assert least <= list(splits.values()).count("val") <= most
    larger = splits_of(tmp_path, [], replace(MECA, val_fraction=(val + 1) / 2))
    assert all(larger[name] == "val" for name, split in splits.items() if split == "val")


def test_digest_changes_with_input_options_and_schema(tmp_path: Path) -> None:
    lab = make_dataset(tmp_path / "lab", num_episodes=2, num_rows=3)
    before = digests(plan(discover(lab, MECA), 1))
    assert digests(plan(discover(lab, MECA), 1)) == before
    assert digests(plan(discover(lab, MECA)))[0] != before[0]
    (lab / "insert_red" / "episode_20260101_000000" / "robot_states.csv").write_text("t\n")
    blue, red = digests(plan(discover(lab, MECA), 1))
    assert blue == before[0]  # its shard need not be made again
    assert red != before[1]


def digests(made: Plan) -> list[str]:
    return [shard.digest for shard in made.shards]


def test_camera_that_most_episodes_lack_is_not_expected(tmp_path: Path) -> None:
    for i in range(3):
        make_episode(tmp_path / f"episode_{i}", num_rows=3, cameras=("View1", "Extra")[: 1 + (i == 0)])
    assert plan(discover(tmp_path, MECA)).cameras == {"camera": ("View1",)}

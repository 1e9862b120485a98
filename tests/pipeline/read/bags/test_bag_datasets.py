"""Folders of bags become datasets by a schema of a few lines, and policies are trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_writing import (
    COLOUR,
    COMMANDS,
    START_NS,
    STATES,
    WAYS,
    Sent,
    compressed,
    joint_state,
    robot,
    store_of,
    write_mcap,
)
from factories import make_jpeg

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.schemas.errors import UsageError

SCHEMA = """
name = "bags"
anchor = "robot"
episodes = { EPISODES }
action = { kind = "column", of = "command/q" }
sample = { state = ["robot/q"], action_rows = 4 }
split = { val = 0.0 }

[streams.robot]
kind = "bag"
files = ["FILES"]
topic = "/joint_states"
time.array = "header.stamp"
fields.q = { array = "position", shape = [3] }

[streams.command]
kind = "bag"
files = ["FILES"]
topic = "/command"
time.array = "received"
fields.q = { array = "data", shape = [3] }

[streams.front]
kind = "images"
files = ["FILES"]
topic = "/cam/color/compressed"
time.array = "header.stamp"
"""


def ingest_bags(
    raw: Path, out: Path, files: str, *, episodes: str = "", text: str = SCHEMA, **options: Any
) -> IngestReport:
    schema = out.parent / f"{out.name}.toml"
    schema.write_text(text.replace("FILES", files).replace("EPISODES", episodes))
    return ingest(IngestConfig(source=raw, out=out, schema=str(schema), **options))


@pytest.mark.parametrize("way", ["ros1 lz4", "ros2 db3", "ros2 mcap zstd", "mcap of ros1"])
def test_bags_become_a_dataset_that_trains_ten_steps(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlapipe.train.config import TrainConfig
    from vlapipe.train.loop import train

    ros, pattern, write = WAYS[way]
    store = store_of(ros)
    recorded = [list(robot(store, seed=seed)) for seed in range(3)]
    for seed, sent in enumerate(recorded):
        write(tmp_path / "raw" / "pick" / f"run{seed}", sent, store)
    report = ingest_bags(tmp_path / "raw", tmp_path / "data", pattern)
    assert (report.num_episodes, report.rejects) == (3, []), report
    dataset = vlapipe.open_dataset(tmp_path / "data")
    for number, sent in enumerate(recorded):
        episode = dataset.episode(number)
        assert episode.id == f"pick/run{number}"
        states = [each.message for each in sent if each.topic == STATES]
        assert np.array_equal(episode["robot/q"], np.array([m.position for m in states], dtype=np.float32))
        commands = [each for each in sent if each.topic == COMMANDS]
        assert np.array_equal(episode["command/timestamp"], [each.received for each in commands])
        assert np.array_equal(episode["command/q"], np.array([c.message.data for c in commands], dtype=np.float32))
        images = [each.message.data.tobytes() for each in sent if each.topic == COLOUR]
        assert [episode.jpeg("front", row) for row in range(len(images))] == images
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[3] / "train")
    options = {"data": tmp_path / "data", "out": tmp_path / "run", "max_steps": 10, "batch_size": 4}
    result = train(TrainConfig.from_sources(None, {**options, "policy": "tiny_policy:TinyPolicy"}))
    assert result.step == 10


def test_topic_may_be_optional(tmp_path: Path) -> None:
    store = store_of(2)
    for seed in range(2):
        sent = [each for each in robot(store, seed=seed) if seed or each.topic != COLOUR]
        write_mcap(tmp_path / "raw" / f"run{seed}.mcap", sent, store)
    text = SCHEMA.replace('topic = "/cam/color/compressed"', 'topic = "/cam/color/compressed"\noptional = true')
    report = ingest_bags(tmp_path / "raw", tmp_path / "data", "*.mcap", episodes="per_file = true", text=text)
    assert (report.num_episodes, report.rejects) == (2, [])
    refused = ingest_bags(tmp_path / "raw", tmp_path / "other", "*.mcap", episodes="per_file = true")
    (reject,) = refused.rejects
    assert reject["episode"] == "run0"
    assert "bag.missing_topic" in str(reject)


def test_cameras_are_named_by_their_topics(tmp_path: Path) -> None:
    store = store_of(2)
    sent = list(robot(store))
    for camera, seed in (("left", 100), ("right", 200)):
        for row in range(12):
            stamp = START_NS + row * 100_000_000
            sent.append(Sent(f"/cam/{camera}/compressed", stamp, compressed(store, stamp, make_jpeg(seed + row))))
    write_mcap(tmp_path / "raw" / "run.mcap", sorted(sent, key=lambda each: each.received), store)
    topic = 'topic = "/cam/{camera}/compressed"\ncameras = ["left", "right"]'
    text = SCHEMA.replace('topic = "/cam/color/compressed"', topic)
    assert ingest_bags(tmp_path / "raw", tmp_path / "data", "*.mcap", text=text).num_episodes == 1
    episode = vlapipe.open_dataset(tmp_path / "data").episode(0)
    for camera, seed in (("left", 100), ("right", 200)):
        assert [episode.jpeg(camera, row) for row in range(12)] == [make_jpeg(seed + row) for row in range(12)]
    unnamed = text.replace('cameras = ["left", "right"]', "")
    with pytest.raises(UsageError, match="cameras is missing"):
        ingest_bags(tmp_path / "raw", tmp_path / "none", "*.mcap", text=unnamed)


def test_recordings_in_one_folder_are_no_splits_of_one_bag(tmp_path: Path) -> None:
    store = store_of(2)
    for seed in range(2):
        sent = list(robot(store, seed=seed, start=START_NS + seed * 3600 * 10**9))
        write_mcap(tmp_path / "raw" / f"run_{seed}.mcap", sent, store)
    report = ingest_bags(tmp_path / "raw", tmp_path / "data", "*.mcap")
    assert (report.num_episodes, len(report.rejects)) == (0, 1)
    assert "bag.apart" in str(report.rejects)
    assert ingest_bags(tmp_path / "raw", tmp_path / "each", "*.mcap", episodes="per_file = true").num_episodes == 2


TWO_DRIVERS = """
name = "drivers"
anchor = "arm"
action = { kind = "next", of = "arm/q" }
sample = { state = ["arm/q"] }
split = { val = 0.0 }

[streams.arm]
kind = "bag"
files = ["*.mcap"]
topic = "/joint_states"
time.array = "header.stamp"
on_missing = "MISSING"
fields.q = { array = "position[arm2, arm1]", shape = [2] }

[streams.words]
kind = "bag"
files = ["*.mcap"]
topic = "/words"
time.array = "received"
fields.said = { array = "data", dtype = "text", width = 16 }
"""


@pytest.mark.parametrize("on_missing", ["refuse", "drop", "mask"])
def test_messages_that_lack_a_joint_are_missing_values(tmp_path: Path, on_missing: str) -> None:
    store = store_of(2)
    sent = []
    for row in range(40):
        at = START_NS + row * 10_000_000
        sent.append(Sent(STATES, at, joint_state(store, at, ("arm1", "arm2"), [row, -row])))
        sent.append(Sent(STATES, at + 5000, joint_state(store, at + 5000, ("finger",), [row / 100])))
        sent.append(Sent("/words", at, store.types["std_msgs/msg/String"](f"word {row}")))
    write_mcap(tmp_path / "raw" / "run.mcap", sent, store)
    report = ingest_bags(tmp_path / "raw", tmp_path / "data", "", text=TWO_DRIVERS.replace("MISSING", on_missing))
    if on_missing == "refuse":
        assert (report.num_episodes, len(report.rejects)) == (0, 1)
        return
    assert report.num_episodes == 1, report
    episode = vlapipe.open_dataset(tmp_path / "data").episode(0)
    arm = episode["arm/q"] if on_missing == "drop" else episode["arm/q"][::2]
    assert np.array_equal(arm, [[-row, row] for row in range(40)])
    assert episode.text("words/said") == [f"word {row}" for row in range(40)]
    if on_missing == "mask":
        assert np.array_equal(episode["arm/q_is_missing"], np.tile([[0, 0], [1, 1]], (40, 1)))


def test_schema_in_the_docs_reads_a_bag(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[4] / "docs" / "formats.md").read_text()
    text = page.partition("## ROS bags and MCAP")[2].partition("```toml\n")[2].partition("```")[0]
    store = store_of(2)
    for seed in range(2):
        WAYS["ros2 db3"][2](tmp_path / "raw" / f"run{seed}", list(robot(store, seed=seed)), store)
    report = ingest_bags(tmp_path / "raw", tmp_path / "data", "", text=text)
    assert (report.num_episodes, report.rejects) == (2, [])


def test_bag_of_several_recordings_is_cut_where_the_clock_jumps(tmp_path: Path) -> None:
    store = store_of(2)
    recorded = [list(robot(store, seed=seed, start=START_NS + seed * 100 * 10**9)) for seed in range(3)]
    write_mcap(tmp_path / "raw" / "day.mcap", [each for sent in recorded for each in sent], store)
    report = ingest_bags(tmp_path / "raw", tmp_path / "data", "*.mcap", episodes="split_gap_s = 5.0")
    assert (report.num_episodes, report.rejects) == (3, [])
    dataset = vlapipe.open_dataset(tmp_path / "data")
    for number, sent in enumerate(recorded):
        episode = dataset.episode(number)
        states = [each.message.position for each in sent if each.topic == STATES]
        assert np.array_equal(episode["robot/q"], np.array(states, dtype=np.float32))
        images = [each.message.data.tobytes() for each in sent if each.topic == COLOUR]
        assert [episode.jpeg("front", row) for row in range(len(episode["front/timestamp"]))] == images


@pytest.mark.parametrize("options", [{"image_storage": "raw"}, {"image_size": (16, 12)}])
def test_images_of_bags_obey_the_options_of_images(tmp_path: Path, options: dict[str, Any]) -> None:
    store = store_of(2)
    write_mcap(tmp_path / "raw" / "run.mcap", list(robot(store)), store)
    assert ingest_bags(tmp_path / "raw", tmp_path / "data", "*.mcap", **options).num_episodes == 1
    batch = next(iter(vlapipe.Loader(vlapipe.open_dataset(tmp_path / "data"), batch_size=2)))
    height, width = (12, 16) if "image_size" in options else (24, 32)
    assert batch["observation.images.front"].shape == (2, 1, 3, height, width)


def test_bytes_of_a_bag_count_once_for_a_shard_though_several_streams_read_it(tmp_path: Path) -> None:
    store = store_of(2)
    bags = [write_mcap(tmp_path / "raw" / f"run{seed}.mcap", list(robot(store, seed=seed)), store) for seed in range(2)]
    size = int(2.5 * bags[0].stat().st_size)
    one = ingest_bags(tmp_path / "raw", tmp_path / "a", "*.mcap", episodes="per_file = true", shard_bytes=size)
    two = ingest_bags(tmp_path / "raw", tmp_path / "b", "*.mcap", episodes="per_file = true", shard_bytes=size // 2)
    assert (one.num_shards, two.num_shards) == (1, 2)

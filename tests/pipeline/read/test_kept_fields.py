"""Masks, texts and rotations reach a training batch with the values of the raw file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import UsageError

SCHEMA = """
name = "kept"
anchor = "robot"
[episodes]
per_file = true
[split]
val = 0
[streams.robot]
kind = "csv"
files = ["*.csv"]
time = { column = "t" }
missing = ["", "-"]
[streams.robot.fields.q]
columns = ["qw", "qx", "qy", "qz"]
quaternion = "wxyz"
normalize = true
[streams.robot.fields.pose]
columns = ["x", "y", "z", "rx", "ry", "rz"]
unit = ["mm", "mm", "mm", "deg", "deg", "deg"]
to = ["m", "m", "m", "rad", "rad", "rad"]
euler = "xyz"
[streams.robot.fields.force]
columns = ["fx", "fy"]
on_missing = "mask"
[streams.robot.fields.grip]
columns = ["grip"]
optional = true
[streams.robot.fields.label]
columns = ["label"]
dtype = "text"
width = 12
[streams.robot.derived]
r6 = { kind = "rotation_6d", of = "q" }
p6 = { kind = "rotation_6d", of = "pose" }
[action]
kind = "next"
of = ["robot/pose", "robot/r6"]
append = { gripper = { field = "robot/grip", threshold = 0.5, above = 1, below = -1 } }
[sample]
state = ["robot/r6", "robot/p6", "robot/force", "robot/force_is_missing", "robot/grip_is_missing"]
state_rows = 2
action_rows = 2
"""
LABELS = ["reach", "größer", "12 Zeichen!", "", "reach"]


def make_raw(folder: Path) -> None:
    folder.mkdir()
    header = "t,qw,qx,qy,qz,x,y,z,rx,ry,rz,fx,fy,label"
    half = 2 * 0.5**0.5  # of length 2: a quarter turn about z
    turns = [(1, 0, 0, 0), (half, 0, 0, half), (0, 3, 0, 0), (1, 0, 0, 0), (1, 0, 0, 0)]
    for name, grip in (("with", True), ("without", False)):
        lines = [header + (",grip" if grip else "")]
        for i, turn in enumerate(turns):
            pose = (1000, 2000 * i, 0, 0, 0, 90 if i == 1 else 0)
            force = ("-" if i == 2 else 0.5 * i, i)
            cells = [i / 10, *turn, *pose, *force, LABELS[i] or "x"]
            lines.append(",".join(map(str, cells)) + (f",{i / 4}" if grip else ""))
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module", params=["zarr", pytest.param("npz", marks=pytest.mark.slow)])
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("kept")
    make_raw(root / "raw")
    (root / "kept.toml").write_text(SCHEMA)
    config = IngestConfig(
        source=root / "raw", out=root / "data", schema=str(root / "kept.toml"), shard_format=request.param
    )
    report = ingest(config)
    assert not report.rejects, report.rejects
    return vlapipe.open_dataset(root / "data")


QUARTER = [0, 1, 0, -1, 0, 0]
NONE = [1, 0, 0, 0, 1, 0]


def test_rotations_are_derived_when_the_shard_is_opened_and_not_stored(dataset: Dataset) -> None:
    episode = dataset.episode("with")
    assert np.allclose(episode["robot/r6"], [NONE, QUARTER, [1, 0, 0, 0, -1, 0], NONE, NONE], atol=1e-6)
    assert np.allclose(episode["robot/p6"], [NONE, QUARTER, NONE, NONE, NONE], atol=1e-6)
    assert not {"robot/r6", "robot/p6"} & set(dataset.manifest.shards[0]["arrays"])
    assert {"robot/r6", "robot/p6"} <= set(episode)
    assert np.allclose(dataset.stats["robot/p6"].mean, np.mean([NONE, QUARTER, NONE, NONE, NONE], axis=0), atol=1e-6)


def test_masks_say_what_was_missing(dataset: Dataset) -> None:
    episode = dataset.episode("with")
    assert episode["robot/force_is_missing"].tolist() == [[0, 0], [0, 0], [1, 0], [0, 0], [0, 0]]
    there = episode["robot/force_is_missing"] == 0
    assert episode["robot/force"][there].tolist() == [0, 0, 0.5, 1, 2, 1.5, 3, 2, 4]
    assert episode["robot/grip_is_missing"].tolist() == [0] * 5
    assert dataset.episode("without")["robot/grip_is_missing"].tolist() == [1] * 5
    assert dataset.stats["robot/grip_is_missing"].mean.tolist() == [0.5]


def test_texts_come_back_as_strings(dataset: Dataset) -> None:
    assert dataset.episode("with").text("robot/label") == [label or "x" for label in LABELS]
    assert "robot/label" not in dataset.stats
    with pytest.raises(UsageError, match="numbers"):
        dataset.episode(0).text("robot/force")
    with pytest.raises(KeyError):
        dataset.episode(0).text("robot/none")


def test_actions_may_take_rotations_and_a_grippers_side(dataset: Dataset) -> None:
    actions = dataset.episode("with")["action/value"]
    assert np.allclose(actions[0], [1, 2, 0, 0, 0, np.pi / 2, *QUARTER, -1], atol=1e-6)
    assert np.allclose(actions[2], [1, 6, 0, 0, 0, 0, *NONE, 1], atol=1e-6)
    assert actions[4].tolist() == [0] * 13


def test_batch_holds_them_in_the_schemas_order(dataset: Dataset) -> None:
    pytest.importorskip("torch")
    loader = vlapipe.Loader(dataset, batch_size=4, shuffle=False, num_workers=0)
    state = next(iter(loader))["observation.state"].numpy()
    assert state.shape == (4, 2, 17)
    episode = dataset.episode("with")
    names = ["r6", "p6", "force", "force_is_missing", "grip_is_missing"]
    expected = np.concatenate([episode[f"robot/{name}"].reshape(5, -1) for name in names], axis=1)
    assert np.array_equal(state[3], expected[2:4])


def test_inspect_lists_them(dataset: Dataset) -> None:
    fields = dataset.manifest.streams["robot"]["fields"]
    assert fields["r6"]["derived"] == {"kind": "rotation_6d", "of": "q"}
    assert fields["label"]["text"] is True
    assert fields["force_is_missing"]["dtype"] == "uint8"
    command = [sys.executable, "-m", "vlapipe", "inspect", str(dataset.path), "--episode", "with", "--json"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert report["arrays"]["robot/r6"] == {"shape": [5, 6], "dtype": "float32"}
    subprocess.run(command[:5], check=True, capture_output=True)


MASKED_COMMAND = """
name = "masked"
anchor = "robot"
[episodes]
per_file = true
[split]
val = 0
[streams.robot]
kind = "csv"
files = ["*.csv"]
time = { column = "t" }
[streams.robot.fields.q]
columns = ["q"]
[streams.robot.fields.cmd]
columns = ["cmd"]
on_missing = "mask"
[action]
kind = "column"
of = ["robot/cmd"]
[sample]
state = ["robot/q"]
"""


def test_a_command_that_was_filled_in_is_no_action(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    cells = ["", "0.5", "0.25", "", "0.125", "1.5"]
    (raw / "run.csv").write_text("t,q,cmd\n" + "".join(f"{i / 10},{i},{cell}\n" for i, cell in enumerate(cells)))
    (tmp_path / "s.toml").write_text(MASKED_COMMAND)
    report = ingest(IngestConfig(source=raw, schema=str(tmp_path / "s.toml"), out=tmp_path / "data"))
    assert report.num_episodes == 1
    rows = vlapipe.open_dataset(tmp_path / "data").episode(0)["action/row"]
    assert (rows >= 0).tolist() == [cell != "" for cell in cells]

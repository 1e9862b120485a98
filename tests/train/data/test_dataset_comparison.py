"""Joined datasets must agree: every difference is reported, each with both datasets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from datasets_to_join import RENAMED, make

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.loader import Loader
from vlapipe.train.data.window_size import Window


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make(tmp_path_factory.mktemp("first"))


def rows_of(*datasets: Dataset, **options: Any) -> list[tuple[list[float], list[float]]]:
    loader = Loader(datasets, split=None, shuffle=False, num_workers=0, **options)
    return [
        (state.tolist(), sensor.tolist())
        for batch in loader
        for state, sensor in zip(batch["observation.state"], batch["observation.sensors.force"], strict=True)
    ]


def test_streams_of_other_names_are_read_each_by_its_own_schema(first: Dataset, tmp_path: Path) -> None:
    other = make(tmp_path, edits=RENAMED)
    alone = rows_of(first)
    assert Loader(first, split=None).num_left_out  # the sensor's gap
    assert rows_of(other) == alone
    assert rows_of(first, other) == alone * 2
    assert rows_of(other, first) == alone * 2


DIFFERENCES = {
    "unit of another kind": (
        {'unit = "rad"': 'unit = "mm"'},
        {},
        ["joint: expected 2 in rad as in {first}, found 2 in mm"],
    ),
    "gripper of one": (
        {'unit = "m"': 'unit = "m", gripper = { open = 0.1, closed = 0 }'},
        {},
        ["grip: expected 1 in m as in {first}, found 1 in m, gripper open 0.1, closed 0"],
    ),
    "unit not said": ({', unit = "m"': ""}, {}, ["grip: expected 1 in m as in {first}, found 1 in no declared unit"]),
    "sensor's unit": ({'unit = "N"': 'unit = "A"'}, {}, ["sensors.force: numbers: expected 3 in N .* found 3 in A"]),
    "rate": (
        {},
        {"rate_hz": 25},
        [r"state and action: rate: expected 50 Hz \(.*\) as in {first}, found 25 Hz \(state 0.08 s, chunk 0.32 s\)"],
    ),
    "sensor's rate": ({}, {"sensor_hz": 325}, ["observation.sensors.force: rate: expected .* Hz .* found .* Hz"]),
    "order of fields": (
        {'state = ["robot/joint", "robot/grip"]': 'state = ["robot/grip", "robot/joint"]'},
        {},
        ["observation.state: fields: expected joint, grip as in {first}, found grip, joint"],
    ),
    "rows": ({"state_rows = 3": "state_rows = 7"}, {}, [r"\[sample\] state_rows: expected 3 as in {first}, found 7"]),
    "stride": ({"action_stride = 2": "action_stride = 1"}, {}, [r"\[sample\] action_stride: expected 2 .* found 1"]),
    "kind of action": ({'kind = "delta"': 'kind = "absolute"'}, {}, ["action: kind: expected delta .* found absolute"]),
    "period of action": ({"period_s = 0.1": "period_s = 0.2"}, {}, ["action: period_s: expected 0.1 s .* found 0.2 s"]),
    "gripper": (
        {"above = 1, below = 0": "above = 0, below = 1"},
        {},
        ["action: append: expected .*1 above 0.02 and else 0 as in {first}, found .*0 above 0.02 and else 1"],
    ),
    "several": (
        {'unit = "rad"': 'unit = "mm"', "sensor_rows = 4": "sensor_rows = 2"},
        {"rate_hz": 10},
        ["state: joint: .* in mm", r"action: joint: .* in mm", "sensor_rows: .* found 2", "rate: .* found 10 Hz"],
    ),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_datasets_that_do_not_mean_the_same_are_refused(first: Dataset, tmp_path: Path, name: str) -> None:
    edits, options, expected = DIFFERENCES[name]
    other = make(tmp_path, edits=edits, **options)
    with pytest.raises(UsageError) as refusal:
        Loader([first, other], split=None)
    problem = refusal.value.problem
    assert "\n" not in problem
    assert problem.startswith(f"{other.path}: ")
    for part in expected:
        assert re.search(part.format(first=re.escape(str(first.path))), problem), problem


def test_window_settles_what_schemas_say_differently(first: Dataset, tmp_path: Path) -> None:
    other = make(tmp_path, edits={"state_rows = 3": "state_rows = 7", "action_stride = 2": "action_stride = 1"})
    window = Window(state_rows=5, action_stride=2)
    assert rows_of(first, other, window=window) == rows_of(first, window=window) * 2


def test_rate_does_not_matter_where_one_row_is_read(first: Dataset, tmp_path: Path) -> None:
    other = make(tmp_path, rate_hz=25)
    window = Window(state_rows=1, action_rows=1)
    assert len(rows_of(first, other, window=window)) == len(rows_of(first, window=window)) + len(
        rows_of(other, window=window)
    )


ON_ANCHOR = {"sensors = { force = ": 'sensors = { grip = "robot/grip", force = '}


def test_sensor_entry_may_lie_on_the_anchor_itself(tmp_path: Path) -> None:
    dataset = make(tmp_path, edits=ON_ANCHOR)
    for batch in Loader(dataset, batch_size=16, split=None, num_workers=0):
        grip, state = batch["observation.sensors.grip"], batch["observation.state"]
        assert grip.shape[1:] == (4,)
        assert (grip[:, -3:] == state[:, :, 2]).all()  # each column is the time of its row
        padded = batch["observation.sensors.grip_is_pad"]
        assert (padded[:, 1:] == batch["observation.state_is_pad"]).all()
        assert (padded[:, 0] == (batch["frame_index"] < 3)).all()


def test_sensor_entries_on_the_anchor_and_on_a_stream_of_their_own_are_refused(tmp_path: Path) -> None:
    on_anchor = make(tmp_path / "a", edits={'force = "wrench/newton"': 'force = "robot/grip"'})
    with pytest.raises(UsageError, match="clock"):
        Loader([on_anchor, make(tmp_path / "b", edits={'force = "wrench/newton"': 'force = "wrench/newton"'})])


def test_dataset_without_a_training_episode_takes_the_statistics_of_the_others(first: Dataset, tmp_path: Path) -> None:
    validates = make(tmp_path, edits={"val = 0": "val = 0.999999"})
    assert set(validates.column("split").tolist()) == {"val"}
    both = Loader([first, validates], num_workers=0)
    alone = Loader(first, num_workers=0)
    assert (both.spec.moments["action"].mean == alone.spec.moments["action"].mean).all()
    with pytest.raises(UsageError, match="no training episode to normalize with"):
        Loader(validates)

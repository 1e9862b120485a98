"""A reading that is enormously farther out than all others of its column is named; motion and grippers are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_recordings import SCHEMA, findings_of, joints, write_dataset, write_episode


def spikes(root: Path, schema: str = SCHEMA) -> list[tuple[str, int, str, int]]:
    found = [f for f in findings_of(root, schema) if f["code"] == "value.spike"]
    assert all(f["severity"] == "warning" for f in found)
    return [(f["episode"], f["line"], f["column"], f["count"]) for f in found]


def test_recordings_without_a_spike_have_no_finding(tmp_path: Path) -> None:
    assert findings_of(write_dataset(tmp_path / "raw")) == []


@pytest.mark.parametrize(
    ("rows", "value"),
    [((20,), 65535.0), ((20,), -32768.0), ((0,), 999.0), ((59,), -999.0), ((20, 21), 65535.0), ((3, 30, 50), 1e6)],
)
def test_spike_is_named_with_its_line_and_column(tmp_path: Path, rows: tuple[int, ...], value: float) -> None:
    def edit(number: int, values: Any) -> None:
        if number == 1:
            values[list(rows), 2] = value

    found = spikes(write_dataset(tmp_path / "raw", edit=edit))
    assert found == [("task/episode_001", rows[0] + 2, "joint_3", len(rows))]


def test_spike_in_degrees_is_named_although_the_joint_itself_goes_far(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for i in range(3):
        values = joints(i)
        values[:, :6] *= 100
        if i == 2:
            values[7, 0] = 32767
        write_episode(root / "task" / f"episode_{i}", values)
    schema = SCHEMA.replace('"rad"', '"deg"')
    begin, end = schema.index("[streams.camera]"), schema.index("[action]")
    assert spikes(root, schema[:begin] + schema[end:]) == [("task/episode_2", 9, "joint_1", 1)]


def test_spike_of_a_joint_that_is_held_still_is_measured_by_the_other_joints(tmp_path: Path) -> None:
    def edit(number: int, values: Any) -> None:
        values[:, 4] = 0.75
        values[11, 4] = 65535 if number == 0 else 0.75

    assert spikes(write_dataset(tmp_path / "raw", edit=edit)) == [("task/episode_000", 13, "joint_5", 1)]


def test_gripper_that_opens_for_the_last_rows_is_no_spike(tmp_path: Path) -> None:
    def edit(_: int, values: Any) -> None:
        values[:, 6] = 0
        values[-2:, 6] = 0.04

    assert spikes(write_dataset(tmp_path / "raw", edit=edit)) == []


def test_joint_that_moves_in_one_episode_only_and_there_for_three_rows_is_no_spike(tmp_path: Path) -> None:
    def edit(number: int, values: Any) -> None:
        values[:, 4] = np.random.default_rng(number).normal(0, 1e-4, len(values))
        if number == 3:
            values[-3:, 4] = (0.2, 0.4, 0.6)
        if number == 4:
            values[:, 4] = np.linspace(0, 1, len(values))

    assert spikes(write_dataset(tmp_path / "raw", edit=edit)) == []


def test_reading_that_is_farther_out_but_not_enormously_is_no_spike(tmp_path: Path) -> None:
    def edit(number: int, values: Any) -> None:
        values[:, 4] = np.random.default_rng(number).normal(0, 1e-4, len(values))
        if number == 3:
            values[30, 4] = 2.5
        if number == 4:
            values[:, 4] = np.linspace(0, 1, len(values))

    assert spikes(write_dataset(tmp_path / "raw", edit=edit)) == []

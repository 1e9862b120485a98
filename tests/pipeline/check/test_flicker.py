"""A joint that only flickers between encoder steps is named, and marked in the statistics; a gripper is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_recordings import SCHEMA, findings_of, ingested, write_dataset

from vlapipe.pipeline.shards.dataset import open_dataset


def flickering(root: Path, schema: str = SCHEMA) -> list[str]:
    return [f["column"] for f in findings_of(root, schema) if f["code"] == "value.flicker"]


def jump_between_steps(number: int, values: Any) -> None:
    steps = np.random.default_rng(number).integers(-1, 2, len(values))
    values[:, 4] = 1.569 + 0.00044 * steps


def add_noise(number: int, values: Any) -> None:
    values[:, 4] = 1.569 + np.random.default_rng(number).normal(0, 2e-4, len(values))


def creep_by_one_step(_: int, values: Any) -> None:
    values[:, 4] = np.where(np.arange(len(values)) < 35, 1.569, 1.56944)


@pytest.mark.parametrize("edit", [jump_between_steps, add_noise, creep_by_one_step])
def test_joint_that_only_flickers_is_named_once(tmp_path: Path, edit: Any) -> None:
    assert flickering(write_dataset(tmp_path / "raw", edit=edit)) == ["joint_5"]


def test_joint_that_moves_in_one_episode_does_not_flicker(tmp_path: Path) -> None:
    def edit(number: int, values: Any) -> None:
        if number:
            jump_between_steps(number, values)

    assert flickering(write_dataset(tmp_path / "raw", edit=edit)) == []


def test_small_smooth_motion_does_not_flicker(tmp_path: Path) -> None:
    def edit(number: int, values: Any) -> None:
        values[:, 4] = 1.569 + 0.004 * np.sin(np.arange(len(values)) / 9 + number)

    assert flickering(write_dataset(tmp_path / "raw", edit=edit)) == []


def test_gripper_of_0_and_1_among_joints_in_degrees_without_a_unit_does_not_flicker(tmp_path: Path) -> None:
    def edit(_: int, values: Any) -> None:
        values[:, :6] *= 100
        values[:, 6] = (np.arange(len(values)) // 15) % 2

    schema = SCHEMA.replace('unit = "rad"\n', "").replace(
        '[streams.robot.fields.gripper_width]\ncolumns = ["gripper_width"]\nunit = "m"\n', ""
    )
    schema = schema.replace('["joint_{1..6}"]', '["joint_{1..6}", "gripper_width"]')
    assert flickering(write_dataset(tmp_path / "raw", edit=edit), schema) == []


def test_statistics_mark_the_column_in_the_state_and_in_the_action(tmp_path: Path) -> None:
    stats = open_dataset(ingested(write_dataset(tmp_path / "raw", edit=jump_between_steps))).stats
    for path in ("robot/joint_position", "action/value"):
        flicker = stats[path].flicker
        assert flicker is not None
        assert flicker.tolist() == [False, False, False, False, True, False]
    assert stats["robot/gripper_width"].flicker is None

"""What training makes of numbers: angles that come round as absolute actions, and values too fine for float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_recordings import SCHEMA, findings_of, joints, write_dataset, write_episode

DEGREES = SCHEMA.replace('"rad"', '"deg"')


def without_camera(schema: str) -> str:
    begin, end = schema.index("[streams.camera]"), schema.index("[action]")
    return schema[:begin] + schema[end:]


def wraps(root: Path, schema: str) -> list[tuple[str, int | None, str, int]]:
    found = [f for f in findings_of(root, schema) if f["code"] == "action.wraps"]
    return [(f["episode"], f["line"], f["column"], f["count"]) for f in found]


def come_round(size: float, number: int = 1) -> Any:
    def edit(episode: int, values: Any) -> None:
        values[:, :6] *= size / (2 * np.pi)
        if episode == number:
            angle = size * (0.402 + 0.004 * np.arange(len(values)))
            values[:, 5] = (angle + size / 2) % size - size / 2

    return edit


@pytest.mark.parametrize(("schema", "size"), [(SCHEMA, 2 * np.pi), (DEGREES, 360.0)])
def test_absolute_action_of_an_angle_that_comes_round_is_told(tmp_path: Path, schema: str, size: float) -> None:
    found = wraps(write_dataset(tmp_path / "raw", edit=come_round(size)), schema)
    assert found == [("task/episode_001", 27, "joint_6", 1)]


def test_declared_period_counts_and_a_change_of_angle_is_no_absolute_action(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "raw", edit=come_round(360.0))
    unitless = SCHEMA.replace('unit = "rad"', "period = 360")
    assert [found[2] for found in wraps(root, unitless)] == ["joint_6"]
    assert wraps(root, unitless.replace('"absolute"', '"delta"')) == []
    assert wraps(root, SCHEMA.replace('unit = "rad"\n', "")) == []


def test_angle_near_the_wrap_on_one_side_in_one_episode_and_on_the_other_in_others_is_told(tmp_path: Path) -> None:
    def edit(episode: int, values: Any) -> None:
        values[:, 5] = (3.1 if episode == 2 else -3.1) + 0.03 * np.sin(np.arange(len(values)) / 5 + episode)

    assert wraps(write_dataset(tmp_path / "raw", edit=edit), SCHEMA) == [("task/episode_002", None, "joint_6", 1)]


def test_joint_that_turns_from_end_to_end_through_zero_does_not_come_round(tmp_path: Path) -> None:
    def edit(_: int, values: Any) -> None:
        values[:, 5] = np.linspace(-3.1, 3.1, len(values))

    assert wraps(write_dataset(tmp_path / "raw", edit=edit), SCHEMA) == []


def test_values_that_float32_cannot_tell_apart_are_told_if_they_train(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    for i in range(2):
        values = joints(i)
        values[:, 0] += 5_000_000  # as UTM coordinates
        write_episode(root / "task" / f"episode_{i}", values)
    schema = without_camera(SCHEMA).replace('unit = "rad"', 'unit = "m"\ndtype = "float64"')
    found = [f for f in findings_of(root, schema) if f["code"] == "value.float32"]
    assert [(f["episode"], f["column"]) for f in found] == [
        ("task/episode_0", "joint_1"),
        ("task/episode_1", "joint_1"),
    ]
    assert found[0]["line"] is not None
    other_state = schema.replace("[action]", '[sample]\nstate = ["robot/gripper_width"]\n[action]')
    other_state = other_state.replace('of = ["robot/joint_position"]', 'of = ["robot/gripper_width"]')
    assert "value.float32" not in [f["code"] for f in findings_of(root, other_state)]


def test_small_float64_values_have_no_finding(tmp_path: Path) -> None:
    schema = SCHEMA.replace('unit = "rad"', 'unit = "rad"\ndtype = "float64"')
    assert findings_of(write_dataset(tmp_path / "raw"), schema) == []

"""Actions derived from stored fields: the meaning of each kind, and angles that wrap around."""

from __future__ import annotations

import numpy as np
import pytest

from vlapipe.pipeline.shards.derive.actions import action_fields, action_size, derive_actions
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.schema import Schema


def schema(kind: str, period: str = "period_s = 0.1", append: str = "gripper = 0.5") -> Schema:
    return parse_schema(
        f"""
        name = "t"
        anchor = "robot"
        [streams.robot]
        kind = "csv"
        files = ["x.csv"]
        [streams.robot.time]
        column = "t"
        [streams.robot.fields.pose]
        columns = ["x", "angle"]
        period = [0, 360]
        [streams.robot.fields.width]
        columns = ["width"]
        [action]
        kind = "{kind}"
        of = ["robot/pose"]
        {period}
        append = {{ {append} }}
        [sample]
        state = ["robot/pose"]
        """,
        "t",
    )


POSE = np.array([[1, 170], [2, -170], [4, -150], [8, 10]], dtype=np.float32)
AHEAD = np.array([1, 2, 3, -1], dtype=np.int32)


def test_delta_wraps_angles_and_nothing_else() -> None:
    actions = derive_actions(schema("delta"), {"robot/pose": POSE}, AHEAD)
    assert actions.tolist() == [[1, 20, 0.5], [2, 20, 0.5], [4, 160, 0.5], [0, 0, 0]]
    assert actions.dtype == np.float32


def test_absolute_is_the_value_ahead() -> None:
    actions = derive_actions(schema("absolute"), {"robot/pose": POSE}, AHEAD)
    assert actions[:3].tolist() == [[2, -170, 0.5], [4, -150, 0.5], [8, 10, 0.5]]


def test_column_is_the_value_at_the_row_itself() -> None:
    actions = derive_actions(schema("column", ""), {"robot/pose": POSE}, np.arange(4, dtype=np.int32))
    assert actions.tolist() == [[1, 170, 0.5], [2, -170, 0.5], [4, -150, 0.5], [8, 10, 0.5]]


def test_next_is_the_value_one_row_later() -> None:
    actions = derive_actions(schema("next", ""), {"robot/pose": POSE}, np.array([1, 2, 3, -1], dtype=np.int32))
    assert actions.tolist() == [[2, -170, 0.5], [4, -150, 0.5], [8, 10, 0.5], [0, 0, 0]]


WIDTH = np.array([0.04, 0.01, 0.02, 0.03], dtype=np.float32)


@pytest.mark.parametrize(
    ("append", "expected"),
    [
        ('gripper = { field = "robot/width" }', [0.01, 0.02, 0.03, 0]),
        ('gripper = { field = "robot/width", threshold = 0.015 }', [0, 1, 1, 0]),
        ('gripper = { field = "robot/width", threshold = 0.025, above = -1, below = 2.5 }', [2.5, 2.5, -1, 0]),
    ],
)
def test_gripper_is_a_field_at_the_row_looked_ahead_to_or_its_side_of_a_threshold(
    append: str, expected: list[float]
) -> None:
    spec = schema("delta", append=append)
    assert action_fields(spec) == ["robot/pose", "robot/width"]
    actions = derive_actions(spec, {"robot/pose": POSE, "robot/width": WIDTH}, AHEAD)
    assert np.allclose(actions[:, 2], expected)
    assert actions.shape == (4, action_size(spec)) == (4, 3)


def test_gripper_of_a_column_action_is_read_at_the_row_itself() -> None:
    spec = schema("column", "", 'gripper = { field = "robot/width", threshold = 0.015 }')
    actions = derive_actions(spec, {"robot/pose": POSE, "robot/width": WIDTH}, np.arange(4, dtype=np.int32))
    assert actions[:, 2].tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize("turns", [-2, -1, 1, 3])
def test_whole_turns_do_not_change_a_delta(turns: int) -> None:
    turned = POSE.copy()
    turned[1:, 1] += 360 * turns
    plain = derive_actions(schema("delta"), {"robot/pose": POSE}, AHEAD)
    assert np.allclose(derive_actions(schema("delta"), {"robot/pose": turned}, AHEAD), plain)

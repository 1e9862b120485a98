"""A mean of several chunks is an action: angles go the short way round, and a quaternion has length 1."""

from __future__ import annotations

import numpy as np
import pytest

from vlapipe.train.data.description import NamedField
from vlapipe.train.robot.blending import ActionQueue

ANGLES = NamedField(path="robot/joint", num_columns=2, period=(360.0, 0.0))
TURN = NamedField(path="robot/turn", num_columns=4, is_quaternion=True)


def mean_of(fields: list[NamedField], *actions: list[float]) -> list[float]:
    """The mean of one action of each chunk, all with the same weight."""
    queue = ActionQueue(1, 0.0, fields)
    for i, action in enumerate(actions):
        queue.add(np.tile(np.array(action, dtype=np.float32), (len(actions), 1)))
        if i < len(actions) - 1:
            queue.next()
    return [float(value) for value in queue.next()]


def test_angles_go_the_short_way_round_and_numbers_do_not() -> None:
    assert mean_of([ANGLES], [359, 359], [1, 1]) == [0.0, 180.0]
    assert mean_of([ANGLES], [1, 1], [359, 359]) == [360.0, 180.0]
    assert mean_of([], [359, 359], [1, 1]) == [180.0, 180.0]


def test_a_quaternion_and_its_negative_are_the_same_turn() -> None:
    half = [0.0, 0.0, np.sqrt(0.5), np.sqrt(0.5)]
    found = mean_of([ANGLES, TURN], [0, 0, *(-value for value in half)], [0, 0, 0, 0, 0, 1])
    assert np.linalg.norm(found[2:]) == pytest.approx(1)
    assert 2 * np.arctan2(found[4], found[5]) == pytest.approx(np.pi / 4, rel=1e-5)


def test_a_chunk_that_has_ended_counts_no_more() -> None:
    queue = ActionQueue(2, 1.0, [])
    queue.add(np.zeros((3, 1), dtype=np.float32))
    assert [queue.next()[0], queue.next()[0], queue.needs_chunk] == [0, 0, True]
    queue.add(np.ones((3, 1), dtype=np.float32))
    blended = 1 / (1 + np.e)  # the older one has the larger weight
    assert [float(queue.next()[0]), float(queue.next()[0])] == pytest.approx([blended, 1.0])


def test_the_action_is_the_callers() -> None:
    queue = ActionQueue(2, None, [])
    chunk = np.zeros((2, 1), dtype=np.float32)
    queue.add(chunk)
    queue.next()[0] = 7
    assert not chunk.any()

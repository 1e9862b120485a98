from __future__ import annotations

import numpy as np

from vlapipe.pipeline.demo.episode import make_plan
from vlapipe.pipeline.demo.kinematics import euler_matrix
from vlapipe.pipeline.demo.scene import COLOURS, MIN_SEPARATION_MM, PAD_HEIGHT_MM, PAD_RADIUS_MM


def test_the_tip_ends_inside_the_pad_that_the_instruction_names() -> None:
    for index in range(100):
        scene, motion = make_plan(0, index)
        tip = motion.tip_mm(np.array([motion.duration_s]))[0]
        named = next(i for i, colour in enumerate(scene.colours) if colour in scene.instruction)
        assert np.linalg.norm(tip[:2] - scene.centres_mm[named]) < PAD_RADIUS_MM
        assert 0 < tip[2] < PAD_HEIGHT_MM


def test_the_tip_enters_along_the_needle() -> None:
    _, motion = make_plan(0, 4)
    axis = euler_matrix(motion.end_euler_deg[None])[0, :, 2]
    way = motion.end_mm - motion.hover_mm
    assert np.allclose(way / np.linalg.norm(way), axis)


def test_each_colour_is_named_once_in_four_episodes() -> None:
    for first in (0, 4, 8):
        scenes = [make_plan(5, first + i)[0] for i in range(4)]
        assert {scene.colours[scene.named] for scene in scenes} == set(COLOURS)


def test_pads_stand_apart_and_differ_in_colour() -> None:
    for index in range(50):
        scene, _ = make_plan(1, index)
        distance = np.linalg.norm(scene.centres_mm[:, None] - scene.centres_mm, axis=2)
        assert distance[np.triu_indices(3, 1)].min() >= MIN_SEPARATION_MM
        assert len(set(scene.colours)) == 3


def test_durations_speeds_and_starts_vary() -> None:
    motions = [make_plan(2, index)[1] for index in range(50)]
    durations = np.array([motion.duration_s for motion in motions])
    speeds = [motion.approach_s[1] - motion.approach_s[0] for motion in motions]
    starts = np.stack([motion.start_mm for motion in motions])
    assert durations.min() >= 3.5
    assert durations.max() <= 5.0
    assert max(speeds) > 1.3 * min(speeds)
    assert (np.ptp(starts, axis=0) > 20).all()


def test_the_motion_is_smooth() -> None:
    _, motion = make_plan(2, 9)
    time_s = np.arange(0, motion.duration_s, 0.01)
    velocity = np.gradient(motion.tip_mm(time_s), 0.01, axis=0)
    assert np.linalg.norm(velocity, axis=1).max() < 300  # mm/s
    assert np.linalg.norm(np.diff(velocity, axis=0), axis=1).max() < 20

from __future__ import annotations

import numpy as np

from vlapipe.pipeline.demo.episode import Recording, make_plan
from vlapipe.pipeline.demo.kinematics import euler_matrix
from vlapipe.pipeline.demo.sensors import ALINE_DEPTH_MM, ALINE_ROWS, FORCE_NOISE_N, surface_gap


def _gap_mm(recording: Recording) -> np.ndarray:
    """The gap at each row of the sensor, worked out again from the plan; robot row 0 is within 1 ms of its start."""
    scene, motion = make_plan(3, 5)
    time_s = recording.sensor_s - recording.robot_s[0]
    return surface_gap(scene, motion.tip_mm(time_s), euler_matrix(motion.euler_deg(time_s))[:, :, 2])


def test_the_force_rises_only_after_contact(recording: Recording) -> None:
    gap = _gap_mm(recording)
    before, deep = recording.force_n[gap > 0.1], recording.force_n[gap < -3]
    assert len(before) > 500
    assert len(deep) > 300
    assert np.abs(before).max() < 6 * FORCE_NOISE_N
    assert deep.min() > 30 * FORCE_NOISE_N


def test_the_aline_peaks_where_the_surface_is(recording: Recording) -> None:
    gap = _gap_mm(recording)
    near = (gap > 1) & (gap < ALINE_DEPTH_MM - 1)
    depth = np.linspace(0, ALINE_DEPTH_MM, ALINE_ROWS)
    smooth = np.stack([np.convolve(line, np.ones(9) / 9, "same") for line in recording.aline[near]])
    assert near.sum() > 100
    assert np.median(np.abs(depth[smooth.argmax(axis=1)] - gap[near])) < 0.1
    assert smooth.argmax(axis=1).std() > 100  # it moves


def test_the_aline_is_noise_while_the_surface_is_out_of_sight(recording: Recording) -> None:
    far = recording.aline[_gap_mm(recording) > ALINE_DEPTH_MM + 1]
    assert far.mean() < 0.05
    assert far.max() < 0.15


def test_the_aline_decays_below_the_surface(recording: Recording) -> None:
    inside = recording.aline[_gap_mm(recording) < -1].mean(axis=0)
    blocks = inside[:1000].reshape(10, 100).mean(axis=1)
    assert (np.diff(blocks[:6]) < 0).all()


def test_alines_are_multiples_of_the_converters_step(recording: Recording) -> None:
    levels = recording.aline * np.float32(4096)
    assert recording.aline.shape == (len(recording.sensor_s), ALINE_ROWS)
    assert np.array_equal(levels, np.rint(levels))
    assert recording.aline.min() >= 0
    assert recording.aline.max() < 1


def test_the_gap_over_a_pad_is_shorter_than_beside_it() -> None:
    scene, _ = make_plan(3, 5)
    down = np.array([[0.0, 0.0, -1.0]] * 2)
    over = np.append(scene.centres_mm[0], 40.0)
    gap = surface_gap(scene, np.stack([over, [0.0, 300.0, 40.0]]), down)
    assert gap.tolist() == [28.0, 40.0]

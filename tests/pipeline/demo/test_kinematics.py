from __future__ import annotations

import numpy as np
import pytest

from vlapipe.pipeline.demo.episode import make_plan
from vlapipe.pipeline.demo.kinematics import (
    JOINT_LIMIT_DEG,
    NEEDLE_MM,
    euler_matrix,
    forward,
    inverse,
    matrix_euler,
    tip_pose,
)


def _joints(num_rows: int) -> np.ndarray:
    """Joints of the branch that ``inverse`` chooses: arm to the front, elbow up, joint 5 above zero."""
    low, high = [-60, -20, -30, -170, 10, -170], [60, 60, 50, 170, 110, 170]
    return np.random.default_rng(0).uniform(low, high, (num_rows, 6))


def test_the_flange_at_zero_joints_is_where_the_manual_says() -> None:
    points, rotation = forward(np.zeros((1, 6)))
    assert points[0, 5] == pytest.approx([190, 0, 308])
    assert points[0, 6] == pytest.approx([190 + NEEDLE_MM, 0, 308])
    assert rotation[0] @ [0, 0, 1] == pytest.approx([1, 0, 0], abs=1e-12)


def test_inverse_gives_back_the_joints_that_forward_took() -> None:
    joints = _joints(5000)
    points, rotation = forward(joints)
    found = inverse(points[:, 6], rotation)
    assert np.abs((found - joints + 180) % 360 - 180).max() < 1e-9


def test_forward_reaches_the_pose_that_inverse_was_asked_for() -> None:
    pose = tip_pose(_joints(5000))
    reached = tip_pose(inverse(pose[:, :3], euler_matrix(pose[:, 3:])))
    assert np.abs(reached[:, :3] - pose[:, :3]).max() < 1e-9
    assert np.abs((reached[:, 3:] - pose[:, 3:] + 180) % 360 - 180).max() < 1e-9


def test_euler_angles_are_mobile_xyz() -> None:
    angles = np.array([[30.0, 0, 0], [0, 30, 0], [0, 0, 30], [150, -20, 70]])
    half = np.sqrt(3) / 2
    about_x, about_y, about_z, mixed = euler_matrix(angles)
    assert about_x[1] == pytest.approx([0, half, -0.5])
    assert about_y[0] == pytest.approx([half, 0, 0.5])
    assert about_z[0] == pytest.approx([half, -0.5, 0])
    each = euler_matrix(np.array([[150.0, 0, 0], [0, -20, 0], [0, 0, 70]]))
    assert mixed == pytest.approx(each[0] @ each[1] @ each[2])
    assert matrix_euler(euler_matrix(angles)) == pytest.approx(angles)


def test_links_keep_their_lengths() -> None:
    points, _ = forward(_joints(100))
    lengths = np.linalg.norm(np.diff(points, axis=1), axis=2)
    assert lengths == pytest.approx(np.broadcast_to([135, 135, 38, 120, 70, NEEDLE_MM], (100, 6)))


def test_every_planned_motion_stays_within_the_joint_limits_and_off_the_singularities() -> None:
    for index in range(60):
        _, motion = make_plan(11, index)
        time_s = np.linspace(-0.1, motion.duration_s, 200)
        joints, angles = motion.joint_deg(time_s), motion.euler_deg(time_s)
        assert (joints > JOINT_LIMIT_DEG[:, 0]).all()
        assert (joints < JOINT_LIMIT_DEG[:, 1]).all()
        assert (joints[:, 4] > 10).all()  # joint 5 at zero is the wrist's singularity
        assert (np.abs(angles[:, 1]) < 45).all()  # b at 90 is the Euler angles'
        assert (np.abs(np.diff(joints, axis=0)) < 10).all()
        assert (np.abs(angles) < 175).all()  # no angle wraps

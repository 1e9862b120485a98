"""Forward and inverse kinematics of a Meca500-like arm with a needle. ``forward(inverse(pose))`` is the pose.

Lengths follow Mecademic's drawing of the Meca500 R3, whose joints at zero put the flange at (190, 0, 308) mm. The tool
is a needle along the flange's axis. The pose's point is the needle's tip, and the tool's z axis points from flange to
tip. Euler angles follow Mecademic's convention: mobile XYZ, R = Rx(a) Ry(b) Rz(r), in degrees.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "JOINT_LIMIT_DEG",
    "NEEDLE_MM",
    "euler_matrix",
    "forward",
    "inverse",
    "is_reachable",
    "matrix_euler",
    "tip_pose",
]

Floats = NDArray[np.float64]

SHOULDER_MM = 135.0  # table to joint 2
UPPER_ARM_MM = 135.0  # joint 2 to joint 3
ELBOW_MM = 38.0  # offset of the forearm's axis from joint 3
FOREARM_MM = 120.0  # joint 3 to the wrist's centre, along the forearm
FLANGE_MM = 70.0  # wrist centre to flange
NEEDLE_MM = 60.0  # flange to tip

JOINT_LIMIT_DEG = np.array([[-175, 175], [-70, 90], [-135, 70], [-170, 170], [-115, 115], [-36000, 36000]], float)

_LINK_MM = float(np.hypot(FOREARM_MM, ELBOW_MM))  # joint 3 to the wrist's centre, straight
_LINK_RAD = float(np.arctan2(ELBOW_MM, FOREARM_MM))


def _rotation(axis: int, angle_rad: Floats) -> Floats:
    """Return rotations ``(N, 3, 3)`` about a coordinate axis by ``angle_rad (N,)``."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.zeros((len(angle_rad), 3, 3))
    matrix[:, axis, axis] = 1.0
    matrix[:, first, first] = matrix[:, second, second] = np.cos(angle_rad)
    matrix[:, second, first] = np.sin(angle_rad)
    matrix[:, first, second] = -np.sin(angle_rad)
    return matrix


_TOOL = _rotation(1, np.array([np.pi / 2]))[0]  # the last joint's x axis is the flange's z axis


def euler_matrix(euler_deg: Floats) -> Floats:
    """Convert angles a, b, r ``(N, 3)`` to rotations ``(N, 3, 3)``."""
    a, b, r = np.radians(euler_deg).T
    matrix: Floats = _rotation(0, a) @ _rotation(1, b) @ _rotation(2, r)
    return matrix


def matrix_euler(rotation: Floats) -> Floats:
    """Convert rotations ``(N, 3, 3)`` to angles a, b, r ``(N, 3)``, with b in [-90, 90]."""
    b = np.arcsin(np.clip(rotation[:, 0, 2], -1.0, 1.0))
    a = np.arctan2(-rotation[:, 1, 2], rotation[:, 2, 2])
    r = np.arctan2(-rotation[:, 0, 1], rotation[:, 0, 0])
    euler_deg: Floats = np.degrees(np.stack([a, b, r], axis=1))
    return euler_deg


def forward(joint_deg: Floats) -> tuple[Floats, Floats]:
    """Return the positions of the arm's parts for joint angles ``(N, 6)``.

    Returns:
        Points ``(N, 7, 3)`` in mm (base, shoulder, elbow, forearm's root, wrist, flange, needle tip), and the tool's
        rotation ``(N, 3, 3)``.
    """
    q1, q2, q3, q4, q5, q6 = np.radians(joint_deg).T
    upper = _rotation(2, q1) @ _rotation(1, q2)
    fore = upper @ _rotation(1, q3)
    hand = fore @ _rotation(0, q4) @ _rotation(1, q5) @ _rotation(0, q6)
    points = np.zeros((len(joint_deg), 7, 3))
    points[:, 1:, 2] = SHOULDER_MM
    points[:, 2:] += UPPER_ARM_MM * upper[:, None, :, 2]
    points[:, 3:] += ELBOW_MM * fore[:, None, :, 2]
    points[:, 4:] += FOREARM_MM * fore[:, None, :, 0]
    points[:, 5:] += FLANGE_MM * hand[:, None, :, 0]
    points[:, 6:] += NEEDLE_MM * hand[:, None, :, 0]
    return points, hand @ _TOOL


def inverse(tip_mm: Floats, rotation: Floats) -> Floats:
    """Return joint angles ``(N, 6)`` in degrees for tips ``(N, 3)`` and tool rotations ``(N, 3, 3)``.

    The solution is front, elbow up, wrist down. The pose must be in reach and off the wrist's singularity (joint 5 at
    zero).
    """
    wrist = tip_mm - (FLANGE_MM + NEEDLE_MM) * rotation[:, :, 2]
    q1 = np.arctan2(wrist[:, 1], wrist[:, 0])
    radius, height = np.hypot(wrist[:, 0], wrist[:, 1]), wrist[:, 2] - SHOULDER_MM
    reach = np.hypot(radius, height)
    at_shoulder = (UPPER_ARM_MM**2 + reach**2 - _LINK_MM**2) / (2 * UPPER_ARM_MM * reach)
    at_elbow = (reach**2 - UPPER_ARM_MM**2 - _LINK_MM**2) / (2 * UPPER_ARM_MM * _LINK_MM)
    assert (np.abs(at_elbow) < 1).all(), "the pose is out of the arm's reach"
    upper_rad = np.arctan2(height, radius) + np.arccos(at_shoulder)  # angle above the horizontal
    link_rad = upper_rad - np.arccos(at_elbow)
    q2 = np.pi / 2 - upper_rad
    q3 = _LINK_RAD - link_rad - q2
    fore = _rotation(2, q1) @ _rotation(1, q2 + q3)
    hand = fore.transpose(0, 2, 1) @ rotation @ _TOOL.T  # = Rx(q4) Ry(q5) Rx(q6)
    q4 = np.arctan2(hand[:, 1, 0], -hand[:, 2, 0])
    q5 = np.arctan2(np.hypot(hand[:, 1, 0], hand[:, 2, 0]), hand[:, 0, 0])
    q6 = np.arctan2(hand[:, 0, 1], hand[:, 0, 2])
    joint_deg: Floats = np.degrees(np.stack([q1, q2, q3, q4, q5, q6], axis=1))
    return joint_deg


def is_reachable(tip_mm: Floats, rotation: Floats) -> bool:
    """Whether the arm reaches all of these tips ``(N, 3)`` with these rotations ``(N, 3, 3)`` within its limits."""
    wrist = tip_mm - (FLANGE_MM + NEEDLE_MM) * rotation[:, :, 2]
    reach = np.linalg.norm(wrist - np.array([0.0, 0.0, SHOULDER_MM]), axis=1)
    if not ((reach > abs(UPPER_ARM_MM - _LINK_MM) + 1) & (reach < UPPER_ARM_MM + _LINK_MM - 1)).all():
        return False
    joint_deg = inverse(tip_mm, rotation)
    return bool(((joint_deg >= JOINT_LIMIT_DEG[:, 0]) & (joint_deg <= JOINT_LIMIT_DEG[:, 1])).all())


def tip_pose(joint_deg: Floats) -> Floats:
    """Return the poses ``(N, 6)`` that the controller reports: the tip's x, y, z in mm, then a, b, r in degrees."""
    points, rotation = forward(joint_deg)
    return np.concatenate([points[:, 6], matrix_euler(rotation)], axis=1)

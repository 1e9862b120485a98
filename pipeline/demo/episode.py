"""Simulates one episode: everything that the recorder receives, as a pure function of seed and index.

All streams sample the same motion, each on its own clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.demo.camera import CAMERAS
from vlapipe.pipeline.demo.clocks import ticks, transport
from vlapipe.pipeline.demo.kinematics import euler_matrix, forward, tip_pose
from vlapipe.pipeline.demo.motion import Motion, plan_motion
from vlapipe.pipeline.demo.render import render_jpegs
from vlapipe.pipeline.demo.scene import Scene, make_scene
from vlapipe.pipeline.demo.sensors import alines, draw_stiffness, forces, surface_gap

__all__ = ["CAMERA_HZ", "ROBOT_HZ", "SENSOR_HZ", "Recording", "make_plan", "simulate"]

Floats = NDArray[np.float64]

ROBOT_HZ, SENSOR_HZ, CAMERA_HZ = 100, 650, 15
FIRST_DAY = datetime(2026, 1, 12, 9, 0, 0, tzinfo=UTC)
EPISODE_SPACING = timedelta(seconds=20)  # longer than any episode, so that folder names are unique
ENCODER_TICK_DEG = 0.0005


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The recorded streams. All stamps are epoch seconds; robot and sensor streams have one row a stamp."""

    scene: Scene
    name: str  # name of the episode's folder
    robot_s: Floats  # when the robot was in this state
    robot_sent_s: Floats
    robot_received_s: Floats
    joint_deg: NDArray[np.float32]  # (rows, 6)
    pose: NDArray[np.float32]  # (rows, 6), mm and degrees, computed from exactly these joints
    sensor_s: Floats
    sensor_sent_s: Floats
    force_n: NDArray[np.float32]  # (rows,)
    aline: NDArray[np.float32]  # (rows, 1025)
    images: dict[str, list[tuple[float, bytes]]]  # by camera: stamp and JPEG


def make_plan(seed: int, index: int) -> tuple[Scene, Motion]:
    """Return what happens in an episode, before any of it is recorded."""
    scene = make_scene(seed, index)
    return scene, plan_motion(scene, np.random.default_rng([seed, index, 2]))


def simulate(seed: int, index: int, *, max_duration_s: float | None = None) -> Recording:
    """Record one episode, or its first ``max_duration_s`` seconds."""
    scene, motion = make_plan(seed, index)
    rng = np.random.default_rng([seed, index, 3])
    end_s = min(motion.duration_s, max_duration_s or motion.duration_s)
    began = FIRST_DAY + index * EPISODE_SPACING
    epoch_s = began.timestamp() + float(rng.uniform(0.2, 0.8))

    robot = ticks(0.0, end_s, ROBOT_HZ, 0.0002, rng)
    joints = (np.rint(motion.joint_deg(robot) / ENCODER_TICK_DEG) * ENCODER_TICK_DEG).astype(np.float32)
    sent = transport(epoch_s + robot, 0.0002, 0.00002, rng)
    sensor = ticks(-0.01, end_s + 0.005, SENSOR_HZ, 0.00002, rng)
    gap = surface_gap(scene, motion.tip_mm(sensor), euler_matrix(motion.euler_deg(sensor))[:, :, 2])
    images = {}
    for camera in CAMERAS:
        phase_s = -float(rng.uniform(0.2, 1.0)) / CAMERA_HZ  # the first image precedes the robot's first row
        shown = ticks(phase_s, end_s, CAMERA_HZ, 0.001, rng)
        frames = render_jpegs(scene, camera, forward(motion.joint_deg(shown))[0])
        images[camera.name] = list(zip((epoch_s + shown).tolist(), frames, strict=True))
    return Recording(
        scene=scene,
        name=began.strftime("episode_%Y%m%d_%H%M%S"),
        robot_s=epoch_s + robot,
        robot_sent_s=sent,
        robot_received_s=transport(sent, 0.001, 0.0003, rng),
        joint_deg=joints,
        pose=tip_pose(joints.astype(np.float64)).astype(np.float32),
        sensor_s=epoch_s + sensor,
        sensor_sent_s=transport(epoch_s + sensor, 0.0003, 0.00003, rng),
        force_n=forces(gap, sensor, draw_stiffness(rng), rng),
        aline=alines(gap, rng),
        images=images,
    )

"""The operator's motion of the needle: approach above the named pad, descend along the needle, enter, hold.

A motion is a closed formula of time, so that every stream can sample the same motion on its own clock.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.demo.kinematics import euler_matrix, inverse
from vlapipe.pipeline.demo.scene import PAD_HEIGHT_MM, Scene

__all__ = ["Motion", "plan_motion"]

Floats = NDArray[np.float64]

# The needle leans about 30 degrees from the vertical: a is near 150, b near 0. No angle then comes near its jump at
# +-180, b is far from the singularity at +-90, and joint 5 stays above 15 degrees.
EULER_DEG = np.array([152.0, 0.0, 20.0])
EULER_SPREAD_DEG = np.array([5.0, 7.0, 12.0])
START_MM = ((120.0, 195.0), (-115.0, 10.0), (62.0, 95.0))
DRIFT_HZ, TREMOR_HZ = (0.3, 1.2), (5.0, 9.0)  # a hand sways slowly, and shakes by a few hundredths of a millimetre
DRIFT_MM, TREMOR_MM = 0.35, 0.04
AIM_MM = 1.5  # standard deviation of the point on the pad that the operator aims at
MAX_AIM_MM = 4.0
MIN_DURATION_S = 3.5  # if the operator is quick, the holding phase is longer


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Times are in seconds from the start of the recording, positions in mm, angles (a, b, r) in degrees."""

    start_mm: Floats
    hover_mm: Floats
    end_mm: Floats
    start_euler_deg: Floats
    end_euler_deg: Floats
    lift_mm: float
    approach_s: tuple[float, float]  # begin, end
    descend_s: tuple[float, float]
    duration_s: float
    sway_mm: Floats  # (waves, 3)
    sway_hz: Floats  # (waves, 3)
    sway_rad: Floats  # (waves, 3)

    def tip_mm(self, time_s: Floats) -> Floats:
        """Return the position of the needle's tip ``(N, 3)`` at times ``(N,)``."""
        near = _minimum_jerk(time_s, self.approach_s)[:, None]
        down = _minimum_jerk(time_s, self.descend_s)[:, None]
        path = self.start_mm + near * (self.hover_mm - self.start_mm) + down * (self.end_mm - self.hover_mm)
        path[:, 2] += self.lift_mm * 4 * near[:, 0] * (1 - near[:, 0])
        phase = 2 * np.pi * self.sway_hz * time_s[:, None, None] + self.sway_rad
        sway: Floats = (self.sway_mm * np.sin(phase)).sum(axis=1)
        return path + sway * (1 - 0.85 * down)  # the pad steadies the needle

    def euler_deg(self, time_s: Floats) -> Floats:
        """Return the tool's Euler angles ``(N, 3)`` at times ``(N,)``."""
        near = _minimum_jerk(time_s, self.approach_s)[:, None]
        return self.start_euler_deg + near * (self.end_euler_deg - self.start_euler_deg)

    def joint_deg(self, time_s: Floats) -> Floats:
        """Return the arm's joint angles ``(N, 6)`` at times ``(N,)``."""
        return inverse(self.tip_mm(time_s), euler_matrix(self.euler_deg(time_s)))


def plan_motion(scene: Scene, rng: np.random.Generator) -> Motion:
    """Draw a motion for the scene. Its start, its speed and the needle's lean do not depend on the pads."""
    start = rng.uniform(*np.array(START_MM).T)
    end_euler = EULER_DEG + EULER_SPREAD_DEG * rng.uniform(-1, 1, 3)
    start_euler = EULER_DEG + EULER_SPREAD_DEG * rng.uniform(-1, 1, 3)
    aim = rng.normal(0, AIM_MM, 2)
    aim *= min(1.0, MAX_AIM_MM / float(np.linalg.norm(aim)))
    entry = np.append(scene.centres_mm[scene.named] + aim, PAD_HEIGHT_MM)
    axis = euler_matrix(end_euler[None])[0, :, 2]
    approach_begin = rng.uniform(0.1, 0.25)
    approach_end = approach_begin + rng.uniform(1.3, 2.1)
    descend_begin = approach_end - rng.uniform(0.0, 0.15)  # an eager operator descends before the approach has ended
    descend_end = descend_begin + rng.uniform(1.0, 1.5)
    return Motion(
        start_mm=start,
        hover_mm=entry - rng.uniform(18, 26) * axis,
        end_mm=entry + rng.uniform(5.5, 8.5) * axis,
        start_euler_deg=start_euler,
        end_euler_deg=end_euler,
        lift_mm=rng.uniform(4, 14),
        approach_s=(approach_begin, approach_end),
        descend_s=(descend_begin, descend_end),
        duration_s=max(MIN_DURATION_S, descend_end + rng.uniform(0.5, 0.8)),
        sway_mm=np.array([[DRIFT_MM], [DRIFT_MM / 2], [TREMOR_MM]]) * rng.uniform(0.5, 1.0, (3, 3)),
        sway_hz=np.stack([rng.uniform(*DRIFT_HZ, 3), rng.uniform(*DRIFT_HZ, 3), rng.uniform(*TREMOR_HZ, 3)]),
        sway_rad=rng.uniform(0, 2 * np.pi, (3, 3)),
    )


def _minimum_jerk(time_s: Floats, span_s: tuple[float, float]) -> Floats:
    """Return 0 before the span, 1 after it, and between them a minimum-jerk hand motion (Flash and Hogan 1985)."""
    u = np.clip((time_s - span_s[0]) / (span_s[1] - span_s[0]), 0.0, 1.0)
    return np.asarray(u**3 * (10 - 15 * u + 6 * u * u))

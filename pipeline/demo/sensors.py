"""Simulates the needle's sensors: the force along it, and the OCT A-line ahead of its tip. Both follow from geometry.

Before the tip passes a pad's surface, the force is noise and the A-line's peak shows the surface coming nearer. After
that the force rises and the peak stays at depth zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.demo.scene import PAD_HEIGHT_MM, Scene

__all__ = ["ALINE_ROWS", "alines", "draw_stiffness", "forces", "surface_gap"]

Floats = NDArray[np.float64]

ALINE_ROWS = 1025
ALINE_DEPTH_MM = 12.0  # depth that the A-line covers ahead of the tip
ADC_LEVELS = 4096  # 12 bits
FRICTION_N, FRICTION_SPEED_MM_S, FRICTION_DEPTH_MM = 0.12, 1.5, 0.6
FORCE_NOISE_N = 0.004
NOISE_FLOOR, SPECKLE = 0.035, 0.22
PEAK_MM, DECAY_MM = 0.09, 1.9


def surface_gap(scene: Scene, tip_mm: Floats, axis: Floats) -> Floats:
    """Return the distance from the tip along the needle to the surface, ``(N,)`` in mm; negative inside a pad.

    Args:
        scene: the pads.
        tip_mm: the tip's positions ``(N, 3)``.
        axis: the needle's directions ``(N, 3)``, unit vectors that point down.
    """
    to_pad = (PAD_HEIGHT_MM - tip_mm[:, 2]) / axis[:, 2]
    to_table = -tip_mm[:, 2] / axis[:, 2]
    entry = tip_mm + to_pad[:, None] * axis
    return np.where(scene.pad_at(entry[:, :2]) >= 0, to_pad, to_table)


def draw_stiffness(rng: np.random.Generator) -> float:
    """Draw the stiffness of an episode's pads, in newtons a mm of depth."""
    return float(rng.uniform(0.09, 0.15))


def forces(gap_mm: Floats, time_s: Floats, stiffness_n_mm: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the axial force ``(N,)`` in newtons: stiffness times depth, friction while the needle moves, and noise."""
    depth = np.maximum(-gap_mm, 0.0)
    speed = np.gradient(depth, time_s)
    grip = FRICTION_N * np.tanh(speed / FRICTION_SPEED_MM_S) * (1 - np.exp(-depth / FRICTION_DEPTH_MM))
    force: Floats = stiffness_n_mm * depth + grip + rng.normal(0, FORCE_NOISE_N, len(depth))
    return force.astype(np.float32)


def alines(gap_mm: Floats, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return A-lines ``(N, 1025)``: intensity over depth in [0, 1).

    Each value is a multiple of 1/4096, as from a 12-bit converter.
    """
    depth = np.linspace(0, ALINE_DEPTH_MM, ALINE_ROWS, dtype=np.float32)
    below = depth - np.maximum(gap_mm, 0.0).astype(np.float32)[:, None]
    tissue = np.where(below >= 0, 0.42 * np.exp(-np.maximum(below, 0) / np.float32(DECAY_MM)), np.float32(0))
    peak = 0.45 * np.exp(-((below / np.float32(PEAK_MM)) ** 2))
    noise = rng.standard_normal(below.shape, dtype=np.float32)
    signal = (tissue + peak) * (1 + np.float32(SPECKLE) * noise) + NOISE_FLOOR * (1 + np.float32(0.3) * noise)
    levels: NDArray[np.float32] = np.clip(np.rint(signal * ADC_LEVELS), 0, ADC_LEVELS - 1)
    return levels / np.float32(ADC_LEVELS)

"""Two fixed pinhole cameras without distortion: a point projects to the pixel whose ray meets the point.

Pixel (0, 0) is the centre of the upper left pixel; x points right and y down.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

__all__ = ["CAMERAS", "HEIGHT", "WIDTH", "Camera"]

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 640, 480


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A camera at ``position_mm`` that looks at ``look_at_mm``. The world's z axis points up in the image."""

    name: str
    position_mm: tuple[float, float, float]
    look_at_mm: tuple[float, float, float]
    focal_px: float

    @cached_property
    def axes(self) -> Floats:
        """The camera's axes in the world, as rows: right, down, forward."""
        forward = np.subtract(self.look_at_mm, self.position_mm)
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(forward, right), forward])

    def project(self, points_mm: Floats) -> tuple[Floats, Floats]:
        """Return pixels ``(..., 2)`` (x, y) of points ``(..., 3)``, and the pixels per mm ``(...)`` at each point."""
        seen = (points_mm - np.array(self.position_mm)) @ self.axes.T
        scale = self.focal_px / seen[..., 2]
        centre = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2])
        return seen[..., :2] * scale[..., None] + centre, scale

    def plane(self, z_mm: float, rows: slice, columns: slice) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Intersect the rays of a box of pixels with the plane at height z.

        Returns x and y in mm, and a mask of the rays that meet the plane.
        """
        y, x = np.mgrid[rows, columns].astype(float)
        across = np.stack([x - (WIDTH - 1) / 2, y - (HEIGHT - 1) / 2, np.full_like(x, self.focal_px)], axis=-1)
        rays = across @ self.axes
        meets = rays[..., 2] < -1e-3 * self.focal_px
        along = (z_mm - self.position_mm[2]) / np.where(meets, rays[..., 2], -1.0)
        return self.position_mm[0] + along * rays[..., 0], self.position_mm[1] + along * rays[..., 1], meets


# The needle leans so that the hand is to the tip's left (+y) and behind it. Seen from the front (+x) and from the
# right (-y), the arm then hides the pads least.
CAMERAS = (
    Camera(name="View1", position_mm=(560.0, -255.0, 330.0), look_at_mm=(115.0, -48.0, 85.0), focal_px=740.0),
    Camera(name="View2", position_mm=(250.0, -430.0, 400.0), look_at_mm=(160.0, -50.0, 40.0), focal_px=900.0),
)

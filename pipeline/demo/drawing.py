"""Draws anti-aliased shapes on an RGB image. Each function changes only a box of pixels around its shape."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.demo.camera import Camera

__all__ = ["Image", "blend", "box_of", "capsule_coverage", "draw_capsule", "draw_disc"]

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Image = NDArray[np.uint8]
Box = tuple[slice, slice]  # rows, columns


def box_of(points: Floats, margin: float, shape: tuple[int, ...]) -> Box:
    """Return the box of pixels within ``margin`` of points ``(N, 2)``, clipped to the image. The box may be empty."""
    low, high = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    ends = [(math.floor(low[i] - margin), math.ceil(high[i] + margin) + 1) for i in (0, 1)]
    (x0, x1), (y0, y1) = ([min(max(end, 0), shape[1 - i]) for end in ends[i]] for i in (0, 1))
    return slice(y0, y1), slice(x0, x1)


def blend(image: Image, box: Box, colour: Floats32, coverage: Floats32) -> None:
    """Blend ``colour``, (3,) or (h, w, 3), into a box of the image, weighted by ``coverage (h, w)`` in [0, 1]."""
    part = image[box]
    share = coverage[..., None]
    part[...] = part + share * (colour - part) + np.float32(0.5)


def capsule_coverage(box: Box, ends: Floats, radii: tuple[float, float]) -> tuple[Floats32, Floats32]:
    """Compute how much of each pixel a line with round ends covers.

    Args:
        box: the pixels.
        ends: ``(2, 2)``, x and y of both ends.
        radii: half the line's width at both ends, in pixels.

    Returns:
        Coverage in [0, 1], and the squared distance from the line's middle, 1 at its edge; both ``(h, w)``.
    """
    y = np.arange(box[0].start, box[0].stop, dtype=np.float32)[:, None] - np.float32(ends[0, 1])
    x = np.arange(box[1].start, box[1].stop, dtype=np.float32)[None, :] - np.float32(ends[0, 0])
    way = (ends[1] - ends[0]).astype(np.float32)
    along = (x * way[0] + y * way[1]) / max(np.float32(way @ way), np.float32(1e-6))
    along = np.minimum(np.maximum(along, 0), 1)  # np.clip takes as long again to look at its limits
    square = (x - along * way[0]) ** 2 + (y - along * way[1]) ** 2
    radius = np.float32(radii[0]) + along * np.float32(radii[1] - radii[0])
    coverage = np.minimum(np.maximum(radius + np.float32(0.5) - np.sqrt(square), 0), 1)
    return coverage, square / (radius * radius)


def draw_capsule(image: Image, ends: Floats, radii: tuple[float, float], colour: Floats, shine: float = 0.5) -> None:
    """Draw a rounded rod with ``colour`` along its middle, darker by ``shine`` towards its edge."""
    box = box_of(ends, max(radii) + 1, image.shape)
    if image[box].size:
        coverage, square = capsule_coverage(box, ends, radii)
        shade = 1 - np.float32(shine) * np.minimum(square, 1)
        blend(image, box, shade[..., None] * colour.astype(np.float32), coverage)


def draw_disc(
    image: Image,
    camera: Camera,
    centre_mm: Floats,
    z_mm: float,
    radius_mm: float,
    colour: Floats,
    *,
    opacity: float = 1.0,
    soft_mm: float = 0.0,
) -> None:
    """Draw a horizontal disc at height z. Its edge is blurred over ``soft_mm``, or over one pixel if that is more."""
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    reach = radius_mm + soft_mm
    rim = np.stack([centre_mm[0] + reach * np.cos(turn), centre_mm[1] + reach * np.sin(turn)], axis=1)
    pixels, _ = camera.project(np.column_stack([rim, np.full(len(rim), z_mm)]))
    box = box_of(pixels, 3, image.shape)
    if min(image[box].shape) < 2:
        return
    x, y, _ = camera.plane(z_mm, *box)
    distance = np.hypot(x - centre_mm[0], y - centre_mm[1])
    per_pixel = np.hypot(*np.gradient(distance))  # mm of distance a pixel, in the direction of its change
    coverage = np.clip(0.5 + (radius_mm - distance) / np.maximum(per_pixel, soft_mm), 0, 1) * opacity
    blend(image, box, colour.astype(np.float32), coverage.astype(np.float32))

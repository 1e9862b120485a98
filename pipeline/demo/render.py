"""Draws the scene as a camera sees it. Static parts are drawn once an episode; the arm is drawn on a copy of them.

An image shows everything that a policy needs: each pad in its colour, the needle, and its shadow, which tells its
height.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from vlapipe.pipeline.demo.camera import CAMERAS, HEIGHT, WIDTH, Camera
from vlapipe.pipeline.demo.drawing import Image, blend, box_of, capsule_coverage, draw_capsule, draw_disc
from vlapipe.pipeline.demo.scene import COLOURS, PAD_HEIGHT_MM, PAD_RADIUS_MM, Scene

__all__ = ["encode", "render_arm", "render_jpegs", "render_still"]

Floats = NDArray[np.float64]

QUALITY = 85
TABLE_MM = ((-110.0, 330.0), (-260.0, 190.0))
TABLE, GRID, FLOOR, FAR = ((92, 98, 108), (112, 118, 128), (62, 58, 58), (140, 134, 128))
FOOT_MM = ((40.0, 22.0), (36.0, 26.0))  # radius and height of the arm's foot on the table
SUN = np.array([0.10, 0.22, -1.0])  # direction in which the light travels
SHADOW, METAL, DARK, HUB = ((14, 15, 20), (202, 205, 210), (66, 70, 80), (232, 126, 36))
NEEDLE = (255, 253, 240)
NEEDLE_RADIUS_MM = 1.5  # thicker than a real needle, so that it stays visible at 128 x 96
# Rods of the arm: indices of kinematics.forward's points, radii in mm, colour. Farther rods are drawn first.
RODS = (
    (0, 1, 34.0, 30.0, DARK),
    (1, 2, 25.0, 21.0, METAL),
    (2, 3, 21.0, 19.0, DARK),
    (3, 4, 18.0, 16.0, METAL),
    (4, 5, 14.0, 9.0, DARK),
)


@lru_cache(maxsize=len(CAMERAS))
def _background(camera: Camera) -> Image:
    """Draw the floor, the table and the arm's foot in full light, ``(480, 640, 3)`` RGB."""
    x, y, meets = camera.plane(0.0, slice(0, HEIGHT), slice(0, WIDTH))
    px_mm = np.hypot(*np.gradient(np.hypot(x, y))) + 1e-3

    def inside(low: float, high: float, value: Floats) -> Floats:
        return np.asarray(np.clip(0.5 + np.minimum(value - low, high - value) / px_mm, 0, 1))

    def mix(image: Floats, colour: tuple[int, int, int], share: Floats) -> Floats:
        return image + share[..., None] * (np.array(colour) - image)

    away = np.clip((np.hypot(x, y) - 250) / 900, 0, 1)
    image = mix(np.broadcast_to(np.array(FLOOR, float), (HEIGHT, WIDTH, 3)), FAR, np.where(meets, away, 1.0))
    on_table = inside(*TABLE_MM[0], x) * inside(*TABLE_MM[1], y) * meets
    grain = 1 + 0.03 * np.sin(x / 23 + np.sin(y / 31)) * np.sin(y / 17) + 0.08 * np.exp(-((x - 190) ** 2 + y**2) / 2e4)
    table = mix(np.broadcast_to(np.array(TABLE, float), image.shape), GRID, _grid(x, px_mm) + _grid(y, px_mm))
    drawn: Image = (image + on_table[..., None] * (table * grain[..., None] - image)).astype(np.uint8)
    bottom = 0.0
    for radius, top in FOOT_MM:
        for z in np.arange(bottom, top, 1.0):
            draw_disc(drawn, camera, np.zeros(2), z, radius, np.array(DARK) * (0.45 + 0.01 * z))
        draw_disc(drawn, camera, np.zeros(2), top, radius, np.array(DARK))
        bottom = top
    return drawn


def _grid(value_mm: Floats, px_mm: Floats) -> Floats:
    """Return the fraction of each pixel that grid lines of 1 mm every 40 mm cover."""
    off = np.abs((value_mm + 20) % 40 - 20)
    return np.asarray(np.clip(0.5 + (0.5 - off) / np.maximum(px_mm, 0.5), 0, 1) * 0.5)


def render_still(scene: Scene, camera: Camera) -> Image:
    """Draw the table and the pads without the arm, ``(480, 640, 3)`` RGB."""
    image: Image = np.clip(_background(camera) * scene.light, 0, 255).astype(np.uint8)
    for centre in scene.centres_mm:
        offset = centre + PAD_HEIGHT_MM / 2 * SUN[:2]
        draw_disc(image, camera, offset, 0.0, PAD_RADIUS_MM + 1.5, np.array(SHADOW), opacity=0.45, soft_mm=4.0)
    distance = np.linalg.norm(scene.centres_mm - np.array(camera.position_mm[:2]), axis=1)
    for pad in np.argsort(-distance):
        colour = np.array(COLOURS[scene.colours[pad]]) * scene.light
        for z in np.arange(0.0, PAD_HEIGHT_MM, 0.5):
            draw_disc(image, camera, scene.centres_mm[pad], z, PAD_RADIUS_MM, colour * 0.6)
        draw_disc(image, camera, scene.centres_mm[pad], PAD_HEIGHT_MM, PAD_RADIUS_MM, np.minimum(colour * 1.12, 255))
        draw_disc(image, camera, scene.centres_mm[pad], PAD_HEIGHT_MM, PAD_RADIUS_MM - 1.6, colour)
    return image


def render_jpegs(scene: Scene, camera: Camera, points_mm: Floats) -> list[bytes]:
    """Render one JPEG for each of the arm's poses ``(N, 7, 3)``."""
    still = render_still(scene, camera)
    return [encode(render_arm(still, scene, camera, points)) for points in points_mm]


def render_arm(still: Image, scene: Scene, camera: Camera, points_mm: Floats) -> Image:
    """Return a copy of ``still``, which ``render_still`` made, with the arm in one pose ``(7, 3)`` and its shadow."""
    image = still.copy()
    _draw_shadow(image, scene, camera, points_mm)
    _draw_arm(image, scene, camera, points_mm)
    return image


def encode(image: Image) -> bytes:
    """Return the image as the camera's JPEG."""
    return bytes(simplejpeg.encode_jpeg(image, quality=QUALITY, colorspace="RGB", colorsubsampling="420"))


def _draw_shadow(image: Image, scene: Scene, camera: Camera, points: Floats) -> None:
    """Draw the shadow of hand and needle on the surface below them."""
    share = np.linspace(0, 1, 7)[:, None]
    line = np.concatenate([points[4] + share * (points[5] - points[4]), points[5] + share * (points[6] - points[5])])
    radius_mm = np.repeat([9.0, NEEDLE_RADIUS_MM + 0.5], len(share))
    for _ in range(2):  # the second pass uses the surface's height at the point where the shadow falls
        height = scene.height_at(_fall(line, 0.0)[:, :2])
    ground = _fall(line, np.minimum(height, line[:, 2]))
    pixels, scale = camera.project(ground)
    radius = radius_mm * scale
    box = box_of(pixels, float(radius.max()) + 1, image.shape)
    if not image[box].size:
        return
    coverage = np.zeros(image[box].shape[:2], np.float32)
    for i in range(len(line) - 1):
        ends = pixels[i : i + 2]
        part = box_of(ends, float(radius[i]) + 1, image.shape)
        inner = tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(part, box, strict=True))
        into = coverage[inner]
        np.maximum(into, capsule_coverage(part, ends, (radius[i], radius[i + 1]))[0], out=into)
    blend(image, box, np.array(SHADOW, np.float32), 0.42 * coverage)


def _fall(points: Floats, z_mm: Floats | float) -> Floats:
    return np.asarray(points + ((z_mm - points[:, 2]) / SUN[2])[:, None] * SUN)


def _draw_arm(image: Image, scene: Scene, camera: Camera, points: Floats) -> None:
    rods = points.copy()
    rods[0, 2] = FOOT_MM[-1][1] + RODS[0][2] - 8  # the lowest rod's round end stays inside the foot
    pixels, scale = camera.project(rods)
    for begin, end, r0, r1, colour in sorted(RODS, key=lambda rod: float(scale[rod[0]] + scale[rod[1]])):
        radii = (r0 * scale[begin], r1 * scale[end])
        draw_capsule(image, pixels[[begin, end]], radii, np.array(colour) * scene.light)
    flange, tip = points[5], points[6]
    surface = float(scene.height_at(tip[None, :2])[0])
    if tip[2] < surface:  # the part of the needle inside the pad is hidden
        tip = flange + (tip - flange) * (surface - flange[2]) / (tip[2] - flange[2])
    hub = flange + 0.22 * (points[6] - flange)
    ends, scales = camera.project(np.stack([flange, hub, tip]))
    needle = NEEDLE_RADIUS_MM * scales
    draw_capsule(image, ends[[1, 2]], (needle[1] + 0.8, needle[2] + 0.8), np.array(DARK) * 0.6, 0.0)
    draw_capsule(image, ends[[1, 2]], (needle[1], needle[2]), np.array(NEEDLE), 0.15)
    draw_capsule(image, ends[[0, 1]], (7.0 * scales[0], 4.0 * scales[1]), np.array(HUB) * scene.light)

from __future__ import annotations

import numpy as np
import pytest
import simplejpeg

from vlapipe.pipeline.demo.camera import CAMERAS, HEIGHT, WIDTH, Camera
from vlapipe.pipeline.demo.episode import make_plan
from vlapipe.pipeline.demo.kinematics import forward
from vlapipe.pipeline.demo.render import render_jpegs, render_still
from vlapipe.pipeline.demo.scene import COLOURS, PAD_HEIGHT_MM, PAD_RADIUS_MM, WORKSPACE_MM, Scene

both_cameras = pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: camera.name)


def _nearest_colour(pixel: np.ndarray) -> str:
    """The pad colour of the same hue, whatever the light or a shadow."""
    hues = {name: np.array(colour) / np.linalg.norm(colour) for name, colour in COLOURS.items()}
    return min(hues, key=lambda name: float(np.linalg.norm(hues[name] - pixel / np.linalg.norm(pixel))))


def _pad_pixels(scene: Scene, camera: Camera) -> np.ndarray:
    tops = np.column_stack([scene.centres_mm, np.full(len(scene.colours), PAD_HEIGHT_MM)])
    return camera.project(tops)[0].round().astype(int)


@both_cameras
def test_every_pad_shows_its_colour_at_its_projected_pixel(camera: Camera) -> None:
    hidden = 0
    for index in range(8):
        scene, motion = make_plan(0, index)
        jpeg = render_jpegs(scene, camera, forward(motion.joint_deg(np.zeros(1)))[0])[0]
        image = simplejpeg.decode_jpeg(jpeg)
        assert image.shape == (HEIGHT, WIDTH, 3)
        for (x, y), colour in zip(_pad_pixels(scene, camera), scene.colours, strict=True):
            # A median, because the needle may cross the pad.
            seen = np.median(image[y - 6 : y + 7, x - 6 : x + 7].reshape(-1, 3), axis=0)
            hidden += _nearest_colour(seen) != colour
    assert hidden == 0


@both_cameras
def test_pads_are_large_enough_and_lie_within_the_image(camera: Camera) -> None:
    corners = np.array([[x, y, PAD_HEIGHT_MM] for x in WORKSPACE_MM[0] for y in WORKSPACE_MM[1]])
    pixels, scale = camera.project(corners)
    assert (scale * PAD_RADIUS_MM >= 18).all()
    assert (pixels > 20).all()
    assert (pixels < [WIDTH - 20, HEIGHT - 20]).all()


@both_cameras
def test_the_needle_is_seen_at_96_by_128(camera: Camera) -> None:
    scene, motion = make_plan(0, 1)
    points = forward(motion.joint_deg(np.array([0.0])))[0]
    image = simplejpeg.decode_jpeg(render_jpegs(scene, camera, points)[0])
    small = image.reshape(96, 5, 128, 5, 3).mean(axis=(1, 3))
    share = np.linspace(0.35, 0.9, 12)[:, None]
    on_needle = camera.project(points[0, 5] + share * (points[0, 6] - points[0, 5]))[0]
    x, y = (on_needle / 5).astype(int).T
    bright = np.max([small[y, x + dx].mean(axis=1) for dx in (-1, 0, 1)], axis=0)
    around = np.median([small[y, x + dx].mean(axis=1) for dx in (-6, -5, 5, 6)], axis=0)
    assert (bright > around + 15).mean() > 0.8


@both_cameras
def test_only_the_arm_and_its_shadow_move(camera: Camera) -> None:
    scene, motion = make_plan(0, 1)
    points = forward(motion.joint_deg(np.array([0.0, 1.0])))[0]
    still = render_still(scene, camera).astype(int)
    for jpeg in render_jpegs(scene, camera, points):
        changed = np.abs(simplejpeg.decode_jpeg(jpeg).astype(int) - still).max(axis=2) > 40
        assert 0.01 < changed.mean() < 0.4


@both_cameras
def test_a_pixels_ray_meets_the_plane_where_the_point_projects_from(camera: Camera) -> None:
    x, y, meets = camera.plane(12.0, slice(300, 303), slice(200, 204))
    pixels, _ = camera.project(np.stack([x, y, np.full_like(x, 12.0)], axis=-1))
    rows, columns = np.mgrid[300:303, 200:204]
    assert meets.all()
    assert np.allclose(pixels, np.stack([columns, rows], axis=-1))

"""Faults of the image folders. Each fault touches one file, one camera, or all images of an episode."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from vlapipe.pipeline.demo.camera import CAMERAS
from vlapipe.pipeline.demo.fault_location import FaultLocation

__all__ = ["CAMERA_NAMES", "IMAGE_DEFECTS"]

CAMERA_NAMES = tuple(camera.name for camera in CAMERAS)


def _an_image(episode: Path) -> Path:
    """Return the middle image of the first camera."""
    images = sorted((episode / "images" / CAMERA_NAMES[0]).iterdir())
    return images[len(images) // 2]


def _place(episode: Path, path: Path, description: str) -> FaultLocation:
    return FaultLocation(file=path.relative_to(episode).as_posix(), description=description)


def truncated_jpeg(episode: Path) -> FaultLocation:
    """Cut a JPEG: its end was never written."""
    image = _an_image(episode)
    data = image.read_bytes()
    image.write_bytes(data[: len(data) * 6 // 10])
    return _place(episode, image, "the JPEG is cut to 60 % of its bytes")


def empty_jpeg(episode: Path) -> FaultLocation:
    """Empty an image: the file was opened and nothing was written."""
    image = _an_image(episode)
    image.write_bytes(b"")
    return _place(episode, image, "the JPEG holds 0 bytes")


def not_a_jpeg(episode: Path) -> FaultLocation:
    """Write a web page under a JPEG's name, as a failed download leaves it."""
    image = _an_image(episode)
    image.write_bytes(b"<!DOCTYPE html><html><body>404 Not Found</body></html>")
    return _place(episode, image, "a web page is named .jpg")


def bad_image_name(episode: Path) -> FaultLocation:
    """Rename an image, as by hand, so that its time is lost."""
    image = _an_image(episode)
    renamed = image.rename(image.with_name("frame_abc.jpg"))
    return _place(episode, renamed, "the image's name is not a time")


def missing_camera(episode: Path) -> FaultLocation:
    """Remove the images of one camera, as if it had been unplugged."""
    camera = episode / "images" / CAMERA_NAMES[1]
    shutil.rmtree(camera)
    return _place(episode, camera, f"camera {CAMERA_NAMES[1]} is missing, though the metadata names it")


def no_images(episode: Path) -> FaultLocation:
    """Remove the images of all cameras."""
    images = episode / "images"
    shutil.rmtree(images)
    images.mkdir()
    return _place(episode, images, "the image folder is empty")


IMAGE_DEFECTS: dict[str, Callable[[Path], FaultLocation]] = {
    function.__name__: function
    for function in (truncated_jpeg, empty_jpeg, not_a_jpeg, bad_image_name, missing_camera, no_images)
}

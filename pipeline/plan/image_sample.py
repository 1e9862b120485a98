"""Looks at a few images before the plan is made: each camera's size, and how much room its images will take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vlapipe.pipeline.discover.discovery import Discovery, RawFile
from vlapipe.pipeline.read.images.image_options import ImageOptions, ImageSize
from vlapipe.pipeline.read.images.jpeg import MAX_PIXELS, read_jpeg_header

__all__ = ["ImageSample", "look_at_images"]

_TRIED = 16  # images of a camera that are made smaller to see how large they become


@dataclass(frozen=True, kw_only=True)
class ImageSample:
    """What was seen: ``images`` with the sizes that cameras have, and by camera what an image or a byte becomes."""

    images: ImageOptions
    bytes_of_image: dict[str, int]  # pixels: exact
    bytes_of_byte: dict[str, float]  # JPEG: about

    def stored_bytes(self, camera: str, files: tuple[RawFile, ...]) -> int:
        """About what a shard holds of these files; their own size where nothing is known of the camera."""
        if camera in self.bytes_of_image:
            return len(files) * self.bytes_of_image[camera]
        return int(self.bytes_of_byte.get(camera, 1.0) * sum(file.num_bytes for file in files))


def look_at_images(discovery: Discovery, cameras: Iterable[str], images: ImageOptions) -> ImageSample:
    """Look at the first image of episodes; nothing is opened where images are stored as they were recorded.

    Pixels without a size have the one that most episodes have, so one image of each is looked at.
    """
    bytes_of_image: dict[str, int] = {}
    bytes_of_byte: dict[str, float] = {}
    sizes: dict[str, ImageSize] = {}
    for camera in cameras:
        if images.as_recorded:
            continue
        firsts = [episode.files[camera][0] for episode in discovery.episodes if episode.files.get(camera)]
        if images.storage == "jpeg":
            bytes_of_byte[camera] = _share_kept(discovery.root, firsts, images)
            continue
        size = images.size or _common_size(discovery.root, firsts)
        if size is not None:
            bytes_of_image[camera] = 3 * size[0] * size[1]
            sizes |= {} if images.size else {camera: size}
    images = replace(images, camera_sizes=tuple(sorted(sizes.items())))
    return ImageSample(images=images, bytes_of_image=bytes_of_image, bytes_of_byte=bytes_of_byte)


def _common_size(root: Path, files: list[RawFile]) -> ImageSize | None:
    """The size that most of the images have, of two as frequent ones the first; ``None`` where none can be read."""
    sizes = Counter(size for _, size in _whole(root, files))
    return sizes.most_common(1)[0][0] if sizes else None


def _share_kept(root: Path, files: list[RawFile], images: ImageOptions) -> float:
    """Stored bytes over the files' own, of some of them."""
    from vlapipe.pipeline.read.images.stored_images import shrink_jpeg  # needs Pillow, which most runs need not import

    assert images.size is not None
    before = after = 0
    for data, size in _whole(root, files[:: -(-len(files) // _TRIED)] if files else []):
        try:
            small = data if size == images.size else shrink_jpeg(np.frombuffer(data, dtype=np.uint8), images.size)
        except ValueError:
            continue  # whoever reads the episode names it
        before, after = before + len(data), after + len(small)
    return after / before if before else 1.0


def _whole(root: Path, files: Iterable[RawFile]) -> Iterator[tuple[bytes, ImageSize]]:
    """The bytes and size of each file that is a whole JPEG of a kind that will be read."""
    for file in files:
        try:
            data = (root / file.path).read_bytes()
            header = read_jpeg_header(data)
        except (OSError, ValueError):
            continue
        if header.width * header.height <= MAX_PIXELS and header.odd_coding is None:
            yield data, (header.width, header.height)

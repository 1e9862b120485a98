"""Reads a few images before the plan is made, to learn each camera's image size and its expected stored bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vlapipe.pipeline.discover.discovery import Discovery, RawFile
from vlapipe.pipeline.read.images.image_options import ImageOptions, ImageSize
from vlapipe.pipeline.read.images.jpeg import MAX_PIXELS, read_jpeg_header

__all__ = ["ImageSample", "look_at_images"]

_TRIED = 16  # number of a camera's images that are resized to measure how large they become


@dataclass(frozen=True, kw_only=True)
class ImageSample:
    """What the sampled images tell.

    ``images`` are the image options completed with each camera's size. The other two fields give, by camera, the stored
    bytes of one image, or the stored bytes for each byte of the source file.
    """

    images: ImageOptions
    bytes_of_image: dict[str, int]  # for raw pixels: exact
    bytes_of_byte: dict[str, float]  # for JPEG and for videos: an estimate

    def stored_bytes(self, camera: str, files: tuple[RawFile, ...]) -> int:
        """Estimate the bytes that a shard stores for these files.

        The estimate is the files' own size if nothing is known about the camera.
        """
        if camera in self.bytes_of_image:
            return len(files) * self.bytes_of_image[camera]
        return int(self.bytes_of_byte.get(camera, 1.0) * sum(file.num_bytes for file in files))


def look_at_images(
    discovery: Discovery, cameras: Iterable[str], images: ImageOptions, videos: Collection[str] = ()
) -> ImageSample:
    """Read the first image of episodes. No image is opened if images are stored as they were recorded.

    Of the cameras among ``videos``, some videos are opened in any case: their frames are stored larger than they are.

    If raw pixels are stored and no size is given, a camera gets the size that most of its episodes have, so the first
    image of every episode is read.
    """
    bytes_of_image: dict[str, int] = {}
    bytes_of_byte: dict[str, float] = {}
    sizes: dict[str, ImageSize] = {}
    for camera in cameras:
        if camera in videos:
            from vlapipe.pipeline.plan.video_sample import look_at_videos  # needs an extra

            every = (file for episode in discovery.episodes for file in episode.files.get(camera, ()))
            sample = look_at_videos(discovery.root, every, images)
            bytes_of_byte[camera] = sample.bytes_of_byte
            if images.storage == "raw" and not images.size and sample.sizes:
                sizes[camera] = Counter(sample.sizes).most_common(1)[0][0]
            continue
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
    """Return the most frequent image size (the first of equally frequent ones), or ``None`` if no image is readable."""
    sizes = Counter(size for _, size in _whole(root, files))
    return sizes.most_common(1)[0][0] if sizes else None


def _share_kept(root: Path, files: list[RawFile], images: ImageOptions) -> float:
    """Return the stored bytes divided by the source bytes, measured on some of the files."""
    from vlapipe.pipeline.read.images.stored_images import shrink_jpeg  # needs Pillow, which most runs need not import

    assert images.size is not None
    before = after = 0
    for data, size in _whole(root, files[:: -(-len(files) // _TRIED)] if files else []):
        try:
            small = data if size == images.size else shrink_jpeg(np.frombuffer(data, dtype=np.uint8), images.size)
        except ValueError:
            continue  # not reported here: reading the episode reports the broken image
        before, after = before + len(data), after + len(small)
    return after / before if before else 1.0


def _whole(root: Path, files: Iterable[RawFile]) -> Iterator[tuple[bytes, ImageSize]]:
    """Yield the bytes and (width, height) of each file that is a complete JPEG of a kind that ingest reads."""
    for file in files:
        try:
            data = (root / file.path).read_bytes()
            header = read_jpeg_header(data)
        except (OSError, ValueError):
            continue
        if header.width * header.height <= MAX_PIXELS and header.odd_coding is None:
            yield data, (header.width, header.height)

"""Reads a few images before the plan is made, to learn each camera's image size and its expected stored bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vlapipe.pipeline.discover.discovery import Discovery
from vlapipe.pipeline.discover.listing import RawFile
from vlapipe.pipeline.discover.many_files import bytes_of, first_of
from vlapipe.pipeline.read.images.image_options import ImageOptions, ImageSize
from vlapipe.pipeline.read.images.jpeg import MAX_PIXELS, JpegHeader, read_jpeg_header
from vlapipe.pipeline.read.images.png import PngHeader, read_png_header
from vlapipe.pipeline.shards.format.image_decode import is_png
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["ImageSample", "look_at_images"]

_MAGIC = 8  # bytes that tell a PNG
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

    def stored_bytes(self, camera: str, files: Sequence[RawFile]) -> int:
        """Estimate the bytes that a shard stores for these files.

        The estimate is the files' own size if nothing is known about the camera.
        """
        if camera in self.bytes_of_image:
            return len(files) * self.bytes_of_image[camera]
        return int(self.bytes_of_byte.get(camera, 1.0) * bytes_of(files))


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
        if images.keeps("jpeg") and images.keeps("png"):
            continue
        firsts = [first_of(files) for episode in discovery.episodes if (files := episode.files.get(camera))]
        if images.storage != "raw":
            bytes_of_byte[camera] = _share_kept(discovery.root, firsts, images)
            continue
        common = _common_size(discovery.root, firsts)
        size = images.size or (common[0] if common else None)
        if size is not None:
            bytes_of_image[camera] = (2 if common and common[1] else 3) * size[0] * size[1]
            sizes |= {} if images.size else {camera: size}
    images = replace(images, camera_sizes=tuple(sorted(sizes.items())))
    return ImageSample(images=images, bytes_of_image=bytes_of_image, bytes_of_byte=bytes_of_byte)


def _common_size(root: Path, files: list[str]) -> tuple[ImageSize, bool] | None:
    """Return the most frequent image size (the first of equally frequent ones), and whether images have 16 bits.

    Return ``None`` if no image is readable.
    """
    sizes = Counter((size, is_deep) for _, size, is_deep in _whole(root, files))
    return sizes.most_common(1)[0][0] if sizes else None


def _share_kept(root: Path, files: list[str], images: ImageOptions) -> float:
    """Return the stored bytes divided by the source bytes, measured on some of the files."""
    from vlapipe.pipeline.read.images.stored_images import made_again  # needs Pillow, which most runs need not import

    before = after = 0
    for data, size, is_deep in _whole(root, files[:: -(-len(files) // _TRIED)] if files else []):
        try:
            made = made_again(np.frombuffer(data, dtype=np.uint8), size, images, is_depth=is_deep)
        except ValueError:
            continue  # not reported here: reading the episode reports the broken image
        before, after = before + len(data), after + len(made)
    return after / before if before else 1.0


def _whole(root: Path, files: Iterable[str]) -> Iterator[tuple[bytes, ImageSize, bool]]:
    """Yield each file that is a complete image of a kind that ingest keeps: bytes, (width, height), and if 16 bits.

    A container or a video is not opened.
    """
    for file in files:
        try:
            with (root / file).open("rb") as opened:
                data = opened.read(_MAGIC)
                of_png = is_png(data)
                if not of_png and not data.startswith(b"\xff\xd8"):
                    continue
                data += opened.read()
            header: JpegHeader | PngHeader = read_png_header(data) if of_png else read_jpeg_header(data)
        except (OSError, ValueError) as error:
            raise_if_stopped(error, root / file)
            continue
        if header.width * header.height <= MAX_PIXELS and header.odd_coding is None:
            yield data, (header.width, header.height), isinstance(header, PngHeader) and header.is_deep

"""Turns a camera's JPEG files into smaller ones or into pixels. Every file that cannot be decoded is reported.

Images are made smaller by the same decoder and the same filter as in training, so the stored images are those that
training would have made of the recorded images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from vlapipe.pipeline.read.images.image_options import JPEG_QUALITY, ImageOptions, ImageSize
from vlapipe.pipeline.shards.format.jpeg_decode import colour_subsampling, decode_rgb
from vlapipe.pipeline.stream_rows import ImageRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import Channels

__all__ = ["decode_into", "shrink_jpeg", "store_images"]


def decode_into(jpeg: NDArray[np.uint8], pixels: NDArray[np.uint8], channels: Channels = "rgb") -> None:
    """Decodes one JPEG to RGB ``(height, width, 3)`` of the size of ``pixels``, which must be contiguous.

    The image is decoded as in training, then resized by a triangle filter (width: the ratio of the sizes). Pillow
    resizes with integer arithmetic, so every machine makes the same bytes. They are within 2 levels of torch's
    antialiased bilinear interpolation. EXIF's orientation is ignored, as in training.

    Raises:
        ValueError: the image cannot be decoded.
    """
    size = pixels.shape[:2]
    image = decode_rgb(
        jpeg.data, size, lambda *at: pixels if at == size else np.empty((*at, 3), dtype=np.uint8), channels
    )
    if image is not pixels:
        pixels[:] = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def shrink_jpeg(jpeg: NDArray[np.uint8], size: ImageSize) -> bytes:
    """Returns the image at another size, as a baseline JPEG with the colour subsampling of the file.

    Raises:
        ValueError: the image cannot be decoded.
    """
    width, height = size
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    decode_into(jpeg, pixels)
    # "Gray" keeps the values of three equal channels: one plane is stored; colour would add two planes of 128.
    subsampling = colour_subsampling(jpeg.data)
    small: bytes = simplejpeg.encode_jpeg(pixels, quality=JPEG_QUALITY, colorsubsampling=subsampling)
    return small


_Made = TypeVar("_Made")


def store_images(
    rows: ImageRows, files: list[str], images: ImageOptions, findings: Findings, channels: Channels = "rgb"
) -> ImageRows | None:
    """Returns one camera's images as ``images`` asks for, or ``None`` if an image could not be decoded.

    Args:
        rows: the files as recorded, all of one size.
        files: the path of each row's file, for findings.
        images: how images are to be stored.
        findings: collects the faults.
        channels: the order of the colours in the files. Smaller JPEG files keep it; pixels become true RGB.
    """
    size = images.size or (rows.width, rows.height)
    if images.storage == "raw":
        return _as_pixels(rows, files, size, findings, channels)
    return rows if size == (rows.width, rows.height) else _as_jpeg(rows, files, size, findings)


def _as_jpeg(rows: ImageRows, files: list[str], size: ImageSize, findings: Findings) -> ImageRows | None:
    made = _each(rows, files, findings, lambda _, jpeg: shrink_jpeg(jpeg, size))
    if made is None:
        return None
    offset = np.cumsum([0, *map(len, made)], dtype=np.int64)
    data = np.frombuffer(b"".join(made), dtype=np.uint8)
    return replace(rows, data=data, offset=offset, width=size[0], height=size[1])


def _as_pixels(
    rows: ImageRows, files: list[str], size: ImageSize, findings: Findings, channels: Channels
) -> ImageRows | None:
    width, height = size
    pixels = np.empty((rows.num_rows, height, width, 3), dtype=np.uint8)
    if _each(rows, files, findings, lambda row, jpeg: decode_into(jpeg, pixels[row], channels)) is None:
        return None
    return replace(rows, data=pixels, offset=None, width=width, height=height)


def _each(
    rows: ImageRows, files: list[str], findings: Findings, make: Callable[[int, NDArray[np.uint8]], _Made]
) -> list[_Made] | None:
    made: list[_Made] = []
    for row, file in enumerate(files):
        try:
            made.append(make(row, rows.encoded(row)))
        except ValueError as error:
            findings.add("image.undecodable", file, expected="a JPEG that can be decoded", found=str(error))
    return made if len(made) == len(files) else None

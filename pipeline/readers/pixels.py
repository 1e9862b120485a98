"""Decodes JPEG files and makes them smaller, so that what is stored is what training would have made of them."""

from __future__ import annotations

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from vlapipe.pipeline.image_options import JPEG_QUALITY, ImageSize
from vlapipe.pipeline.shards.format.jpeg_decode import colour_subsampling, decode_rgb

__all__ = ["decode_into", "shrink_jpeg"]


def decode_into(jpeg: NDArray[np.uint8], pixels: NDArray[np.uint8]) -> None:
    """Decode one JPEG to RGB ``(height, width, 3)`` of the size of ``pixels``, which is contiguous.

    It is decoded as for training, then resized by a triangle filter as wide as the step. Pillow's arithmetic is in
    whole numbers, so every machine makes the same bytes, and they are within 2 levels of torch's antialiased bilinear
    interpolation. EXIF's orientation does not count, as it does not in training.

    Raises:
        ValueError: it cannot be decoded.
    """
    size = pixels.shape[:2]
    image = decode_rgb(jpeg.data, size, lambda *at: pixels if at == size else np.empty((*at, 3), dtype=np.uint8))
    if image is not pixels:
        pixels[:] = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def shrink_jpeg(jpeg: NDArray[np.uint8], size: ImageSize) -> bytes:
    """The same image at another size, as a baseline JPEG with colour at the resolution that the file has it.

    Raises:
        ValueError: it cannot be decoded.
    """
    width, height = size
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    decode_into(jpeg, pixels)
    # From equal channels, "Gray" keeps just these values: one plane is stored where colour would be two more of 128.
    subsampling = colour_subsampling(jpeg.data)
    small: bytes = simplejpeg.encode_jpeg(pixels, quality=JPEG_QUALITY, colorsubsampling=subsampling)
    return small

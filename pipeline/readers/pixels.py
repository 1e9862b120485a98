"""Decodes JPEG files and makes them smaller, so that what is stored is what training would have made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from vlapipe.pipeline.image_options import JPEG_QUALITY, ImageSize

__all__ = ["decode_into", "shrink_jpeg"]


def decode_into(jpeg: NDArray[np.uint8], pixels: NDArray[np.uint8]) -> None:
    """Decode one JPEG to RGB ``(height, width, 3)`` of the size of ``pixels``, which is contiguous.

    EXIF's orientation does not count, as it does not in training.

    Raises:
        ValueError: it cannot be decoded.
    """
    height, width, _ = pixels.shape
    if simplejpeg.decode_jpeg_header(jpeg.data)[:2] == (height, width):
        simplejpeg.decode_jpeg(jpeg.data, colorspace="RGB", buffer=pixels)
    else:
        pixels[:] = _decode_at(jpeg, (width, height))


def shrink_jpeg(jpeg: NDArray[np.uint8], size: ImageSize) -> bytes:
    """The same image at another size, as a baseline JPEG in full colour resolution (4:4:4).

    Raises:
        ValueError: it cannot be decoded.
    """
    pixels = np.ascontiguousarray(_decode_at(jpeg, size))
    small: bytes = simplejpeg.encode_jpeg(pixels, quality=JPEG_QUALITY, colorsubsampling="444")
    return small


def _decode_at(jpeg: NDArray[np.uint8], size: ImageSize) -> NDArray[Any]:
    """Decoded at the nearest scale above ``size``, then resized by a triangle filter as wide as the step.

    Pillow's arithmetic is in whole numbers, so every machine makes the same bytes, and they are within 2 levels of
    torch's antialiased bilinear interpolation.
    """
    width, height = size
    pixels: NDArray[Any] = simplejpeg.decode_jpeg(
        jpeg.data, colorspace="RGB", min_height=height, min_width=width, min_factor=1
    )
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))

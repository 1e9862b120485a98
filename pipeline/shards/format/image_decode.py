"""Decodes the images of a shard, JPEG or PNG. Ingest and training use the same rule, so both see the same pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.format.jpeg_decode import decode_jpeg_anyhow, decode_jpeg_rgb
from vlapipe.pipeline.shards.format.png_decode import PNG_SIGNATURE, decode_png_depth, decode_png_rgb
from vlapipe.schemas.schema import Channels

__all__ = ["decode_depth", "decode_rgb", "is_deep", "is_png", "nearest"]

_CUT_SHORT = "Premature end of JPEG file"  # without an end marker; viewers differ in what they make of it
_BITS = 24  # place of the bits a sample in a PNG


def is_png(image: Any) -> bool:
    """Returns whether a buffer holds a PNG; otherwise it holds a JPEG."""
    return bytes(image[: len(PNG_SIGNATURE)]) == PNG_SIGNATURE


def is_deep(image: Any) -> bool:
    """Returns whether a buffer holds a PNG of 16 bits a sample, as depth is."""
    return is_png(image) and image[_BITS] == 16


def decode_rgb(
    image: Any,
    size: tuple[int, int],
    memory: Callable[[int, int], NDArray[np.uint8]],
    channels: Channels = "rgb",
    pass_over: Callable[[str], None] | None = None,
) -> NDArray[np.uint8]:
    """Decode one file to RGB: a JPEG at the smallest scale with both sides at least ``size``, a PNG at full size.

    ``size`` is (height, width). ``memory(height, width)`` must return a C-contiguous ``(height, width, 3)`` uint8 array
    of the decoded size. This array is filled and returned. The EXIF orientation is ignored. ``channels`` is ``"bgr"``
    if red and blue are exchanged in the file; they are then exchanged back.

    ``pass_over`` is called with the decoder's complaint about a JPEG that is decoded in spite of it, as viewers do.
    Without it, such a file is an error.

    Raises:
        ValueError: the file cannot be decoded.
    """
    if is_png(image):
        pixels = decode_png_rgb(image, memory)
        if channels == "bgr":
            pixels[...] = pixels[..., ::-1].copy()
        return pixels
    try:
        return decode_jpeg_rgb(image, size, memory, channels)
    except ValueError as error:
        if pass_over is None or str(error).startswith(_CUT_SHORT):
            raise
        pixels = decode_jpeg_anyhow(image, size, memory, channels)
        pass_over(str(error))
        return pixels


def decode_depth(image: Any, memory: Callable[[int, int], NDArray[np.uint16]]) -> NDArray[np.uint16]:
    """Decode one image of a depth camera, a gray PNG, into ``memory(height, width)``: ``(height, width)`` uint16.

    Raises:
        ValueError: the file is no such PNG, or cannot be decoded.
    """
    if not is_png(image):
        raise ValueError("a JPEG, where depth was expected")
    return decode_png_depth(image, memory)


def nearest(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Returns the pixels of ``image`` nearest to those of an image of ``size`` (height, width), as depth is resized.

    A mean of two depths would be a surface that is not there.
    """
    rows, columns = ((np.arange(new) * 2 + 1) * old // (2 * new) for new, old in zip(size, image.shape, strict=False))
    resized: NDArray[Any] = image[rows[:, None], columns]
    return resized

"""Decodes JPEG at a reduced scale. Ingest and training use the same rule, so both see the same pixels."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from vlapipe.schemas.schema import Channels

__all__ = ["SCALES", "colour_subsampling", "decode_jpeg_anyhow", "decode_jpeg_rgb"]

# Divisors of the full size. Decoding at 1/8, 1/4 or 1/2 is faster than at full size. At 3/8, 5/8 or 7/8 libjpeg-turbo
# has no vector code: 640x480 takes 0.4 ms at full size, 0.3 ms at 1/2, but 0.7 ms at 5/8.
SCALES = (8, 4, 2, 1)


def decode_jpeg_rgb(
    jpeg: Any,
    size: tuple[int, int],
    memory: Callable[[int, int], NDArray[np.uint8]],
    channels: Channels = "rgb",
) -> NDArray[np.uint8]:
    """Decode ``jpeg``, a buffer with one JPEG file, at the smallest scale with both sides at least ``size``.

    ``size`` is (height, width). ``memory(height, width)`` must return a C-contiguous ``(height, width, 3)`` uint8 array
    of the decoded size. This array is filled with RGB and returned. The EXIF orientation is ignored. ``channels`` is
    ``"bgr"`` if red and blue are exchanged in the file; the decoder then exchanges them back at no cost.

    Raises:
        ValueError: the file cannot be decoded completely.
    """
    return _decode(jpeg, size, memory, channels, strict=True)


def decode_jpeg_anyhow(
    jpeg: Any,
    size: tuple[int, int],
    memory: Callable[[int, int], NDArray[np.uint8]],
    channels: Channels = "rgb",
) -> NDArray[np.uint8]:
    """Decode as ``decode_jpeg_rgb`` does, and pass over what every viewer passes over.

    libjpeg-turbo knows fewer ways to subsample colour than Pillow, and stops at bytes between segments. Pillow decodes
    at full size.

    Raises:
        ValueError: no decoder makes an image of the file.
    """
    try:
        return _decode(jpeg, size, memory, channels, strict=False)
    except ValueError as error:
        complaint = str(error)
    from PIL import Image  # takes 15 ms, and hardly any dataset needs it in training

    try:
        pixels = np.asarray(Image.open(io.BytesIO(jpeg), formats=("JPEG",)).convert("RGB"))
    except Exception:  # noqa: BLE001 - Pillow fails in a dozen ways
        raise ValueError(complaint) from None
    image = memory(*pixels.shape[:2])
    np.copyto(image, pixels[..., ::-1] if channels == "bgr" else pixels)
    return image


def _decode(
    jpeg: Any,
    size: tuple[int, int],
    memory: Callable[[int, int], NDArray[np.uint8]],
    channels: Channels,
    *,
    strict: bool,
) -> NDArray[np.uint8]:
    recorded_height, recorded_width, _ = _header(jpeg)
    height, width = _decoded_size(recorded_height, recorded_width, size)
    image = memory(height, width)
    simplejpeg.decode_jpeg(
        jpeg, colorspace=channels.upper(), min_height=height, min_width=width, buffer=image, strict=strict
    )
    return image


def colour_subsampling(jpeg: Any) -> str:
    """Returns the chroma subsampling of a file: ``444``, ``422``, ``420``, ``440``, ``411`` or ``Gray``.

    Raises:
        ValueError: the file has another subsampling, or its header cannot be read.
    """
    return _header(jpeg)[2]


def _header(jpeg: Any) -> tuple[int, int, str]:
    """Returns height, width and chroma subsampling."""
    try:
        height, width, _, subsampling = simplejpeg.decode_jpeg_header(jpeg)
    except KeyError:  # libjpeg-turbo knows subsamplings that simplejpeg has no name for, such as 4:4:1
        raise ValueError("colour is subsampled in a way that is not known") from None
    return height, width, subsampling


def _decoded_size(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """Returns (height, width) at the smallest scale with both sides at least ``size``; the full size if none fits."""
    sizes = [(-(-height // scale), -(-width // scale)) for scale in SCALES]
    return next((scaled for scaled in sizes if scaled[0] >= size[0] and scaled[1] >= size[1]), sizes[-1])

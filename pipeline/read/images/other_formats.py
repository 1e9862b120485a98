"""Turns WebP, BMP and TIFF images into PNG, without loss, if the schema says so. Other formats are refused by name."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.discover.proportion import limit_bytes
from vlapipe.pipeline.read.images.jpeg import MAX_PIXELS

__all__ = ["format_of", "pixels_of", "png_of"]

_FORMATS = {b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
# Modes of Pillow, whose pixels a PNG of 8 bits holds without loss.
_COLOURS = ("L", "RGB", "RGBA", "LA", "P", "1", "RGBX")
_BYTES = {"1": 1, "L": 1, "P": 1, "LA": 2, "I;16": 2, "I;16B": 2, "RGB": 3}  # of a pixel; other modes have 4


def format_of(image: memoryview) -> str | None:
    """Returns ``"WebP"``, ``"BMP"`` or ``"TIFF"`` by an image's first bytes, else ``None``."""
    start = bytes(image[:12])
    if start[:4] == b"RIFF" and start[8:] == b"WEBP":
        return "WebP"
    return next((name for magic, name in _FORMATS.items() if start.startswith(magic)), None)


def png_of(image: memoryview) -> bytes:
    """Returns an 8-bit image as PNG.

    Raises:
        ValueError: the image cannot be decoded, or a PNG of 8 bits would lose something.
    """
    opened = _open(image)
    if opened.mode not in _COLOURS:
        raise ValueError(f"pixels of the kind {opened.mode!r}, of which a PNG of 8 bits loses something")
    file = io.BytesIO()
    opened.save(file, "PNG", compress_level=1)
    return file.getvalue()


def pixels_of(image: memoryview) -> NDArray[Any]:
    """Returns the pixels of a one-channel image ``(height, width)``, as depth is: whole numbers or float32.

    Raises:
        ValueError: the image cannot be decoded, or has several channels.
    """
    opened = _open(image)
    if opened.mode not in ("L", "I", "F") and not opened.mode.startswith("I;16"):
        raise ValueError(f"pixels of the kind {opened.mode!r}, where one channel of numbers was expected")
    return np.asarray(opened)


def _open(image: memoryview) -> Any:
    """Returns a decoded image of Pillow's."""
    from PIL import Image  # takes 15 ms

    try:
        opened: Any = Image.open(io.BytesIO(image), formats=("WEBP", "BMP", "TIFF"))
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width}x{opened.height}, more than {MAX_PIXELS // 1_000_000} megapixels")
        num_bytes = opened.width * opened.height * _BYTES.get(opened.mode, 4)
        if num_bytes > limit_bytes(len(image)):
            raise ValueError(f"{num_bytes:,} bytes of pixels in a file of {len(image):,}")
        if getattr(opened, "n_frames", 1) > 1:
            raise ValueError(f"{opened.n_frames} images in one file")
        opened.load()
    except Exception as error:  # noqa: BLE001 - Pillow fails in a dozen ways
        raise ValueError(str(error) or type(error).__name__) from None
    return opened

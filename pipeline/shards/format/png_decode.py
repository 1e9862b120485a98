"""Decodes PNG: by imagecodecs where it is installed (`vlapipe[images]`), else by Pillow. Both give the same pixels.

docs/decisions/0017-image-decoders.md has the figures.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PNG_SIGNATURE", "decode_png_depth", "decode_png_rgb", "encode_png", "png_size"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RGB_8 = b"\x08\x02"  # bits a sample and colour type, in the header
_LEVEL = 1  # of deflate: level 6 takes four times as long and saves a tenth


def png_size(png: Any) -> tuple[int, int]:
    """Returns (height, width) of a PNG whose header has been checked."""
    width, height = (int.from_bytes(bytes(png[at : at + 4]), "big") for at in (16, 20))
    return height, width


def decode_png_rgb(png: Any, memory: Callable[[int, int], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Returns the pixels ``(height, width, 3)`` of a colour, gray or palette PNG in ``memory(height, width)``.

    Gray becomes three equal channels, and transparency is dropped.

    Raises:
        ValueError: the image cannot be decoded.
    """
    out = memory(*png_size(png))
    codec = _imagecodecs()
    try:
        if codec is None:
            np.copyto(out, np.asarray(_opened(png).convert("RGB")))
        elif not _decoded_into(codec, png, out):
            pixels = codec.png_decode(png)
            pixels = pixels[..., None] if pixels.ndim == 2 else pixels
            np.copyto(out, pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., :1])
    except Exception as error:  # noqa: BLE001 - each decoder has errors of its own
        raise ValueError(f"damaged PNG: {error}") from None
    return out


def _decoded_into(codec: Any, png: Any, out: NDArray[np.uint8]) -> bool:
    """Decodes into memory that may have been used before, which is faster. Returns whether the PNG has such pixels."""
    if bytes(png[24:26]) != _RGB_8:
        return False
    try:
        codec.png_decode(png, out=out)
    except Exception:  # noqa: BLE001 - damage, or a colour that means transparency: then there are four channels
        return False
    return True


def decode_png_depth(png: Any, memory: Callable[[int, int], NDArray[np.uint16]]) -> NDArray[np.uint16]:
    """Returns the pixels ``(height, width)`` of a gray PNG of 8 or 16 bits in ``memory(height, width)``.

    Raises:
        ValueError: the image cannot be decoded, or has colours.
    """
    out = memory(*png_size(png))
    codec = _imagecodecs()
    try:
        if codec is not None and bytes(png[24:26]) == b"\x10\x00":
            codec.png_decode(png, out=out)
            return out
        pixels = np.asarray(_opened(png)) if codec is None else codec.png_decode(png)
    except Exception as error:  # noqa: BLE001 - each decoder has errors of its own
        raise ValueError(f"damaged PNG: {error}") from None
    if pixels.ndim != 2:
        raise ValueError("a PNG with colours, where one channel of depth was expected")
    np.copyto(out, pixels, casting="unsafe")
    return out


def encode_png(pixels: NDArray[Any]) -> bytes:
    """Returns ``(height, width, 3)`` uint8, or ``(height, width)`` uint16, as a PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=_LEVEL)
    return file.getvalue()


def _opened(png: Any) -> Any:
    from PIL import Image  # takes 15 ms, and most datasets hold no PNG

    return Image.open(io.BytesIO(png), formats=("PNG",))


@lru_cache(maxsize=1)
def _imagecodecs() -> Any:
    try:
        import imagecodecs
    except ImportError:
        return None
    return imagecodecs

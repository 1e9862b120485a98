"""Gives each stored image as a file that every reader decodes to the same pixels, and as the pixels themselves.

A stored JPEG or PNG is kept byte for byte if PIL, which LeRobot reads with, decodes it to the RGB that training sees.
Any other image becomes a PNG of those pixels: pixels, red and blue exchanged, grey, a palette, transparency, an
orientation, stray bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from vlapipe.pipeline.read.images.damage import has_odd_bytes
from vlapipe.pipeline.read.images.jpeg import read_jpeg_header
from vlapipe.pipeline.shards.dataset import Dataset, Episode
from vlapipe.pipeline.shards.format.image_decode import decode_depth, decode_rgb, is_deep, is_png
from vlapipe.pipeline.shards.format.png_decode import encode_png
from vlapipe.schemas.errors import DamageError

__all__ = ["CameraImages", "ImageFile"]

_RGB_8 = (8, 2)  # bit depth and colour type of a PNG
_UPRIGHT = 1  # EXIF orientation


@dataclass(frozen=True)
class ImageFile:
    """One image as a file: its bytes, ``jpg`` or ``png``, and whether they are those that the dataset holds."""

    data: bytes
    suffix: str
    is_kept: bool


class CameraImages:
    """The images of one camera in one episode, by row."""

    def __init__(self, dataset: Dataset, episode: Episode, camera: str) -> None:
        manifest = dataset.manifest
        self._place = f"{dataset.path}: {episode.id}: {camera}"
        self._channels = manifest.image_channels(camera)
        self._is_depth = manifest.depth_unit(camera) is not None
        self._size = episode.row[f"{camera}/height"], episode.row[f"{camera}/width"]
        self._pixels = episode.get(f"{camera}/pixels")
        if self._pixels is None:
            self._bytes, self._offset = episode[f"{camera}/bytes"], episode[f"{camera}/offset"]

    def file(self, row: int) -> ImageFile:
        """Returns one image as a file.

        Raises:
            DamageError: the image cannot be decoded.
        """
        if self._pixels is None:
            stored = self._stored(row)
            of_png = is_png(stored)
            if self._is_depth:
                is_plain = of_png and is_deep(stored)
            else:
                is_plain = self._channels == "rgb" and (_is_plain_png(stored) if of_png else _is_plain_jpeg(stored))
            if is_plain:
                return ImageFile(stored, "png" if of_png else "jpg", is_kept=True)
        pixels = self.pixels(row)
        return ImageFile(encode_png(pixels[..., 0] if self._is_depth else pixels), "png", is_kept=False)

    def pixels(self, row: int) -> NDArray[Any]:
        """Returns one image as pixels ``(H, W, 3)`` uint8, RGB; a depth image as ``(H, W, 1)`` uint16.

        Raises:
            DamageError: the image cannot be decoded.
        """
        if self._pixels is not None:
            pixels: NDArray[Any] = self._pixels[row]
            return pixels
        stored = self._stored(row)
        try:
            if self._is_depth:
                return decode_depth(stored, lambda height, width: np.empty((height, width), np.uint16))[..., None]
            return decode_rgb(stored, self._size, _memory, self._channels, _pass_over)
        except ValueError as error:
            raise DamageError(f"{self._place}: image {row} cannot be decoded: {error}", "run vlapipe verify") from None

    def _stored(self, row: int) -> bytes:
        return self._bytes[self._offset[row] : self._offset[row + 1]].tobytes()


def _memory(height: int, width: int) -> NDArray[np.uint8]:
    return np.empty((height, width, 3), dtype=np.uint8)


def _pass_over(_complaint: str) -> None:
    """Ingest has kept the image, so training passes over the same."""


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether each reader decodes a JPEG file to the same RGB image, with its top at the top."""
    try:
        header, colours = read_jpeg_header(data), simplejpeg.decode_jpeg_header(data)[2]
    except (ValueError, KeyError):
        return False
    if header.num_stray or header.orientation != _UPRIGHT or colours != "YCbCr":
        return False
    return not has_odd_bytes(memoryview(data), is_progressive=header.is_progressive) or _is_whole(data)


def _is_whole(jpeg: bytes) -> bool:
    try:
        simplejpeg.decode_jpeg(jpeg, colorspace="GRAY", min_height=1, min_width=1)
    except ValueError:
        return False
    return True


def _is_plain_png(data: bytes) -> bool:
    """Whether a PNG file has 8-bit RGB, and nothing that tells a reader to change it."""
    return tuple(data[24:26]) == _RGB_8 and b"eXIf" not in data and b"tRNS" not in data

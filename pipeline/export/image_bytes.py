"""Gives each stored image as a file that every reader decodes to the same pixels, and as the pixels themselves.

A stored JPEG or PNG is kept byte for byte if PIL, which LeRobot reads with, decodes it to the RGB that training sees.
Any other image becomes a PNG of those pixels: pixels, red and blue exchanged, grey, CMYK, a palette, an orientation.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from vlapipe.pipeline.shards.dataset import Dataset, Episode
from vlapipe.schemas.errors import DamageError

__all__ = ["CameraImages", "ImageFile"]

_PNG = b"\x89PNG\r\n\x1a\n"
_COLOUR_8_BIT = (8, 2)  # bit depth and colour type of a PNG
_ORIENTATION = 0x0112  # tag of Exif; 1 is upright
_PNG_LEVEL = 1  # level 6 takes four times as long for a tenth fewer bytes


@dataclass(frozen=True)
class ImageFile:
    """One image as a file: its bytes, ``jpg`` or ``png``, and whether they are those that the dataset holds."""

    data: bytes
    suffix: str
    is_kept: bool


class CameraImages:
    """The images of one camera in one episode, by row."""

    def __init__(self, dataset: Dataset, episode: Episode, camera: str) -> None:
        stream = dataset.manifest.streams[camera]
        self._place = f"{dataset.path}: {episode.id}: {camera}"
        self._is_bgr = stream.get("channels", "rgb") == "bgr"
        self._pixels = episode.get(f"{camera}/pixels")
        if self._pixels is None:
            self._bytes, self._offset = episode[f"{camera}/bytes"], episode[f"{camera}/offset"]

    @property
    def is_depth(self) -> bool:
        """Returns whether a pixel is one 16-bit number."""
        if self._pixels is not None:
            return bool(self._pixels.shape[-1] == 1)
        return len(self._offset) > 1 and _png_kind(self._stored(0)) == (16, 0)

    def size(self) -> tuple[int, int]:
        """Returns height and width of the camera's images, in the first row."""
        if self._pixels is not None:
            return int(self._pixels.shape[1]), int(self._pixels.shape[2])
        with Image.open(io.BytesIO(self._stored(0))) as image:
            return image.height, image.width

    def num_bytes(self, rows: NDArray[np.int64]) -> int:
        """Returns about how many bytes the files of these rows have together, without making them."""
        if self._pixels is not None:
            return int(self._pixels[0].nbytes) * len(rows)
        return int((self._offset[rows + 1] - self._offset[rows]).sum())

    def file(self, row: int) -> ImageFile:
        """Returns one image as a file.

        Raises:
            DamageError: the image cannot be decoded.
        """
        if self._pixels is None:
            stored = self._stored(row)
            suffix = "png" if stored.startswith(_PNG) else "jpg"
            if not self._is_bgr and (is_plain_png(stored) if suffix == "png" else is_plain_jpeg(stored)):
                return ImageFile(stored, suffix, is_kept=True)
            if suffix == "png" and _png_kind(stored) == (16, 0):
                return ImageFile(stored, suffix, is_kept=True)
        return ImageFile(_png(self.pixels(row)), "png", is_kept=False)

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
            return decoded(stored, "BGR" if self._is_bgr else "RGB")
        except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise DamageError(f"{self._place}: image {row} cannot be decoded: {error}", "run vlapipe verify") from None

    def _stored(self, row: int) -> bytes:
        return self._bytes[self._offset[row] : self._offset[row + 1]].tobytes()


def decoded(data: bytes, channels: str = "RGB") -> NDArray[Any]:
    """Decodes a JPEG or PNG file. ``channels`` is ``BGR`` if red and blue are exchanged in the file."""
    if not data.startswith(_PNG):
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace=channels)
        return pixels
    with Image.open(io.BytesIO(data)) as image:
        if image.mode.startswith("I"):
            return np.asarray(image).astype(np.uint16)[..., None]
        array = np.asarray(image.convert("RGB"))
    return np.ascontiguousarray(array[..., ::-1]) if channels == "BGR" else array


def is_plain_jpeg(data: bytes) -> bool:
    """Returns whether each reader decodes a JPEG file to the same RGB image, with its top at the top."""
    try:
        colours = simplejpeg.decode_jpeg_header(data)[2]
    except (ValueError, KeyError):
        return False
    return colours == "YCbCr" and not _is_turned(data)


def is_plain_png(data: bytes) -> bool:
    """Returns whether a PNG file has 8-bit RGB, and nothing that tells a reader to change it."""
    return _png_kind(data) == _COLOUR_8_BIT and b"eXIf" not in data and b"tRNS" not in data


def _is_turned(data: bytes) -> bool:
    """Whether a JPEG has an orientation that some readers apply and others do not."""
    if b"Exif\0\0" not in data[: 1 << 16]:
        return False
    with Image.open(io.BytesIO(data)) as image:
        return bool(image.getexif().get(_ORIENTATION, 1) != 1)


def _png_kind(data: bytes) -> tuple[int, int] | None:
    """Bit depth and colour type of a PNG file; ``None`` if the file is no PNG."""
    return struct.unpack("BB", data[24:26]) if data.startswith(_PNG) and len(data) > 26 else None


def _png(pixels: NDArray[Any]) -> bytes:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    file = io.BytesIO()
    image.save(file, "png", compress_level=_PNG_LEVEL)
    return file.getvalue()

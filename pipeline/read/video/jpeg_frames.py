"""Turns decoded frames into RGB as players show them, and into JPEG, in several threads."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from vlapipe.pipeline.read.images.image_options import ImageSize
from vlapipe.pipeline.read.video.decode import Shown
from vlapipe.pipeline.shards.format.image_loss import squared_error
from vlapipe.pipeline.shards.ordered_map import in_order

__all__ = ["Jpeg", "Turn", "jpegs_of", "rgb_frames", "to_gray16", "to_rgb", "turn_of"]

# Of so many frames, one is decoded again to measure what JPEG loses: of the first frames, and of the others.
_FIRST, _LOOKED_AT, _LOOKED_AT_LATER = 64, 8, 64
_of_thread = threading.local()


@dataclass(frozen=True)
class Turn:
    """How players turn a frame: first exchange rows and columns, then mirror. ``degrees`` is what the tag says."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False
    degrees: int = 0
    is_crooked: bool = False  # by no whole quarter, which is not applied

    def __bool__(self) -> bool:
        return self.transpose or self.flip_rows or self.flip_columns

    def apply(self, image: NDArray[Any]) -> NDArray[Any]:
        """Returns the image as it is shown, contiguous."""
        if self.transpose:
            image = image.swapaxes(0, 1)
        if self.flip_rows:
            image = image[::-1]
        if self.flip_columns:
            image = image[:, ::-1]
        return np.ascontiguousarray(image)


def turn_of(picture: Any) -> Turn:
    """Returns what the display matrix of a frame asks for: a pixel at (x, y) is shown at (a x + c y, b x + d y)."""
    matrix = next((bytes(each) for each in picture.side_data if each.type.name == "DISPLAYMATRIX"), None)
    if matrix is None or len(matrix) != 36:
        return Turn()
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    degrees = picture.rotation
    if not b and not c and a and d:
        return Turn(flip_rows=d < 0, flip_columns=a < 0, degrees=degrees)
    if not a and not d and b and c:
        return Turn(transpose=True, flip_rows=b < 0, flip_columns=c < 0, degrees=degrees)
    return Turn(degrees=degrees, is_crooked=True)


def to_rgb(picture: Any, turn: Turn) -> NDArray[np.uint8]:
    """Returns a frame as RGB ``(height, width, 3)``, by FFmpeg's own conversion: its range and matrix are the frame's.

    The converter is kept by each thread, because making one costs as much as converting a frame of 640x480.
    """
    image: NDArray[np.uint8] = _converter().reformat(picture, format="rgb24", threads=1).to_ndarray()
    return turn.apply(image) if turn else image


def to_gray16(picture: Any, turn: Turn) -> NDArray[np.uint16]:
    """Returns a frame of 16-bit gray as ``(height, width)``, its values untouched."""
    image: NDArray[np.uint16] = picture.to_ndarray()
    image = image.astype(np.uint16, copy=False)  # to the machine's order of bytes
    return turn.apply(image) if turn else image


def _converter() -> Any:
    from av.video.reformatter import VideoReformatter  # an extra

    if not hasattr(_of_thread, "converter"):
        _of_thread.converter = VideoReformatter()
    return _of_thread.converter


@dataclass(frozen=True)
class Jpeg:
    """One frame as JPEG, with its size. ``error`` is the mean squared error if the frame was looked at."""

    data: bytes
    width: int
    height: int
    number: int
    time_ns: int | None
    error: float | None


def rgb_frames(shown: Iterable[Shown], turn: Turn, num_threads: int) -> Iterator[tuple[Shown, NDArray[np.uint8]]]:
    """Yields each frame with its RGB pixels, in order."""
    jobs = (partial(_pair, each, turn) for each in shown)
    return in_order(jobs, num_threads)


def _pair(shown: Shown, turn: Turn) -> tuple[Shown, NDArray[np.uint8]]:
    return Shown(None, shown.number, shown.time_ns), to_rgb(shown.picture, turn)


def jpegs_of(
    shown: Iterable[Shown], turn: Turn, size: ImageSize | None, quality: int, num_threads: int
) -> Iterator[Jpeg]:
    """Yields each frame as JPEG, in order. At most a few decoded frames are in memory at a time.

    ``size`` is another size to make the frames smaller to, by the same filter as for images in files.
    """
    jobs = (partial(_encode, each, turn, size, quality) for each in shown)
    return in_order(jobs, num_threads)


def _encode(shown: Shown, turn: Turn, size: ImageSize | None, quality: int) -> Jpeg:
    image = to_rgb(shown.picture, turn)
    if size is not None and size != (image.shape[1], image.shape[0]):
        from PIL import Image  # needs 15 ms to import

        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    data: bytes = simplejpeg.encode_jpeg(image, quality=quality, colorsubsampling=_subsampling(shown.picture))
    every = _LOOKED_AT if shown.number < _FIRST else _LOOKED_AT_LATER
    error = squared_error(image, simplejpeg.decode_jpeg(data)) if shown.number % every == 0 else None
    return Jpeg(data, image.shape[1], image.shape[0], shown.number, shown.time_ns, error)


def _subsampling(picture: Any) -> str:
    """Returns the colour resolution that the frame itself has: JPEG need not lose what the video has kept."""
    form = picture.format
    if form.name.startswith("gray"):
        return "Gray"
    if form.is_rgb or form.chroma_width(64) == 64:
        return "444"
    return "420" if form.chroma_height(64) < 64 else "422"

"""Stores a camera's images otherwise than they were recorded: smaller, as JPEG or PNG files, or as pixels.

Images are made smaller by the same decoder and the same filter as in training, so the stored images are those that
training would have made of the recorded images. What JPEG loses is measured on a sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from vlapipe.pipeline.long_images import Pieces, empty_images
from vlapipe.pipeline.read.images.damage import decode_fault
from vlapipe.pipeline.read.images.image_options import ImageOptions, ImageSize, Stored
from vlapipe.pipeline.shards.format.image_decode import decode_depth, decode_rgb, is_png, nearest
from vlapipe.pipeline.shards.format.image_loss import psnr_db, squared_error
from vlapipe.pipeline.shards.format.jpeg_decode import colour_subsampling
from vlapipe.pipeline.shards.format.png_decode import encode_png
from vlapipe.pipeline.stream_rows import ImageRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import Channels

__all__ = ["decode_into", "made_again", "store_files", "store_frames"]

_SAMPLED = 8  # images of a camera that are decoded again to measure what JPEG loses


def decode_into(image: NDArray[np.uint8], pixels: NDArray[np.uint8], channels: Channels = "rgb") -> None:
    """Decodes one file to RGB ``(height, width, 3)`` of the size of ``pixels``, which must be contiguous.

    The image is decoded as in training, then resized by a triangle filter (width: the ratio of the sizes). Pillow
    resizes with integer arithmetic, so every machine makes the same bytes. They are within 2 levels of torch's
    antialiased bilinear interpolation. EXIF's orientation is ignored, as in training.

    Raises:
        ValueError: the image cannot be decoded whole.
    """
    size = pixels.shape[:2]
    complaints: list[str] = []
    decoded = decode_rgb(
        image.data,
        size,
        lambda *at: pixels if at == size else np.empty((*at, 3), dtype=np.uint8),
        channels,
        complaints.append,
    )
    if complaints and decode_fault(image.data) is not None:
        raise ValueError(complaints[0])
    if decoded is not pixels:
        pixels[:] = _resized(decoded, size)


def made_again(image: NDArray[np.uint8], recorded: ImageSize, images: ImageOptions, *, is_depth: bool = False) -> bytes:
    """Returns one file as ``images`` asks for: the file itself, or a baseline JPEG or a PNG.

    A JPEG that is made of a JPEG keeps how its colours are subsampled.

    Raises:
        ValueError: the image cannot be decoded.
    """
    kind = "png" if is_png(image) else "jpeg"
    size, stored = images.size or recorded, images.made_from(kind, is_depth=is_depth)
    if stored == kind and size == recorded:
        return image.tobytes()
    pixels = _decoded(image, size, "rgb", is_depth=is_depth)
    if stored == "png":
        return encode_png(pixels)
    return _jpeg_of(pixels, images.quality, _subsampling(image.data) if kind == "jpeg" else "444")


def store_files(
    rows: ImageRows,
    places: Sequence[str],
    images: ImageOptions,
    findings: Findings,
    channels: Channels = "rgb",
    *,
    is_depth: bool = False,
) -> ImageRows | None:
    """Returns one camera's files as ``images`` asks for, or ``None`` if an image could not be decoded.

    Args:
        rows: the files as recorded, all of one size.
        places: where each row's image is, for findings.
        images: how images are to be stored.
        findings: collects the faults.
        channels: the order of the colours in the files. JPEG and PNG files keep it; pixels become true RGB.
        is_depth: the files are one channel of depth.
    """
    size = images.size or (rows.width, rows.height)
    kinds = ["png" if png else "jpeg" for png in rows.is_png]
    stored = [images.made_from(kind, is_depth=is_depth) for kind in kinds]
    kept = [new == kind and size == (rows.width, rows.height) for new, kind in zip(stored, kinds, strict=True)]
    if all(kept):
        return rows
    is_raw = "raw" in stored
    made = _Made(rows.num_rows, images.quality)
    order: Channels = channels if is_raw else "rgb"
    num_faults = 0
    for row, place in enumerate(places):
        image = rows.encoded(row)
        try:
            if kept[row] and not is_raw:
                made.keep(image.tobytes())
                continue
            pixels = _decoded(image, size, order, is_depth=is_depth)
            made.add(pixels, stored[row], _subsampling(image.data) if kinds[row] == "jpeg" else "444")
        except ValueError as error:
            expected = f"a {kinds[row].upper()} that can be decoded"
            findings.add("image.undecodable", place, expected=expected, found=str(error))
            num_faults += 1
    if num_faults:
        return None
    return made.finish(replace(rows, width=size[0], height=size[1]))


def store_frames(
    frames: Iterable[NDArray[Any]],
    rows: ImageRows,
    images: ImageOptions,
    stored: Stored,
    subsampling: str = "444",
) -> ImageRows:
    """Returns ``rows`` with decoded frames in them: RGB ``(height, width, 3)`` or depth ``(height, width)``.

    Args:
        frames: as many as ``rows`` has stamps, of the size that ``rows`` states.
        rows: everything about the camera except its images.
        images: how images are to be stored.
        stored: what the frames become.
        subsampling: of the colours of a JPEG.
    """
    size = images.size or (rows.width, rows.height)
    made = _Made(rows.num_rows, images.quality)
    for frame in frames:
        made.add(_resized(frame, size[::-1]), stored, subsampling)
    return made.finish(replace(rows, width=size[0], height=size[1]))


class _Made:
    """The images that are made of a camera, in order: pixels in one array, or files end to end."""

    def __init__(self, num_rows: int, quality: int) -> None:
        self._num_rows, self._quality = num_rows, quality
        self._every = -(-num_rows // _SAMPLED) or 1
        self._pixels: NDArray[Any] | None = None
        self._files = Pieces()
        self._num = 0
        self._squared_errors: list[float] = []
        self._num_lossy = 0

    def keep(self, file: bytes) -> None:
        self._files.append(file)
        self._num += 1

    def add(self, pixels: NDArray[Any], stored: Stored, subsampling: str) -> None:
        if stored == "raw":
            pixels = pixels[..., None] if pixels.ndim == 2 else pixels
            if self._pixels is None:
                self._pixels = empty_images((self._num_rows, *pixels.shape), pixels.dtype)
            self._pixels[self._num] = pixels
        elif stored == "png":
            self._files.append(encode_png(pixels))
        else:
            pixels = np.ascontiguousarray(pixels)
            jpeg = _jpeg_of(pixels, self._quality, subsampling)
            self._files.append(jpeg)
            if self._num_lossy % self._every == 0:
                self._squared_errors.append(squared_error(pixels, simplejpeg.decode_jpeg(jpeg)))
            self._num_lossy += 1
        self._num += 1

    @property
    def psnr_db(self) -> float | None:
        """Returns the PSNR of the sampled JPEGs together; ``None`` if none was made."""
        if not self._squared_errors:
            return None
        return psnr_db(sum(self._squared_errors) / len(self._squared_errors))

    def finish(self, rows: ImageRows) -> ImageRows:
        if self._pixels is not None:
            assert self._num == self._num_rows
            return replace(rows, data=self._pixels, offset=None, psnr_db=self.psnr_db)
        data, offset = self._files.joined()
        return replace(rows, data=data, offset=offset, psnr_db=self.psnr_db)


def _decoded(image: NDArray[np.uint8], size: ImageSize, channels: Channels, *, is_depth: bool) -> NDArray[Any]:
    width, height = size
    if is_depth:
        return _resized(decode_depth(image.data, lambda *at: np.empty(at, dtype=np.uint16)), (height, width))
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    decode_into(image, pixels, channels)
    return pixels


def _resized(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Returns pixels at ``size`` (height, width): colours by a triangle filter, depth by the nearest pixel."""
    if pixels.shape[:2] == size:
        return pixels
    if pixels.ndim == 3:
        return np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
    return nearest(pixels, size)


def _subsampling(jpeg: Any) -> str:
    """Returns how a file subsamples colour, for a JPEG that is made of it.

    "Gray" keeps the values of three equal channels: one plane is stored; colour would add two planes of 128.
    """
    try:
        return colour_subsampling(jpeg)
    except ValueError:
        return "444"


def _jpeg_of(pixels: NDArray[np.uint8], quality: int, subsampling: str) -> bytes:
    jpeg: bytes = simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling=subsampling)
    return jpeg

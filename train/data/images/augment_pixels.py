"""Applies a draw to the pixels of one image: box and turn in one resampling, the colour as one affine map.

torch runs its two kernels (resize and ``grid_sample``) on the calling thread, because each image is a single one. NumPy
does the rest, because torch would start several threads for other operations in each of the loader's threads.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from numpy.typing import NDArray

from vlapipe.train.data.images.augment import Draw
from vlapipe.train.data.images.resize import Scratch, resize, resize_depth

__all__ = ["augment", "augment_depth"]

_Pixel = TypeVar("_Pixel", np.uint8, np.uint16)
_LUMA = (0.299, 0.587, 0.114)  # of R, G, B; ITU-R BT.601, as in JPEG
_MIDDLE_GRAY = 127.5


def augment(image: NDArray[np.uint8], out: NDArray[np.uint8], draw: Draw, scratch: Scratch) -> None:
    """Write ``image`` (h, w, 3), varied by ``draw``, into ``out`` (H, W, 3); both may be the same memory.

    Without a turn, the box is cut from the original image and resized once. With a turn, the image is resized to
    ``out``'s size first. Pixels of the box that lie outside the image repeat the image's edge.
    """
    if draw.angle_rad:
        planes = _turned(image, out.shape, draw, scratch)
    else:
        resize(_cut(image, draw), out)
        if not draw.changes_colour:
            return
        planes = _planes(out, scratch)
    if draw.changes_colour:
        _recolour(planes, draw, scratch)
    _put(planes, out)


def augment_depth(image: NDArray[np.uint16], out: NDArray[np.uint16], draw: Draw) -> None:
    """Write the turned box of ``image`` (h, w, 1) into ``out`` (H, W, 1), pixel by nearest pixel.

    The box is that of ``augment``. Depth has no colour to vary. Both may be the same memory.
    """
    if not draw.angle_rad:
        box = _cut(image, draw)
        resize_depth(box.copy() if np.shares_memory(box, out) else box, out)
        return
    grid = _places(draw, out.shape[0], out.shape[1], Scratch())[0]
    at = []
    for axis, size in ((1, image.shape[0]), (0, image.shape[1])):
        at.append(np.clip((grid[..., axis] + 1) * (size / 2), 0, size - 1).astype(np.int64))
    out[...] = image[at[0], at[1]]


def _cut(image: NDArray[_Pixel], draw: Draw) -> NDArray[_Pixel]:
    """The box in whole pixels: a view of the image, or a copy if it reaches over an edge, whose pixels are repeated."""
    height, width = image.shape[:2]
    rows, columns = max(1, round(draw.side * height)), max(1, round(draw.side * width))
    top, left = round(draw.top * height), round(draw.left * width)
    if draw.top + draw.side <= 1:  # rounding must not lead out of the image
        top = min(top, height - rows)
    if draw.left + draw.side <= 1:
        left = min(left, width - columns)
    if top >= 0 and left >= 0 and top + rows <= height and left + columns <= width:
        return image[top : top + rows, left : left + columns]
    (inner_rows, above_below), (inner_columns, beside) = _inner(top, rows, height), _inner(left, columns, width)
    # A fifteenth of the time of indexing by an array of rows and one of columns, at 640x480.
    return np.pad(image[inner_rows, inner_columns], (above_below, beside, (0, 0)), mode="edge")


def _inner(first: int, count: int, size: int) -> tuple[slice, tuple[int, int]]:
    """The part of ``count`` pixels from ``first`` on that an axis of ``size`` has, and how many lie before and after.

    Of pixels that all lie outside, the part is the nearest one.
    """
    begin = min(max(first, 0), size - 1)
    end = max(min(first + count, size), begin + 1)
    before = min(max(-first, 0), count - 1)
    return slice(begin, end), (before, count - before - (end - begin))


def _turned(image: NDArray[np.uint8], shape: tuple[int, ...], draw: Draw, scratch: Scratch) -> NDArray[np.float32]:
    """Resample the turned box to ``shape`` (H, W, 3); returns planes (3, H, W)."""
    if image.shape != shape:
        resized = scratch.array("resized", shape, np.uint8)
        resize(image, resized)
        image = resized
    straight = scratch.array("straight", shape, np.float32)
    np.copyto(straight, image)
    grid = torch.from_numpy(_places(draw, shape[0], shape[1], scratch))
    planes = torch.from_numpy(straight)[None].permute(0, 3, 1, 2)
    turned: NDArray[np.float32] = F.grid_sample(planes, grid, padding_mode="border", align_corners=False)[0].numpy()
    return turned


def _places(draw: Draw, height: int, width: int, scratch: Scratch) -> NDArray[np.float32]:
    """The position in the image of each pixel of the turned box: (1, H, W, 2), x and y.

    -1 and 1 are the image's outer edges, as ``grid_sample`` wants them.
    """
    # Pixel centres relative to the centre of the box.
    x = (np.arange(width) + 0.5 - width / 2) * draw.side
    y = (np.arange(height) + 0.5 - height / 2)[:, None] * draw.side
    cosine, sine = math.cos(draw.angle_rad), math.sin(draw.angle_rad)
    centre_x, centre_y = (draw.left + draw.side / 2) * width, (draw.top + draw.side / 2) * height
    grid = scratch.array("grid", (1, height, width, 2), np.float32)
    parts = (
        ((x * cosine + centre_x) * 2 / width - 1, y * -sine * 2 / width),
        ((x * sine + centre_y) * 2 / height - 1, y * cosine * 2 / height),
    )
    for axis, (by_column, by_row) in enumerate(parts):
        np.add(by_column.astype(np.float32), by_row.astype(np.float32), out=grid[0, ..., axis])
    return grid


def _planes(pixels: NDArray[np.uint8], scratch: Scratch) -> NDArray[np.float32]:
    """Copy (H, W, 3) to (3, H, W), channel by channel: three times as fast as one transposed copy."""
    planes = scratch.array("planes", (3, *pixels.shape[:2]), np.float32)
    for channel in range(3):
        np.copyto(planes[channel], pixels[..., channel])
    return planes


def _recolour(planes: NDArray[np.float32], draw: Draw, scratch: Scratch) -> None:
    """Apply brightness, contrast and saturation in place. Each is affine in the pixel and its gray value, so they
    make one affine map together.
    """
    gain = draw.brightness * draw.contrast
    gray = scratch.array("gray", planes.shape[1:], np.float32)
    part = scratch.array("part", planes.shape[1:], np.float32)
    np.multiply(planes[0], _LUMA[0] * gain * (1 - draw.saturation), out=gray)
    for channel in (1, 2):
        gray += np.multiply(planes[channel], _LUMA[channel] * gain * (1 - draw.saturation), out=part)
    gray += (1 - draw.contrast) * _MIDDLE_GRAY
    planes *= gain * draw.saturation
    planes += gray


def _put(planes: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
    """Round ``planes`` to the nearest whole numbers from 0 to 255 and write them into ``out``."""
    planes += 0.5
    np.clip(planes, 0, 255, out=planes)
    for channel in range(3):
        np.copyto(out[..., channel], planes[channel], casting="unsafe")

"""Turns a camera's JPEG files into smaller ones or into pixels; every file that cannot be decoded is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.image_options import ImageOptions, ImageSize
from vlapipe.pipeline.readers.arrays import ImageRows
from vlapipe.pipeline.readers.pixels import decode_into, shrink_jpeg
from vlapipe.schemas.findings import Findings

__all__ = ["store_images"]

_Made = TypeVar("_Made")


def store_images(rows: ImageRows, files: list[str], images: ImageOptions, findings: Findings) -> ImageRows | None:
    """One camera's images as ``images`` asks for them; ``None`` where one could not be decoded.

    Args:
        rows: the files as they were recorded, all of one size.
        files: the path of each row's file, for findings.
        images: how they are to be stored.
        findings: takes what is wrong.
    """
    size = images.size or (rows.width, rows.height)
    if images.storage == "raw":
        return _as_pixels(rows, files, size, findings)
    return rows if size == (rows.width, rows.height) else _as_jpeg(rows, files, size, findings)


def _as_jpeg(rows: ImageRows, files: list[str], size: ImageSize, findings: Findings) -> ImageRows | None:
    made = _each(rows, files, findings, lambda _, jpeg: shrink_jpeg(jpeg, size))
    if made is None:
        return None
    offset = np.cumsum([0, *map(len, made)], dtype=np.int64)
    data = np.frombuffer(b"".join(made), dtype=np.uint8)
    return replace(rows, data=data, offset=offset, width=size[0], height=size[1])


def _as_pixels(rows: ImageRows, files: list[str], size: ImageSize, findings: Findings) -> ImageRows | None:
    width, height = size
    pixels = np.empty((rows.num_rows, height, width, 3), dtype=np.uint8)
    if _each(rows, files, findings, lambda row, jpeg: decode_into(jpeg, pixels[row])) is None:
        return None
    return replace(rows, data=pixels, offset=None, width=width, height=height)


def _each(
    rows: ImageRows, files: list[str], findings: Findings, make: Callable[[int, NDArray[np.uint8]], _Made]
) -> list[_Made] | None:
    made: list[_Made] = []
    for row, file in enumerate(files):
        try:
            made.append(make(row, rows.jpeg(row)))
        except ValueError as error:
            findings.add("image.undecodable", file, expected="a JPEG that can be decoded", found=str(error))
    return made if len(made) == len(files) else None

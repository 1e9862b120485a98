"""Reads one camera whose images lie in an array of a container: as pixels, as depth, or as JPEG and PNG files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline import long_images
from vlapipe.pipeline.discover.discovery import stream_name
from vlapipe.pipeline.read.array_clock import Stamps, count_rows, read_stamps
from vlapipe.pipeline.read.clock_file import ClockFile
from vlapipe.pipeline.read.containers.arrays import ArrayFiles, Part, load_array, refuse_array
from vlapipe.pipeline.read.containers.container import open_container
from vlapipe.pipeline.read.images.array_pixels import Layout, PixelArray, layout_of
from vlapipe.pipeline.read.images.image_options import AS_RECORDED, ImageOptions, ImageSize
from vlapipe.pipeline.read.images.keep import EncodedImages, PixelFrames, Places, keep_encoded, keep_pixels
from vlapipe.pipeline.read.images.packed_rows import packed_images
from vlapipe.pipeline.read.refused import RefusedError
from vlapipe.pipeline.shards.format.npy_header import steadily
from vlapipe.pipeline.stream_rows import ImageRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream
from vlapipe.schemas.toml_table import did_you_mean

__all__ = ["read_image_array"]

_AT_ONCE = 64 << 20  # bytes of padded files
_KINDS = "iufbSOV"  # kinds of dtype that may hold images; the last three hold files


def read_image_array(
    root: Path,
    files: list[str],
    stream: ImageStream,
    findings: Findings,
    clock: ClockFile | None = None,
    *,
    images: ImageOptions = AS_RECORDED,
    only_size: ImageSize | None = None,
    in_parts: bool = False,
    camera: str | None = None,
    group: str | None = None,
    part: Part | None = None,
) -> ImageRows | None:
    """Reads a camera from an array. The arguments are those of ``read_images``.

    ``camera`` is what ``{camera}`` stands for in the stream's ``array`` or ``topic``. ``group`` and ``part`` are the
    episode's group and rows in the container. Several files hold one image each.
    """
    found = findings.fresh()
    one_row = len(files) > 1 and not all(file.endswith(".npy") for file in files)
    with open_container(root, files, found, base=group, part=part, one_row_a_file=one_row) as opened:
        name = None if opened is None else _find(opened, stream, camera, found)
        rows = None
        if opened is not None and name is not None:
            stamps = read_stamps(opened, stream.time, found, clock)
            rows = _read(opened, name, stream, stamps, found, images, only_size, in_parts)
    findings.extend(found)
    return None if found.errors else rows


def _find(opened: ArrayFiles, stream: ImageStream, camera: str | None, findings: Findings) -> str | None:
    """Returns the name of the camera's array. A camera's stream may be called otherwise, if its name has odd signs."""
    wanted = [name.replace("{camera}", camera or "") for name in stream.array]
    for name in wanted:
        if name in opened.arrays:
            return name
    for pattern in stream.array if camera is not None else ():
        start, _, end = pattern.partition("{camera}")
        regex = re.compile(f"{re.escape(start)}([^/]+){re.escape(end)}")
        for name in opened.arrays:
            match = regex.fullmatch(name)
            if match is not None and stream_name(match[1]) == camera:
                return name
    expected = "an array " + " or ".join(map(repr, wanted))
    near = did_you_mean(wanted[0], opened.arrays)
    findings.add("npz.missing_array", opened.label, column=wanted[0], expected=expected, found=f"none of it; {near}")
    return None


def _read(
    opened: ArrayFiles,
    name: str,
    stream: ImageStream,
    stamps: Stamps | None,
    findings: Findings,
    images: ImageOptions,
    only_size: ImageSize | None,
    in_parts: bool,
) -> ImageRows | None:
    entry, label = opened.arrays[name], opened.file_of(name)
    first_row = opened.part.start if opened.part is not None else 0
    layout: Layout | None = None
    whole = None
    try:
        if entry.shape is not None and entry.dtype is not None:
            layout = layout_of(entry.shape, entry.dtype, stream)
        padded_bytes = math.prod(entry.shape or ()) if layout is None and entry.dtype == np.uint8 else 0
        if layout is None and padded_bytes <= long_images.MOST_HELD:  # nothing is known of the array, or it holds files
            whole = load_array(lambda: opened.load_any(name), label, name, findings, kinds=_KINDS)
            if whole is None:
                return None
            layout = layout_of(whole.shape, whole.dtype, stream)
    except RefusedError as error:
        refuse_array(error, label, name, findings)
        return None
    opened.check_written(name, findings)
    if layout is None:
        try:
            blocks = [whole] if whole is not None else _blocks(opened, name)
            packed = packed_images(opened, blocks, label, name, findings)
        except Exception as error:  # noqa: BLE001 - a damaged array fails in a dozen ways
            refuse_array(error, label, name, findings)
            return None
        if packed is None:
            return None
        data, offset = packed
        num_images = len(offset) - 1
    else:
        pixels = PixelArray.of(opened, name, layout, stream, whole, findings)
        num_images = pixels.num_frames
    if stamps is None:
        return None
    timestamp = stamps.timestamp
    if timestamp is None:
        timestamp = count_rows(num_images, label, stream.time, findings)
    elif len(timestamp) != num_images:
        code = "npz.length" if stamps.place.column in opened.arrays else "clock.count"
        expected, found = f"{num_images} stamps, one an image of {name}", f"{len(timestamp)}"
        findings.add(code, stamps.place.file, column=stamps.place.column, expected=expected, found=found)
        return None
    if not num_images:
        findings.add("image.none", label, expected=f"an image or more in {name}", found="none")
        return None
    places = Places(num_images, lambda row: f"{label}: {name}[{first_row + row}]")
    place = stamps.place if stamps.place.column is not None else None
    if layout is None:
        encoded = EncodedImages(
            data=data, offset=offset, timestamp=timestamp, places=places, source=opened.source, clock_location=place
        )
        return keep_encoded(encoded, stream, findings, images, only_size, in_parts)
    try:
        frames = pixels.frames()
        shown = PixelFrames(
            frames=frames, timestamp=timestamp, places=places, source=opened.source, clock_location=place
        )
        rows = keep_pixels(shown, stream, findings, images, only_size, in_parts)
    except Exception as error:  # noqa: BLE001 - a damaged array fails in a dozen ways
        refuse_array(error, label, name, findings)
        return None
    pixels.report(label, name, findings)
    return rows


def _blocks(opened: ArrayFiles, name: str) -> Iterator[NDArray[Any]]:
    """Yields the episode's rows of a large array of padded files, some at a time."""
    entry = opened.arrays[name]
    assert entry.shape is not None
    start, stop, _ = (opened.rows_of(name) or slice(None)).indices(entry.shape[0])
    step = max(1, _AT_ONCE // max(1, entry.shape[1]))
    for first in range(start, stop, step):
        yield steadily(partial(entry.load, slice(first, min(first + step, stop))))

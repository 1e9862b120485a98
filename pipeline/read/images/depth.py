"""Brings depth to whole numbers of a camera's unit: uint16, 0 where the sensor had no reading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream
from vlapipe.schemas.units import metres_of

__all__ = ["DepthFaultError", "in_unit", "unit_factor"]

_MOST = 65535
_EXACT = 1e-3  # a number nearer than this to a whole one is whole: float32 metres are never exact millimetres


class DepthFaultError(ValueError):
    """An image cannot be kept as depth; the finding about it is there already."""


def unit_factor(stream: ImageStream) -> float:
    """Returns the factor from the numbers in the files of a depth camera to its unit."""
    assert stream.unit is not None
    return metres_of(stream.file_unit or stream.unit) / metres_of(stream.unit)


def in_unit(
    frames: Iterable[NDArray[Any]], places: Sequence[str], stream: ImageStream, place: str, findings: Findings
) -> Iterator[NDArray[np.uint16]]:
    """Yields frames ``(height, width)`` as uint16 in the camera's unit, and reports afterwards what was rounded.

    NaN and infinity, which are no readings, become 0.

    Raises:
        DepthFaultError: a frame has several channels, or depth that the unit cannot hold; this is reported.
    """
    factor = unit_factor(stream)
    most_off, num_holes = 0.0, 0
    for row, frame in enumerate(frames):
        frame = frame[..., 0] if frame.ndim == 3 and frame.shape[2] == 1 else frame
        if frame.ndim != 2 or frame.dtype.kind not in "uif":
            found = f"{frame.dtype} {frame.shape}"
            findings.add("image.not_depth", places[row], expected="one channel of numbers", found=found)
            raise DepthFaultError(places[row])
        if factor == 1 and frame.dtype in (np.uint8, np.uint16):
            yield frame.astype(np.uint16, copy=False)
            continue
        scaled = frame.astype(np.float64) * factor
        is_hole = ~np.isfinite(scaled)
        num_holes += int(np.count_nonzero(is_hole))
        scaled[is_hole] = 0
        whole = np.rint(scaled)
        if whole.size and not 0 <= whole.min() <= whole.max() <= _MOST:
            worst = scaled.max() if whole.max() > _MOST else scaled.min()
            expected = f"0 to {_MOST} {stream.unit}, which uint16 holds"
            findings.add("image.depth_range", places[row], expected=expected, found=f"{worst:g} {stream.unit}")
            raise DepthFaultError(places[row])
        most_off = max(most_off, float(np.abs(whole - scaled).max(initial=0)))
        yield whole.astype(np.uint16)
    if most_off > _EXACT:
        findings.add("image.depth_rounded", place, found=f"by up to {most_off:.2g} {stream.unit}")
    if num_holes:
        findings.add("image.depth_holes", place, found=f"{num_holes} pixels")

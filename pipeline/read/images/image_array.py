"""Reads one camera whose images lie in an array, or in messages, of a container."""

from __future__ import annotations

from pathlib import Path

from vlapipe.pipeline.read.clock_file import ClockFile
from vlapipe.pipeline.read.containers.arrays import Part
from vlapipe.pipeline.read.images.image_options import AS_RECORDED, ImageOptions, ImageSize
from vlapipe.pipeline.stream_rows import ImageRows
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream

__all__ = ["read_image_array"]


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
    episode's group and rows in the container.
    """
    del root, stream, findings, clock, images, only_size, in_parts, camera, group, part
    raise UsageError(f"{files[0]}: images in a container are not read yet")

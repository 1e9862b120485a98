"""Reads one camera that was recorded as a video."""

from __future__ import annotations

from pathlib import Path

from vlapipe.pipeline.read.clock_file import ClockFile
from vlapipe.pipeline.read.images.image_options import AS_RECORDED, ImageOptions, ImageSize
from vlapipe.pipeline.stream_rows import ImageRows
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream

__all__ = ["read_video"]


def read_video(
    root: Path,
    files: list[str],
    stream: ImageStream,
    findings: Findings,
    clock: ClockFile | None = None,
    *,
    images: ImageOptions = AS_RECORDED,
    only_size: ImageSize | None = None,
    in_parts: bool = False,
    times: tuple[float, float] | None = None,
) -> ImageRows | None:
    """Reads the frames of a video. The arguments are those of ``read_images``.

    ``times`` are the seconds of the video that belong to the episode; ``None`` means all.
    """
    del root, stream, findings, clock, images, only_size, in_parts, times
    raise UsageError(f"{files[0]}: videos are not read yet")

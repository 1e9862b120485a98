"""Reads the first frames of a few videos before the plan is made, to learn how large their frames become."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlapipe.pipeline.discover.listing import RawFile
from vlapipe.pipeline.read.images.image_options import ImageOptions, ImageSize
from vlapipe.pipeline.read.images.stored_images import store_frames
from vlapipe.pipeline.read.video.decode import DamagedVideoError, whole_frames
from vlapipe.pipeline.read.video.file_head import BadVideoError
from vlapipe.pipeline.read.video.jpeg_frames import to_rgb, turn_of
from vlapipe.pipeline.read.video.open_video import av_error, open_video
from vlapipe.pipeline.stream_rows import ImageRows, SourceFile
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["VideoSample", "look_at_videos"]

_TRIED = 16  # videos that are opened
_FRAMES = 4  # of each that are stored on trial


@dataclass(frozen=True, kw_only=True)
class VideoSample:
    """The sizes of the frames of the videos that were opened, and the bytes stored for each byte of a video."""

    sizes: tuple[ImageSize, ...]
    bytes_of_byte: float


def look_at_videos(root: Path, files: Iterable[RawFile], images: ImageOptions) -> VideoSample:
    """Decodes a few frames of some of the videos. Videos that cannot be read count as if they were kept as they are."""
    every = sorted({file.path: file for file in files}.items())
    sizes = list[ImageSize]()
    before = after = 0
    for path, file in every[:: -(-len(every) // _TRIED) or 1]:
        try:
            size, num_bytes = _stored(root / path, file.num_bytes, images)
        except (OSError, BadVideoError, DamagedVideoError, av_error()) as error:
            raise_if_stopped(error, root / path)
            continue  # not reported here: reading the episode reports the fault
        sizes.append(size)
        before, after = before + file.num_bytes, after + num_bytes
    return VideoSample(sizes=tuple(sizes), bytes_of_byte=after / before if before else 1.0)


def _stored(path: Path, num_bytes: int, images: ImageOptions) -> tuple[ImageSize, int]:
    """Returns the size of a video's frames, and about how many bytes they are stored in."""
    with open_video(path) as video:
        frames = whole_frames(video, None)
        first = next(frames, None)
        if first is None:
            raise BadVideoError("no frame")
        turn = turn_of(first.picture)
        shown = itertools.chain([first], itertools.islice(frames, _FRAMES - 1))
        pixels = [to_rgb(each.picture, turn) for each in shown]
        num_frames = video.num_declared
        if not num_frames and video.duration_s and video.frame_s:
            num_frames = int(video.duration_s / video.frame_s)
        num_frames = min(max(num_frames, len(pixels)), num_bytes)  # a header may promise anything
        size = pixels[0].shape[1], pixels[0].shape[0]
        if video.codec == "mjpeg" and images.keeps("jpeg"):
            return size, num_bytes
    rows = ImageRows(
        timestamp=np.zeros(len(pixels), dtype=np.int64),
        data=np.empty(0, dtype=np.uint8),
        offset=np.zeros(1, dtype=np.int64),
        height=size[1],
        width=size[0],
        source=SourceFile(path="", num_files=1, num_bytes=num_bytes, sha256=""),
    )
    made = store_frames(pixels, rows, images, images.made_from("jpeg"), "420")
    return size, made.data.nbytes * num_frames // len(pixels)

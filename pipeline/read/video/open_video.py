"""Opens the video stream of a file with FFmpeg's libraries (PyAV), without following anything that the file names."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from vlapipe.pipeline.read.text import first_line
from vlapipe.pipeline.read.video.file_head import BadVideoError, read_head
from vlapipe.schemas.extras import need
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["DEEP_GRAY", "OpenVideo", "av_error", "open_video", "stop_unless_damaged"]

_MAX_PIXELS = 36_000_000  # 8K; a decoder of H.264 may hold 16 frames at a time
_PIECE = 1 << 22
_USUAL_PIXELS = 9_000_000  # 4K
_MOST_PIXELS_A_BYTE = 1000  # of one larger frame, counted against all bytes of the file
# FFmpeg's names of pixels of one channel with more than 8 bits, as depth has.
DEEP_GRAY = re.compile(r"gray(9|1\d)")


@dataclass(frozen=True, kw_only=True)
class OpenVideo:
    """An open file and its video stream, which decodes in ``num_threads`` threads.

    ``num_declared`` is the number of frames that the index promises, 0 if there is none. ``num_others`` counts the
    other video streams of the file.
    """

    path: Path
    container: Any
    stream: Any
    kind: str  # of the container
    is_cut_short: bool
    num_declared: int
    num_others: int

    @property
    def codec(self) -> str:
        """Returns the name of the coding, such as ``h264``."""
        name: str = self.stream.codec_context.codec.canonical_name
        return name

    @property
    def frame_s(self) -> Fraction | None:
        """Returns the usual time from frame to frame in seconds; ``None`` if the file does not tell."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return 1 / Fraction(rate) if rate else None

    @property
    def duration_s(self) -> Fraction | None:
        """Returns how long the video stream says it is."""
        tag = _tagged_duration(self.stream.metadata)
        if tag is not None:
            return tag
        if self.stream.duration is not None:
            return Fraction(self.stream.duration) * Fraction(self.stream.time_base)
        alone = bool(len(self.container.streams) == 1 and self.container.duration)
        return Fraction(self.container.duration, 1_000_000) if alone else None


def av_error() -> type[Exception]:
    """Returns the error by which PyAV refuses a file or a packet."""
    error: type[Exception] = need("av", "video", "a video").error.FFmpegError
    return error


def stop_unless_damaged(error: Exception, path: Path) -> None:
    """Raises if the surroundings are at fault. FFmpeg calls damage in a file an error of the disk, too.

    Raises:
        StoppedError: the disk, the memory or a limit failed.
    """
    if getattr(error, "errno", None) == errno.EIO:
        try:
            with path.open("rb") as file:
                while file.read(_PIECE):
                    pass
        except OSError as failed:
            raise_if_stopped(failed, path)
        else:
            return  # the disk gives the file: the file is at fault
    raise_if_stopped(error, path)


@contextlib.contextmanager
def open_video(path: Path, *, num_threads: int = 1) -> Iterator[OpenVideo]:
    """Opens a video.

    The first video stream counts that is no cover picture. FFmpeg is told which container to read, so that no playlist
    in disguise makes it open other files.

    Raises:
        BadVideoError: the file holds no video that can be decoded.
        OSError: the file cannot be read.
        UsageError: PyAV is not installed.
    """
    av = need("av", "video", "a video")
    with path.open("rb") as file:
        head = read_head(file, path.stat().st_size)
    options = {"protocol_whitelist": "file"}
    try:
        container = av.open(f"file:{path}", format=head.container, options=options, metadata_errors="replace")
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise BadVideoError(f"no {head.container} file that can be read: {first_line(error)}") from None
    with container:
        videos = [each for each in container.streams.video if not each.disposition & each.disposition.attached_pic]
        if not videos:
            kinds = ", ".join(sorted({each.type for each in container.streams})) or "nothing"
            raise BadVideoError(f"no video stream; the file holds {kinds}")
        stream = videos[0]
        if stream.codec_context is None:
            raise BadVideoError("a coding for which the decoder is missing")
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > _MAX_PIXELS:
            raise BadVideoError(f"frames of {width}x{height}, more than {_MAX_PIXELS // 1_000_000} megapixels")
        if width * height > max(_USUAL_PIXELS, _MOST_PIXELS_A_BYTE * path.stat().st_size):
            raise BadVideoError(f"frames of {width}x{height} in a file of {path.stat().st_size:,} bytes")
        stream.codec_context.options = {"max_pixels": str(_MAX_PIXELS)}
        stream.codec_context.thread_count = num_threads
        stream.thread_type = "AUTO" if num_threads > 1 else "NONE"
        yield OpenVideo(
            path=path,
            container=container,
            stream=stream,
            kind=head.container,
            is_cut_short=head.is_cut_short,
            num_declared=max(0, stream.frames),
            num_others=len(videos) - 1,
        )


def _tagged_duration(metadata: dict[str, str]) -> Fraction | None:
    """Returns Matroska's duration of one stream, which the muxer writes as ``00:00:03.333000000``."""
    text = metadata.get("DURATION", "")
    hours, minutes, seconds = text.split(":") if text.count(":") == 2 else ("", "", "")
    try:
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except ValueError:
        return None

"""Makes small videos, and reads them as the tests expect ours to: frame by frame, by PyAV's own shortest way."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.export.video_files import leave_real_time

__all__ = ["add_packets", "frames_of", "make_video", "picture", "psnr_db", "shown_by_av"]


def picture(number: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """One frame: a ramp that moves, a square at a place that tells the number, and two corners that tell the sides."""
    ramp = np.add.outer(np.arange(height), np.arange(width)) + 3 * number
    image = np.stack([ramp % 200, (ramp // 2) % 200, np.full_like(ramp, 40 + number % 100)], axis=-1).astype(np.uint8)
    left = 8 + (5 * number) % (width - 24)
    image[12:28, left : left + 16] = [220, 40, 30]
    image[:8, :8], image[-8:, -8:] = 255, 0
    return image


def frames_of(num_frames: int, width: int = 64, height: int = 48) -> list[NDArray[np.uint8]]:
    return [picture(number, width, height) for number in range(num_frames)]


def make_video(
    path: Path,
    frames: Iterable[NDArray[Any]],
    *,
    codec: str = "libx264",
    rate: int = 30,
    pix_fmt: str = "yuv420p",
    stamps: Iterable[int] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    array_format: str = "rgb24",
    degrees: int = 0,
    audio: bool = False,
    colour: tuple[int, int] | None = None,  # FFmpeg's numbers of colour space and of range
) -> Path:
    """Writes a video; ``stamps`` are the frames' times in ``time_base``, by default their numbers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = list(frames)
    base = time_base or Fraction(1, rate)
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = pix_fmt, base
        if degrees:
            stream.set_display_rotation(degrees)
        if colour:
            stream.codec_context.colorspace, stream.codec_context.color_range = colour
        sound = container.add_stream("pcm_s16le", rate=8000) if audio else None
        for stamp, image in zip(stamps or range(len(images)), images, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=array_format)
            if colour:
                frame = frame.reformat(
                    format=pix_fmt, dst_colorspace={1: 1, 6: 5}[colour[0]], dst_color_range=colour[1]
                )
                frame.colorspace, frame.color_range = colour
            frame.pts, frame.time_base = stamp, base
            container.mux(stream.encode(frame))
            leave_real_time()  # for the tests that come after in this process
        container.mux(stream.encode(None))
        if sound is not None:
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
            samples.sample_rate, samples.pts = 8000, 0
            container.mux(sound.encode(samples))
            container.mux(sound.encode(None))
    return path


def shown_by_av(path: Path) -> tuple[NDArray[np.uint8], list[Fraction]]:
    """The frames as RGB and their times in seconds, by PyAV alone, in one thread."""
    images, times = [], []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for frame in container.decode(stream):
            images.append(frame.to_ndarray(format="rgb24"))
            times.append(frame.pts * Fraction(frame.time_base))
    return np.stack(images), times


def add_packets(path: Path, into: Path, *, muxer: dict[str, str] | None = None, drop: int = 0) -> Path:
    """Copies a video without coding it again, less its first ``drop`` packets."""
    with av.open(str(path)) as source, av.open(str(into), "w", options=muxer or {}) as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for number, packet in enumerate(source.demux(stream)):
            if packet.size and number >= drop:
                packet.stream = copy
                target.mux(packet)
    return into


def psnr_db(one: NDArray[Any], other: NDArray[Any]) -> float:
    mean = np.mean((one.astype(np.float64) - other) ** 2)
    return float(10 * np.log10(255**2 / max(mean, 1e-9)))

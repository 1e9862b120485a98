"""Encodes an episode's images as video, measures the loss, and lays episodes end to end in one file without loss.

Settings are LeRobot's own: 4:2:0 colour, a key frame every second frame so that any frame is found quickly, CRF 30.
Every written file is decoded or read again: frames are counted, their times compared, and some compared by PSNR.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.format.atomic import whole_file
from vlapipe.pipeline.shards.format.image_loss import psnr_db, squared_error
from vlapipe.schemas.errors import DamageError
from vlapipe.schemas.extras import need

__all__ = ["CODECS", "Loss", "VideoPart", "encode", "exact_rate", "join", "leave_real_time", "measure", "video_info"]

CODECS = {"h264": "libx264", "av1": "libsvtav1"}
_PAIRS = 8  # of neighbouring frames of an episode that are compared: one is a key frame, the other, worse, is not
_LEAST_MSE = 1e-10  # so that what lost nothing has a PSNR that JSON can hold

Pixels = Callable[[int], NDArray[np.uint8]]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What encoding changed in a sample of frames: mean squared errors of their RGB values."""

    frames: int = 0
    mse_sum: float = 0.0
    mse_worst: float = 0.0

    def plus(self, other: Loss) -> Loss:
        """Returns the loss of two samples together."""
        return Loss(
            frames=self.frames + other.frames,
            mse_sum=self.mse_sum + other.mse_sum,
            mse_worst=max(self.mse_worst, other.mse_worst),
        )

    @property
    def psnr_db(self) -> float:
        """Returns the PSNR of the sample in dB; 40 and more is hard to see."""
        return psnr_db(max(self.mse_sum / max(1, self.frames), _LEAST_MSE))

    @property
    def worst_psnr_db(self) -> float:
        """Returns the PSNR of the frame that changed most."""
        return psnr_db(max(self.mse_worst, _LEAST_MSE))


@dataclass(frozen=True, kw_only=True)
class VideoPart:
    """A file with the frames of one episode."""

    path: Path
    frames: int


def exact_rate(fps: float) -> Fraction:
    """Returns the rate as a fraction that a video file can hold: 29.97 becomes 2997/100."""
    return Fraction(fps).limit_denominator(100_000)


def encode(path: Path, codec: str, rate: Fraction, size: tuple[int, int], images: Iterable[NDArray[np.uint8]]) -> None:
    """Encodes images ``(H, W, 3)`` into a file, under a temporary name first. ``size`` is (height, width).

    The encoder works in one thread: episodes are encoded side by side.
    """
    av = need("av", "video", "--video")
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder tells its settings on stderr for each file otherwise
    options = {"g": "2", "crf": "30"}
    if codec == "av1":
        options |= {"preset": "12", "svtav1-params": "lp=1"}
    else:
        options |= {"bf": "0", "threads": "1"}
    with whole_file(path) as temporary, av.open(str(temporary), "w", format="mp4") as output:
        stream = output.add_stream(CODECS[codec], rate, options=options)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = i, 1 / rate
            output.mux(stream.encode(frame))
            if not i:  # which opened the encoder
                leave_real_time()
        output.mux(stream.encode())


def leave_real_time() -> None:
    """Give every thread of this process the scheduling of an ordinary program.

    If root opens the AV1 encoder, it makes its own threads and the one that opened it real-time threads of the highest
    priority, and whatever these start is one too. Nothing else would run on the machine while they compute.
    """
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        return
    for thread in tasks.iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if os.sched_getscheduler(int(thread.name)) == os.SCHED_FIFO:
                os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))


def measure(path: Path, rate: Fraction, count: int, image: Pixels) -> Loss:
    """Decodes a file of one episode. Counts the frames, checks their times, and compares some with the images.

    Raises:
        DamageError: the file has not ``count`` frames, or a frame has another time than i / rate.
    """
    av = need("av", "video", "--video")
    firsts = np.linspace(0, max(0, count - 2), min(_PAIRS, count)).astype(int).tolist()
    sample = {*firsts, *(first + 1 for first in firsts)}
    loss, found = Loss(), 0
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        for frame in container.decode(video=0):
            if frame.pts * frame.time_base != found / rate:
                raise _not_as_written(path, f"frame {found} at {float(found / rate)} s", f"{frame.time} s")
            if found in sample:
                mse = squared_error(image(found), frame.to_ndarray(format="rgb24"))
                loss = loss.plus(Loss(frames=1, mse_sum=mse, mse_worst=mse))
            found += 1
    if found != count:
        raise _not_as_written(path, f"{count} frames", f"{found}")
    return loss


def join(path: Path, parts: Sequence[VideoPart], rate: Fraction) -> None:
    """Lays the frames of several files end to end in one file. The encoded frames are copied as they are.

    Raises:
        DamageError: read back, the file holds other frames, or at other times.
    """
    av = need("av", "video", "--video")
    written = hashlib.sha256()
    with whole_file(path) as temporary:
        with av.open(str(temporary), "w", format="mp4", options={"movflags": "faststart"}) as output:
            stream = None
            before = 0
            for part in parts:
                with av.open(str(part.path)) as source:
                    recorded = source.streams.video[0]
                    if stream is None:
                        stream = output.add_stream_from_template(recorded, opaque=True)
                        stream.time_base = recorded.time_base
                    shift = int(before / rate / recorded.time_base)
                    for packet in source.demux(recorded):
                        if packet.dts is None:
                            continue
                        written.update(bytes(packet))
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        packet.stream = stream
                        output.mux(packet)
                before += part.frames
        _check_joined(av, temporary, path, rate, before, written.hexdigest())


def video_info(path: Path) -> dict[str, Any]:
    """Returns what LeRobot's ``info.json`` says of a video file."""
    av = need("av", "video", "--video")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return {
            "video.height": stream.height,
            "video.width": stream.width,
            "video.codec": stream.codec.canonical_name,
            "video.pix_fmt": stream.pix_fmt,
            "video.is_depth_map": False,
            "video.fps": int(stream.base_rate),
            "video.channels": 3,
            "has_audio": False,
        }


def _check_joined(av: Any, temporary: Path, path: Path, rate: Fraction, count: int, digest: str) -> None:
    found, read = 0, hashlib.sha256()
    with av.open(str(temporary)) as container:
        for packet in container.demux(video=0):
            if packet.dts is None:
                continue
            if packet.pts * packet.time_base != found / rate:
                wrong = f"{float(packet.pts * packet.time_base)} s"
                raise _not_as_written(path, f"frame {found} at {float(found / rate)} s", wrong)
            read.update(bytes(packet))
            found += 1
    if found != count or read.hexdigest() != digest:
        raise _not_as_written(path, f"the {count} frames that were written", f"{found} frames, not all the same")


def _not_as_written(path: Path, expected: str, found: str) -> DamageError:
    return DamageError(f"{path}: read back: expected {expected}, found {found}", "run the same command again")

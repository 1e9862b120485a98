"""Reads one camera that was recorded as a video: its frames as JPEG, or as pixels, with their times."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.long_images import Pieces
from vlapipe.pipeline.read.clock_file import ClockFile, clock_of_stamps, refuse_far, shift_by_name
from vlapipe.pipeline.read.clocks.stamps import FarStampsError
from vlapipe.pipeline.read.containers.arrays import source_of
from vlapipe.pipeline.read.images.image_options import AS_RECORDED, ImageOptions, ImageSize
from vlapipe.pipeline.read.images.keep import EncodedImages, PixelFrames, keep_encoded, keep_pixels
from vlapipe.pipeline.read.refused import RefusedError, refuse_holes
from vlapipe.pipeline.read.text import first_line
from vlapipe.pipeline.read.video.decode import DamagedVideoError, Losses, Shown, careful_frames, whole_frames
from vlapipe.pipeline.read.video.file_head import BadVideoError
from vlapipe.pipeline.read.video.jpeg_frames import Jpeg, Turn, jpegs_of, rgb_frames, to_gray16, turn_of
from vlapipe.pipeline.read.video.mjpeg import JpegPackets, whole_jpegs
from vlapipe.pipeline.read.video.open_video import (
    DEEP_GRAY,
    OpenVideo,
    av_error,
    open_video,
    stop_unless_damaged,
)
from vlapipe.pipeline.shards.format.image_loss import psnr_db
from vlapipe.pipeline.stream_rows import ImageRows, SourceFile
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream

__all__ = ["read_video"]

# Threads that decode one video; as many again make JPEG. More would only help if a single episode were read at a time.
_NUM_THREADS = min(2, os.cpu_count() or 1)
_SECOND = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class _Camera:
    """The arguments of ``read_video``, and the file's name in findings."""

    label: str
    stream: ImageStream
    findings: Findings
    clock: ClockFile | None
    images: ImageOptions
    only_size: ImageSize | None
    in_parts: bool
    times: tuple[float, float] | None

    def fault(self, code: str, *, expected: str = "", found: str = "", frame: int | None = None) -> None:
        column = None if frame is None else f"frame {frame}"
        self.findings.add(code, self.label, column=column, expected=expected, found=found)


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

    ``times`` are the seconds of the video that belong to the episode; ``None`` means all. The times of a part count
    from its first second.
    """
    if len(files) != 1:
        found = f"{len(files)}, such as {files[1]}"
        findings.add("file.several", files[0], expected="one video a camera", found=found)
        return None
    camera = _Camera(
        label=files[0],
        stream=stream,
        findings=findings,
        clock=clock,
        images=images,
        only_size=only_size,
        in_parts=in_parts,
        times=times,
    )
    try:
        refuse_holes(root / files[0])  # hashing them would take minutes
        with ThreadPoolExecutor(1) as hashing:
            source = hashing.submit(source_of, root, files, files[0])
            return _read(root / files[0], camera, source.result)
    except BadVideoError as error:
        found = str(error)
    except RefusedError as error:
        found = error.found
    except (OSError, av_error()) as error:
        stop_unless_damaged(error, root / files[0])
        found = getattr(error, "strerror", None) or first_line(error)
    camera.fault("video.unreadable", expected="a video", found=found)
    return None


def _read(path: Path, camera: _Camera, source: Callable[[], SourceFile]) -> ImageRows | None:
    """Reads the video at full speed; if it turns out to be damaged, reads it again with care."""
    try:
        return _read_frames(path, camera, source, None)
    except DamagedVideoError:
        losses = Losses()
    if camera.stream.on_bad == "drop":
        return _read_frames(path, camera, source, losses)
    with open_video(path) as video:
        for _ in careful_frames(video, _part_of(video, camera.times), losses):
            pass
    _report_losses(camera, losses)
    return None


def _report_losses(camera: _Camera, losses: Losses) -> None:
    code = "video.frames_left_out" if camera.stream.on_bad == "drop" else "video.damaged"
    camera.fault(code, expected="every frame whole", found=str(losses))


def _read_frames(
    path: Path, camera: _Camera, source: Callable[[], SourceFile], losses: Losses | None
) -> ImageRows | None:
    """Reads all frames, or the whole ones if ``losses`` collects the others.

    Raises:
        DamagedVideoError: ``losses`` is ``None``, and a frame is damaged.
    """
    with open_video(path, num_threads=_NUM_THREADS if losses is None else 1) as video:
        jpegs = whole_jpegs(video, _part_of(video, camera.times)) if camera.stream.unit is None else None
        if jpegs is not None:
            _describe(video, camera, Turn())
            return _keep_untouched(camera, jpegs, source)
    with open_video(path, num_threads=_NUM_THREADS if losses is None else 1) as video:
        part = _part_of(video, camera.times)
        frames = whole_frames(video, part) if losses is None else careful_frames(video, part, losses)
        first = next(frames, None)
        if first is None:
            raise BadVideoError(_no_frame(camera, losses))
        if camera.stream.unit is None and DEEP_GRAY.match(form := _pixel_form(video)):
            camera.fault(
                "image.no_unit", expected="8 bits a sample, or a camera with a unit", found=f"{form} in a video"
            )
            return None
        turn = turn_of(first.picture)
        shown = itertools.chain([first], frames)
        if camera.stream.unit is not None:
            rows = _keep_depth(video, camera, shown, turn, source, losses)
        elif camera.images.made_from("jpeg") != "jpeg":
            rows = _keep_pixels(video, camera, rgb_frames(shown, turn, _NUM_THREADS), source, losses)
        else:
            rows = _keep_jpeg(
                video,
                camera,
                jpegs_of(shown, turn, camera.images.size, camera.images.quality, _NUM_THREADS),
                source,
                losses,
            )
        _describe(video, camera, turn)
    if losses:
        _report_losses(camera, losses)
        rows = None if rows is None else replace(rows, num_dropped=losses.num_damaged + losses.num_missing)
    return rows


def _keep_untouched(camera: _Camera, jpegs: JpegPackets, source: Callable[[], SourceFile]) -> ImageRows | None:
    """Keeps the JPEG files that a video of Motion JPEG consists of; faulty ones are treated like faulty files."""
    losses = jpegs.losses
    if losses:
        _report_losses(camera, losses)
        if camera.stream.on_bad == "refuse":
            return None
    data, offset = jpegs.files.joined()
    encoded = EncodedImages(
        data=data,
        offset=offset,
        timestamp=_clock(camera, jpegs.numbers, jpegs.times_ns, losses),
        places=[f"{camera.label}: frame {number}" for number in jpegs.numbers],
        source=source(),
        clock_location=None if camera.clock is None else camera.clock.place,
    )
    rows = keep_encoded(encoded, camera.stream, camera.findings, camera.images, camera.only_size, camera.in_parts)
    return rows if rows is None else replace(rows, num_dropped=rows.num_dropped + losses.num_missing)


def _no_frame(camera: _Camera, losses: Losses | None) -> str:
    if losses:
        return f"no frame that can be decoded: {losses}"
    return "no frame" if camera.times is None else "no frame from {:.3f} to {:.3f} s".format(*camera.times)


def _part_of(video: OpenVideo, times: tuple[float, float] | None) -> tuple[int, int] | None:
    """Returns the part in nanoseconds. It begins and ends between two frames, so that rounded stamps decide nothing."""
    if times is None:
        return None
    half = int((video.frame_s or 0) * _SECOND / 2)
    return round(times[0] * _SECOND) - half, round(times[1] * _SECOND) - half


def _describe(video: OpenVideo, camera: _Camera, turn: Turn) -> None:
    if video.num_others:
        camera.fault("video.several_streams", expected="one video stream", found=f"{video.num_others + 1}")
    if turn.is_crooked:
        camera.fault("video.crooked", found=f"a turn by {turn.degrees} degrees; kept as it is")
    elif turn:
        camera.fault("video.rotated", found=f"turned by {turn.degrees} degrees" if turn.degrees else "mirrored")


def _keep_jpeg(
    video: OpenVideo,
    camera: _Camera,
    jpegs: Iterator[Jpeg],
    source: Callable[[], SourceFile],
    losses: Losses | None,
) -> ImageRows | None:
    files, numbers, times, seen = Pieces(), list[int](), list[int | None](), list[float]()
    size: ImageSize | None = None
    for jpeg in jpegs:
        size = size or (jpeg.width, jpeg.height)
        if (jpeg.width, jpeg.height) != size:
            expected, found = f"{size[0]}x{size[1]} as before", f"{jpeg.width}x{jpeg.height}"
            camera.fault("image.size_changes", expected=expected, found=found, frame=jpeg.number)
            return None
        files.append(jpeg.data)
        numbers.append(jpeg.number)
        times.append(jpeg.time_ns)
        seen += [jpeg.error] if jpeg.error is not None else []
    timestamp = _clock(camera, numbers, times, losses)
    if size is None or timestamp is None:
        return None
    loss_db = psnr_db(sum(seen) / len(seen)) if seen else None
    if loss_db is not None:
        found = f"{loss_db:.1f} dB in {len(seen)} of {len(files)} frames, {psnr_db(max(seen)):.1f} dB at worst"
        camera.fault("video.lossy", found=f"{found}; {video.codec} as JPEG of quality {camera.images.quality}")
    data, offset = files.joined()
    return ImageRows(
        timestamp=timestamp,
        data=data,
        offset=offset,
        height=size[1],
        width=size[0],
        source=source(),
        clock_location=None if camera.clock is None else camera.clock.place,
        psnr_db=loss_db,
    )


def _keep_depth(
    video: OpenVideo,
    camera: _Camera,
    shown: Iterable[Shown],
    turn: Turn,
    source: Callable[[], SourceFile],
    losses: Losses | None,
) -> ImageRows | None:
    form = _pixel_form(video)
    if not DEEP_GRAY.match(form):
        camera.fault("image.coding", expected="gray of 9 to 16 bits, since the camera has a unit", found=form)
        return None
    frames = ((each, to_gray16(each.picture, turn)) for each in shown)
    return _keep_pixels(video, camera, frames, source, losses)


def _pixel_form(video: OpenVideo) -> str:
    return str(video.stream.codec_context.pix_fmt or "unknown")


def _keep_pixels(
    video: OpenVideo,
    camera: _Camera,
    frames: Iterable[tuple[Shown, NDArray[Any]]],
    source: Callable[[], SourceFile],
    losses: Losses | None,
) -> ImageRows | None:
    """Hands the pixels over one by one. They wait until all times are known."""
    numbers, times, kinds, waiting = list[int](), list[int | None](), list[tuple[Any, ...]](), Pieces()
    for shown, image in frames:
        numbers.append(shown.number)
        times.append(shown.time_ns)
        kinds.append((image.dtype, image.shape))
        waiting.append(image.tobytes())

    def handed_over() -> Iterator[NDArray[Any]]:
        for (dtype, shape), image in zip(kinds, waiting.taken(), strict=True):
            yield np.frombuffer(image, dtype=dtype).reshape(shape)

    kept = PixelFrames(
        frames=handed_over(),
        timestamp=_clock(camera, numbers, times, losses),
        places=[f"{camera.label}: frame {number}" for number in numbers],
        source=source(),
        clock_location=None if camera.clock is None else camera.clock.place,
        lossy_from=video.codec,
    )
    return keep_pixels(kept, camera.stream, camera.findings, camera.images, camera.only_size, camera.in_parts)


def _clock(
    camera: _Camera, numbers: list[int], times_ns: list[int | None], losses: Losses | None
) -> NDArray[Any] | None:
    """Returns the frames' times as the schema says: of the container, by a rate, of a file, or of another stream."""
    time, label, findings = camera.stream.time, camera.label, camera.findings
    if time.rows_of is not None:
        return np.array(numbers, dtype=np.int64)
    if camera.clock is not None:
        # Frames that are lost have stamps all the same.
        num_frames = losses.num_seen + losses.num_missing if losses else len(numbers)
        return camera.clock.timestamp[numbers] if camera.clock.fits(num_frames, label, findings) else None
    try:
        if time.index_rate_hz:
            return clock_of_stamps([*numbers], label, time)
        if None in times_ns:
            found = f"{times_ns.count(None)} of {len(times_ns)} frames without one"
            camera.fault("video.no_times", expected="a time a frame", found=found)
            return None
        begins = 0 if camera.times is None else round(camera.times[0] * _SECOND)
        return shift_by_name(
            np.array([each - begins for each in times_ns if each is not None], dtype=np.int64), label, time
        )
    except FarStampsError as error:
        refuse_far(error, label, time, findings)
    except (ValueError, OverflowError) as error:
        camera.fault("video.no_times", expected="times", found=str(error))
    return None

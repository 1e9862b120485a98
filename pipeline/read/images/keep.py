"""Keeps the images of one camera: encoded files byte for byte, pixels as asked for. Every faulty image is named.

Readers of files, arrays, videos and bags all end here, so a camera obeys the same checks whatever holds its images. An
image that cannot be used is refused with its whole episode, or left out, as the schema says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.long_images import Pieces, empty_images
from vlapipe.pipeline.read.images.checks import OF_SCHEMA, Checked, Fault, check_images
from vlapipe.pipeline.read.images.depth import DepthFaultError, in_unit, unit_factor
from vlapipe.pipeline.read.images.image_options import AS_RECORDED, ImageOptions, ImageSize
from vlapipe.pipeline.read.images.other_formats import format_of, pixels_of, png_of
from vlapipe.pipeline.read.images.png import read_png_header
from vlapipe.pipeline.shards.format.image_decode import decode_depth
from vlapipe.pipeline.stream_rows import ClockLocation, ImageRows, RowFaults, SourceFile
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream

__all__ = ["EncodedImages", "PixelFrames", "Places", "keep_encoded", "keep_pixels"]


class Places(Sequence[str]):
    """How findings call the images of a camera. A name is made only when it is asked for: few of them ever are."""

    def __init__(self, num_images: int, name: Callable[[int], str]) -> None:
        self._rows, self._name = range(num_images), name

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._rows)

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> list[str]: ...

    def __getitem__(self, row: int | slice) -> str | list[str]:
        """Returns the name of an image, or of several."""
        found = self._rows[row]
        return self._name(found) if isinstance(found, int) else [self._name(each) for each in found]


@dataclass(frozen=True, kw_only=True)
class EncodedImages:
    """JPEG or PNG files end to end, in the order of their times; image ``i`` is ``data[offset[i]:offset[i + 1]]``.

    ``timestamp`` is ``None`` if the clock has a fault, which is reported already. ``places`` names each image in
    findings: a file, or a file and a frame.
    """

    data: NDArray[np.uint8]
    offset: NDArray[np.int64]
    timestamp: NDArray[Any] | None
    places: Sequence[str]
    source: SourceFile
    clock_location: ClockLocation | None = None


@dataclass(frozen=True, kw_only=True)
class PixelFrames:
    """Decoded images in the order of their times: ``(N, height, width, 3)`` uint8, or one channel of depth.

    ``frames`` is one array, or yields N arrays ``(height, width, channels)`` one after the other, so that a long video
    never lies in memory as a whole. ``lossy_from`` names the coding that has lost something already: ``"h264"``, say.
    """

    frames: NDArray[Any] | Iterable[NDArray[Any]]
    timestamp: NDArray[Any] | None
    places: Sequence[str]
    source: SourceFile
    clock_location: ClockLocation | None = None
    lossy_from: str | None = None


def keep_encoded(
    encoded: EncodedImages,
    stream: ImageStream,
    findings: Findings,
    images: ImageOptions = AS_RECORDED,
    only_size: ImageSize | None = None,
    in_parts: bool = False,
) -> ImageRows | None:
    """Returns a camera's images with their bytes untouched, unless ``images`` asks for others; ``None`` after errors.

    Args:
        encoded: the files.
        stream: the schema's entry for the camera.
        findings: collects the faults; every faulty image is named.
        images: how images are to be stored.
        only_size: the only size that is accepted, because other episodes have it.
        in_parts: the images belong to several episodes. Faulty images are then told by ``ImageRows.faults``.
    """
    if stream.convert is not None:
        encoded, unread = _converted(encoded, stream, findings)
    else:
        unread = {}
    if stream.unit is not None and _needs_new_numbers(encoded, stream):
        return _depth_of_files(encoded, stream, findings, images, only_size, in_parts)
    places, folder = encoded.places, encoded.source.path
    decode: str = stream.decode
    if stream.on_bad == "refuse" and not (images.keeps("jpeg") or images.keeps("png")):
        # Images that are stored otherwise are decoded then; but parts must know before which ones are faulty.
        decode = "all" if in_parts else "none"
    checked = check_images(encoded.data, encoded.offset, decode, is_depth=stream.unit is not None)
    faults = {**checked.faults, **unread}
    good = [row for row in range(len(places)) if row not in faults]
    good_places = [places[row] for row in good]
    told_by_row = in_parts and stream.on_bad == "refuse" and bool(good)
    if not told_by_row:
        _report(faults, places, stream, folder, findings)
    size = _common_size(good_places, [checked.sizes[row] for row in good], findings)
    _describe_kinds(checked, good, places, folder, findings)
    if size is None or encoded.timestamp is None or (faults and stream.on_bad == "refuse" and not told_by_row):
        return None
    height, width = size
    if not _has_only_size(only_size, width, height, folder, findings):
        return None
    rows = ImageRows(
        timestamp=encoded.timestamp,
        data=encoded.data,
        offset=encoded.offset,
        height=height,
        width=width,
        source=encoded.source,
        clock_location=encoded.clock_location,
    )
    if faults:
        rows = _with_faults(rows, faults, places, good) if told_by_row else _only(rows, good)
    if images.keeps("jpeg") and images.keeps("png"):
        return rows
    # Imported here, because importing Pillow takes 15 ms and images stored as recorded do not need it.
    from vlapipe.pipeline.read.images.stored_images import store_files

    kept_places = places if told_by_row else good_places
    is_depth = stream.unit is not None
    return store_files(rows, kept_places, images, findings, stream.channels, is_depth=is_depth)


def _converted(
    encoded: EncodedImages, stream: ImageStream, findings: Findings
) -> tuple[EncodedImages, dict[int, Fault]]:
    """Returns the images with PNG files in place of other formats, and the images that cannot be converted.

    The images of a depth camera stay: their numbers are read as they are.
    """
    images = [encoded.data[start:stop].data for start, stop in pairwise(encoded.offset.tolist())]
    names = [None if stream.unit is not None else format_of(image) for image in images]
    if not any(names):
        return encoded, {}
    faults: dict[int, Fault] = {}
    parts = Pieces()
    num_converted = 0
    for row, (image, name) in enumerate(zip(images, names, strict=True)):
        if name is None:
            parts.append(bytes(image))
            continue
        try:
            parts.append(png_of(image))
            num_converted += 1
        except ValueError as error:
            parts.append(bytes(image))
            faults[row] = Fault("image.undecodable", f"a {name} that PNG holds without loss", str(error))
    if not num_converted:
        return encoded, faults
    findings.add("image.converted", encoded.source.path, found=f"{num_converted} of {len(parts)} images")
    data, offset = parts.joined()
    return replace(encoded, data=data, offset=offset), faults


def _needs_new_numbers(encoded: EncodedImages, stream: ImageStream) -> bool:
    """Returns whether the files of a depth camera are in another unit, or in another format that is to be converted."""
    if unit_factor(stream) != 1:
        return True
    spans = pairwise(encoded.offset.tolist())
    return stream.convert is not None and any(format_of(encoded.data[a:b].data) is not None for a, b in spans)


def _depth_of_files(
    encoded: EncodedImages,
    stream: ImageStream,
    findings: Findings,
    images: ImageOptions,
    only_size: ImageSize | None,
    in_parts: bool,
) -> ImageRows | None:
    """Returns depth that is stored in another unit or format than it was recorded: as PNG, unless pixels are wanted."""
    readable = True

    def frames() -> Iterator[NDArray[Any]]:
        nonlocal readable
        for row, (start, stop) in enumerate(pairwise(encoded.offset.tolist())):
            image = encoded.data[start:stop].data
            try:
                if stream.convert is not None and format_of(image) is not None:
                    yield pixels_of(image)
                else:
                    read_png_header(image)
                    yield decode_depth(image, lambda *size: np.empty(size, dtype=np.uint16))
            except ValueError as error:
                expected = "a whole PNG of one channel"
                findings.add("image.undecodable", encoded.places[row], expected=expected, found=str(error))
                readable = False
                return

    options = replace(images, storage="png") if images.storage == "recorded" else images
    pixels = PixelFrames(
        frames=frames(),
        timestamp=encoded.timestamp,
        places=encoded.places,
        source=encoded.source,
        clock_location=encoded.clock_location,
    )
    rows = keep_pixels(pixels, stream, findings, options, only_size, in_parts)
    return rows if readable else None


def keep_pixels(
    pixels: PixelFrames,
    stream: ImageStream,
    findings: Findings,
    images: ImageOptions = AS_RECORDED,
    only_size: ImageSize | None = None,
    in_parts: bool = False,
) -> ImageRows | None:
    """Returns a camera's decoded images as ``images`` asks for; ``None`` after errors. The arguments are as above."""
    del in_parts  # a fault of pixels is one of the whole camera
    if pixels.timestamp is None:
        return None
    from vlapipe.pipeline.read.images.stored_images import store_frames  # imports Pillow, which takes 15 ms

    folder, is_depth = pixels.source.path, stream.unit is not None
    source: Iterable[NDArray[Any]] = pixels.frames
    if is_depth:
        source = in_unit(source, pixels.places, stream, folder, findings)
    each = _Frames(source, pixels, stream, findings)
    first = each.first()
    if first is None or not _has_only_size(only_size, first.shape[1], first.shape[0], folder, findings):
        return None
    rows = ImageRows(
        timestamp=pixels.timestamp,
        data=np.empty(0, dtype=np.uint8),
        offset=np.zeros(1, dtype=np.int64),
        height=first.shape[0],
        width=first.shape[1],
        source=pixels.source,
        clock_location=pixels.clock_location,
    )
    stored = images.made_from("raw" if pixels.lossy_from is None else "jpeg", is_depth=is_depth)
    colour = "420" if pixels.lossy_from is not None else "444"  # nearly every video has colours at half the size
    try:
        made = store_frames(each, rows, images, stored, colour)
    except DepthFaultError:
        return None
    return made if each.is_good else None


class _Frames:
    """Checks frames one by one, and brings them to RGB. Iteration ends with the first faulty frame."""

    def __init__(
        self, frames: Iterable[NDArray[Any]], pixels: PixelFrames, stream: ImageStream, findings: Findings
    ) -> None:
        self._frames, self._pixels, self._stream, self._findings = iter(frames), pixels, stream, findings
        self._first: NDArray[Any] | None = None
        self.is_good = False

    def first(self) -> NDArray[Any] | None:
        """Returns the first frame, or ``None`` with a finding if there is none or it cannot be used."""
        try:
            frame = next(self._frames, None)
        except DepthFaultError:
            return None
        if frame is None:
            self._findings.add("image.none", self._pixels.source.path, expected="a frame or more", found="none")
            return None
        self._first = self._rgb(frame, 0)
        return self._first

    def __iter__(self) -> Iterator[NDArray[Any]]:
        assert self._first is not None
        assert self._pixels.timestamp is not None
        yield self._first
        row, num_rows = 1, len(self._pixels.timestamp)
        for frame in self._frames:
            rgb = self._rgb(frame, row)
            if rgb is None:
                return
            if rgb.shape != self._first.shape:
                expected, found = (f"{shape[1]}x{shape[0]}" for shape in (self._first.shape, rgb.shape))
                expected += " as before"
                self._findings.add("image.size_changes", self._place(row), expected=expected, found=found)
                return
            yield rgb
            row += 1
        if row != num_rows:
            expected = f"{num_rows} frames, one a stamp"
            self._findings.add("image.truncated", self._pixels.source.path, expected=expected, found=f"{row}")
            return
        self.is_good = True

    def _place(self, row: int) -> str:
        return self._pixels.places[min(row, len(self._pixels.places) - 1)]

    def _rgb(self, frame: NDArray[Any], row: int) -> NDArray[Any] | None:
        """Returns one frame ``(height, width, 3)``, or depth as it is; ``None`` with a finding if it is neither."""
        if self._stream.unit is not None:
            return frame
        frame = frame[..., None] if frame.ndim == 2 else frame
        if frame.ndim != 3 or frame.shape[2] not in (1, 3, 4) or frame.dtype != np.uint8:
            code = "image.no_unit" if frame.ndim == 3 and frame.shape[2] == 1 else "image.coding"
            expected = "uint8 pixels of 1, 3 or 4 channels"
            self._findings.add(code, self._place(row), expected=expected, found=f"{frame.dtype} {frame.shape}")
            return None
        if frame.shape[2] == 1:
            return np.repeat(frame, 3, axis=2)
        return frame[..., 2::-1] if self._stream.channels == "bgr" else frame[..., :3]


def _has_only_size(only: ImageSize | None, width: int, height: int, folder: str, findings: Findings) -> bool:
    if only is None or only == (width, height):
        return True
    expected = "{}x{}, as in most episodes".format(*only)
    findings.add("image.size_differs", folder, expected=expected, found=f"{width}x{height}")
    return False


def _report(
    faults: dict[int, Fault], places: Sequence[str], stream: ImageStream, folder: str, findings: Findings
) -> None:
    """Reports each faulty image: as an error, or as left out if the schema says so.

    A fault of the schema, not of an image, is the same in all images: it is reported once, and leaves nothing out.
    """
    is_dropped = stream.on_bad == "drop"
    for code in OF_SCHEMA:
        rows = [row for row, fault in faults.items() if fault.code == code]
        if rows:
            fault = faults[rows[0]]
            findings.add(code, places[rows[0]], expected=fault.expected, found=fault.found, count=len(rows))
    for row, fault in sorted(faults.items()):
        if fault.code in OF_SCHEMA:
            continue
        code = "image.dropped" if is_dropped else fault.code
        findings.add(code, places[row], expected=fault.expected, found=fault.found)
    if is_dropped and len(faults) == len(places):
        found = f"{len(places)} that cannot"
        findings.add("image.none", folder, expected="an image that can be decoded", found=found)


def _only(rows: ImageRows, which: list[int]) -> ImageRows:
    """Returns the images at the given rows. The others are left out."""
    data, offset = _bytes_of(rows, which)
    place = rows.clock_location
    if place is not None:
        line_of = place.line_of
        place = replace(place, line_of=lambda row: line_of(which[row]))
    num_dropped = rows.num_rows - len(which)
    timestamp = rows.timestamp[which]
    return replace(rows, timestamp=timestamp, data=data, offset=offset, clock_location=place, num_dropped=num_dropped)


def _with_faults(rows: ImageRows, faults: dict[int, Fault], places: Sequence[str], good: list[int]) -> ImageRows:
    """Returns all images, with the first good one in place of each faulty one, so that all can be stored otherwise.

    The episode that holds a faulty image is refused, so nobody sees what stands in its place.
    """
    data, offset = _bytes_of(rows, [good[0] if row in faults else row for row in range(len(places))])
    told = tuple(
        RowFaults(
            code=fault.code,
            file=places[row],
            column=None,
            expected=fault.expected,
            rows=np.array([row]),
            lines=None,
            found=(fault.found,),
        )
        for row, fault in faults.items()
    )
    return replace(rows, data=data, offset=offset, faults=told)


def _bytes_of(rows: ImageRows, which: list[int]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Returns the data and offsets of the images at the given rows, end to end."""
    parts = [rows.encoded(row) for row in which]
    offset = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return np.concatenate(parts, out=empty_images((int(offset[-1]),), np.uint8)), offset


def _common_size(places: list[str], sizes: list[tuple[int, int]], findings: Findings) -> tuple[int, int] | None:
    """Returns (height, width) of the first image, or ``None`` if another image differs, which is reported."""
    if not sizes:
        return None
    first = sizes[0]
    others = [i for i, size in enumerate(sizes) if size != first]
    if not others:
        return first
    expected, found = (f"{width}x{height}" for height, width in (first, sizes[others[0]]))
    expected += " as before"
    findings.add("image.size_changes", places[others[0]], expected=expected, found=found, count=len(others))
    return None


def _describe_kinds(checked: Checked, good: list[int], places: Sequence[str], folder: str, findings: Findings) -> None:
    """Adds one finding per camera for each unusual property of its images that does not prevent training."""
    for code, rows in checked.kinds.items():
        ours = [row for row in rows if row in checked.sizes]
        if ours:
            first = places[ours[0]].rpartition("/")[2]
            findings.add(code, folder, found=f"{len(ours)} of {len(good)} images, the first {first}")

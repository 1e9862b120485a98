"""Keeps the images of one camera: encoded files byte for byte, pixels as asked for. Every faulty image is named.

Readers of files, arrays, videos and bags all end here, so a camera obeys the same checks whatever holds its images. An
image that cannot be used is refused with its whole episode, or left out, as the schema says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.images.damage import decode_fault, has_odd_bytes, small_among_neighbours
from vlapipe.pipeline.read.images.image_options import AS_RECORDED, ImageOptions, ImageSize
from vlapipe.pipeline.read.images.jpeg import MAX_PIXELS, JpegHeader, read_jpeg_header
from vlapipe.pipeline.read.images.png import PNG_SIGNATURE, PngHeader, read_png_header
from vlapipe.pipeline.stream_rows import ClockLocation, ImageRows, RowFaults, SourceFile
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream

__all__ = ["EncodedImages", "PixelFrames", "keep_encoded", "keep_pixels"]

_Header = JpegHeader | PngHeader


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


@dataclass(frozen=True)
class _Fault:
    """Why an image cannot be used: the code, what was expected, and what was found."""

    code: str
    expected: str
    found: str


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
    places, folder = encoded.places, encoded.source.path
    decode: str = stream.decode
    if not images.as_recorded and stream.on_bad == "refuse":
        # Images that are stored otherwise are decoded then; but parts must know before which ones are faulty.
        decode = "all" if in_parts else "none"
    read = _check_all(encoded, decode)
    faults = {row: found for row, found in enumerate(read) if isinstance(found, _Fault)}
    good = [row for row in range(len(places)) if row not in faults]
    good_places = [places[row] for row in good]
    headers = [found for found in read if not isinstance(found, _Fault)]
    told_by_row = in_parts and stream.on_bad == "refuse" and bool(good)
    if not told_by_row:
        _report(faults, places, stream, folder, findings)
    size = _common_size(good_places, headers, findings)
    _describe_kinds(good_places, headers, folder, findings)
    if size is None or encoded.timestamp is None or (faults and stream.on_bad == "refuse" and not told_by_row):
        return None
    if not _has_only_size(only_size, size.width, size.height, folder, findings):
        return None
    rows = ImageRows(
        timestamp=encoded.timestamp,
        data=encoded.data,
        offset=encoded.offset,
        height=size.height,
        width=size.width,
        source=encoded.source,
        clock_location=encoded.clock_location,
    )
    if faults:
        rows = _with_faults(rows, faults, places, good) if told_by_row else _only(rows, good)
    if images.as_recorded:
        return rows
    # Imported here, because importing Pillow takes 15 ms and images stored as recorded do not need it.
    from vlapipe.pipeline.read.images.stored_images import store_images

    return store_images(rows, [*places] if told_by_row else good_places, images, findings, stream.channels)


def keep_pixels(
    pixels: PixelFrames,
    stream: ImageStream,
    findings: Findings,
    images: ImageOptions = AS_RECORDED,  # noqa: ARG001
    only_size: ImageSize | None = None,
    in_parts: bool = False,  # noqa: ARG001
) -> ImageRows | None:
    """Returns a camera's decoded images as ``images`` asks for; ``None`` after errors. The arguments are as above."""
    if pixels.timestamp is None:
        return None
    kept: NDArray[Any] | None = None
    for row, frame in enumerate(_each_frame(pixels.frames)):
        if kept is None:
            kept = np.empty((len(pixels.timestamp), *frame.shape), dtype=frame.dtype)
        if frame.shape != kept.shape[1:]:
            expected, found = (f"{shape[1]}x{shape[0]}" for shape in (kept.shape[1:], frame.shape))
            findings.add("image.size_changes", pixels.places[row], expected=f"{expected} as before", found=found)
            return None
        kept[row] = frame[..., ::-1] if stream.channels == "bgr" else frame
    if kept is None:
        findings.add("image.none", pixels.source.path, expected="a frame or more", found="none")
        return None
    if not _has_only_size(only_size, kept.shape[2], kept.shape[1], pixels.source.path, findings):
        return None
    return ImageRows(
        timestamp=pixels.timestamp,
        data=kept,
        offset=None,
        height=kept.shape[1],
        width=kept.shape[2],
        source=pixels.source,
        clock_location=pixels.clock_location,
    )


def _each_frame(frames: NDArray[Any] | Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    yield from frames


def _has_only_size(only: ImageSize | None, width: int, height: int, folder: str, findings: Findings) -> bool:
    if only is None or only == (width, height):
        return True
    expected = "{}x{}, as in most episodes".format(*only)
    findings.add("image.size_differs", folder, expected=expected, found=f"{width}x{height}")
    return False


def _report(
    faults: dict[int, _Fault], places: Sequence[str], stream: ImageStream, folder: str, findings: Findings
) -> None:
    """Reports each faulty image: as an error, or as left out if the schema says so."""
    is_dropped = stream.on_bad == "drop"
    for row, fault in faults.items():
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


def _with_faults(rows: ImageRows, faults: dict[int, _Fault], places: Sequence[str], good: list[int]) -> ImageRows:
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
    return np.concatenate(parts), np.cumsum([0, *map(len, parts)], dtype=np.int64)


def _check_all(encoded: EncodedImages, decode: str) -> list[_Header | _Fault]:
    """Returns what each image is. ``decode`` says which are decoded to find damage: "all", "suspects" or "none"."""
    read: list[_Header | _Fault] = []
    start = 0
    small = small_among_neighbours(np.diff(encoded.offset)).tolist()
    for end, is_small in zip(encoded.offset[1:].tolist(), small, strict=True):
        image = encoded.data[start:end].data
        found = _check_image(image)
        if isinstance(found, JpegHeader) and decode != "none" and _is_suspect(image, found, decode, is_small):
            complaint = decode_fault(image)
            if complaint is not None:
                found = _Fault("image.undecodable", "a JPEG that can be decoded", complaint)
        read.append(found)
        start = end
    return read


def _is_suspect(image: memoryview, header: JpegHeader, decode: str, is_small: bool) -> bool:
    return decode == "all" or is_small or has_odd_bytes(image, is_progressive=header.is_progressive)


def _check_image(image: memoryview) -> _Header | _Fault:
    """Returns the header of one image if it is whole and of a kind that training decodes."""
    if not len(image):
        return _Fault("image.empty", "an image", "0 bytes")
    header: _Header
    is_png = bytes(image[:8]) == PNG_SIGNATURE
    try:
        header = read_png_header(image) if is_png else read_jpeg_header(image)
    except ValueError as error:
        if str(error) == "not a JPEG":
            return _Fault("image.not_jpeg", "a whole JPEG or PNG", f"bytes {bytes(image[:4])!r}")
        return _Fault("image.truncated", f"a whole {'PNG' if is_png else 'JPEG'}", str(error))
    if header.height * header.width > MAX_PIXELS:
        size = f"{header.width}x{header.height}"
        return _Fault("image.too_large", f"at most {MAX_PIXELS // 1_000_000} megapixels", size)
    if header.odd_coding is not None:
        expected = "8 bits a sample, or 16 in gray" if is_png else "an 8-bit baseline or progressive JPEG"
        return _Fault("image.coding", expected, header.odd_coding)
    return header


def _common_size(places: list[str], headers: list[_Header], findings: Findings) -> _Header | None:
    """Returns the header of the first image, or ``None`` if another image differs in size, which is reported."""
    if not headers:
        return None
    first = headers[0]
    others = [i for i, header in enumerate(headers) if header[:2] != first[:2]]
    if not others:
        return first
    other = headers[others[0]]
    expected = f"{first.width}x{first.height} as before"
    found = f"{other.width}x{other.height}"
    findings.add("image.size_changes", places[others[0]], expected=expected, found=found, count=len(others))
    return None


def _describe_kinds(places: list[str], headers: list[_Header], folder: str, findings: Findings) -> None:
    """Adds one finding per camera for each unusual property of its images that does not prevent training."""
    kinds: dict[str, list[str]] = {"image.gray": [], "image.progressive": [], "image.rotated": []}
    for place, header in zip(places, headers, strict=True):
        if isinstance(header, PngHeader):
            if header.is_gray and not header.is_deep:
                kinds["image.gray"].append(place)
            continue
        if header.num_components == 1:
            kinds["image.gray"].append(place)
        if header.is_progressive:
            kinds["image.progressive"].append(place)
        if header.orientation != 1:
            kinds["image.rotated"].append(place)
    for code, ours in kinds.items():
        if ours:
            first = ours[0].rpartition("/")[2]
            findings.add(code, folder, found=f"{len(ours)} of {len(places)} images, the first {first}")

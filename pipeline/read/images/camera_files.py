"""Reads one camera's JPEG files in the order of their stamps. Bytes are kept unless other images are asked for.

An image that cannot be used is refused with its whole episode, or left out, as the schema says.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.clock_file import ClockFile
from vlapipe.pipeline.read.images.damage import decode_fault, has_odd_bytes, small_among_neighbours
from vlapipe.pipeline.read.images.image_options import AS_RECORDED, ImageOptions, ImageSize
from vlapipe.pipeline.read.images.image_stamps import stamp_images
from vlapipe.pipeline.read.images.jpeg import MAX_PIXELS, JpegHeader, read_jpeg_header
from vlapipe.pipeline.stream_rows import ImageRows, RowFaults, SourceFile
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["read_images"]

_HASHED_AT_ONCE = 4 << 20  # bytes per call of the hashing thread: few calls, and still in the CPU's cache


@dataclass(frozen=True)
class _Fault:
    """Why an image cannot be used: the code, what was expected, and what was found."""

    code: str
    expected: str
    found: str


def read_images(
    root: Path,
    files: list[str],
    stream: ImageStream,
    findings: Findings,
    clock: ClockFile | None = None,
    *,
    images: ImageOptions = AS_RECORDED,
    only_size: ImageSize | None = None,
    in_parts: bool = False,
) -> ImageRows | None:
    """Reads a camera's images. Returns ``None`` if errors were found.

    Args:
        root: the dataset's folder.
        files: the images' paths, relative to ``root``.
        stream: the schema's entry for the camera.
        findings: collects the faults; every faulty image is named.
        clock: the images' times, if they have a file of their own.
        images: how images are to be stored.
        only_size: the only size that is accepted, because other episodes have it.
        in_parts: the images belong to several episodes. Faulty images are then told by ``ImageRows.faults``.
    """
    folder = str(PurePosixPath(files[0]).parent)
    ordered, timestamp = stamp_images(files, folder, stream.time, clock, findings)
    decode: str = stream.decode
    if not images.as_recorded and stream.on_bad == "refuse":
        # Images that are stored otherwise are decoded then; but parts must know before which ones are faulty.
        decode = "all" if in_parts else "none"
    try:
        # Strings and plain system calls, because making a Path costs as much as reading the image.
        sizes = [os.stat(f"{root}/{file}").st_size for file in ordered]  # noqa: PTH116
        offset = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        data = np.empty(int(offset[-1]), dtype=np.uint8)
        read, sha256 = _read_all(root, ordered, data, offset, decode)
    except OSError as error:
        raise_if_stopped(error, root / folder)
        findings.add("file.unreadable", folder, found=str(error))
        return None
    faults = {row: found for row, found in enumerate(read) if isinstance(found, _Fault)}
    good = [row for row in range(len(ordered)) if row not in faults]
    good_files = [ordered[row] for row in good]
    headers = [found for found in read if not isinstance(found, _Fault)]
    told_by_row = in_parts and stream.on_bad == "refuse" and bool(good)
    if not told_by_row:
        _report(faults, ordered, stream, folder, findings)
    size = _common_size(good_files, headers, findings)
    _describe_kinds(good_files, headers, folder, findings)
    if size is None or timestamp is None or (faults and stream.on_bad == "refuse" and not told_by_row):
        return None
    if only_size not in (None, (size.width, size.height)):
        expected = "{}x{}, as in most episodes".format(*only_size)
        findings.add("image.size_differs", folder, expected=expected, found=f"{size.width}x{size.height}")
        return None
    rows = ImageRows(
        timestamp=timestamp,
        data=data,
        offset=offset,
        height=size.height,
        width=size.width,
        source=SourceFile(path=folder, num_files=len(files), num_bytes=data.nbytes, sha256=sha256),
        clock_location=clock.place if clock is not None and clock.names is None else None,
    )
    if faults:
        rows = _with_faults(rows, faults, ordered, good) if told_by_row else _only(rows, good)
    if images.as_recorded:
        return rows
    # Imported here, because importing Pillow takes 15 ms and images stored as recorded do not need it.
    from vlapipe.pipeline.read.images.stored_images import store_images

    return store_images(rows, ordered if told_by_row else good_files, images, findings, stream.channels)


def _report(faults: dict[int, _Fault], files: list[str], stream: ImageStream, folder: str, findings: Findings) -> None:
    """Reports each faulty image: as an error, or as left out if the schema says so."""
    is_dropped = stream.on_bad == "drop"
    for row, fault in faults.items():
        code = "image.dropped" if is_dropped else fault.code
        findings.add(code, files[row], expected=fault.expected, found=fault.found)
    if is_dropped and len(faults) == len(files):
        findings.add("image.none", folder, expected="an image that can be decoded", found=f"{len(files)} that cannot")


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


def _with_faults(rows: ImageRows, faults: dict[int, _Fault], files: list[str], good: list[int]) -> ImageRows:
    """Returns all images, with the first good one in place of each faulty one, so that all can be stored otherwise.

    The episode that holds a faulty image is refused, so nobody sees what stands in its place.
    """
    data, offset = _bytes_of(rows, [good[0] if row in faults else row for row in range(len(files))])
    told = tuple(
        RowFaults(
            code=fault.code,
            file=files[row],
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
    parts = [rows.jpeg(row) for row in which]
    return np.concatenate(parts), np.cumsum([0, *map(len, parts)], dtype=np.int64)


def _read_all(
    root: Path, files: list[str], data: NDArray[np.uint8], offset: NDArray[np.int64], decode: str
) -> tuple[list[JpegHeader | _Fault], str]:
    """Fills ``data`` file by file. Returns what each file is, and the SHA-256, which another thread computes meanwhile.

    ``decode`` says which images are decoded to find damage: ``"all"``, ``"suspects"`` or ``"none"``.
    """
    read: list[JpegHeader | _Fault] = []
    ends: list[int] = offset[1:].tolist()
    small = small_among_neighbours(np.diff(offset)).tolist()
    sha256, start, hashed = hashlib.sha256(), 0, 0
    waiting: list[Future[None]] = []
    with ThreadPoolExecutor(1) as hashing:
        for file, end, is_small in zip(files, ends, small, strict=True):
            image = data[start:end]
            found = _read_image(root, file, image)
            if isinstance(found, JpegHeader) and decode != "none":
                is_progressive = found.is_progressive
                if decode == "all" or is_small or has_odd_bytes(image.data, is_progressive=is_progressive):
                    complaint = decode_fault(image.data)
                    if complaint is not None:
                        found = _Fault("image.undecodable", "a JPEG that can be decoded", complaint)
            read.append(found)
            start = end
            if end - hashed >= _HASHED_AT_ONCE or end == ends[-1]:
                waiting.append(hashing.submit(sha256.update, data.data[hashed:end]))
                hashed = end
    for future in waiting:
        future.result()
    return read, sha256.hexdigest()


def _read_image(root: Path, file: str, into: NDArray[np.uint8]) -> JpegHeader | _Fault:
    """Fills ``into`` with one file. Returns its header if it is a whole JPEG of a kind that decoders read."""
    if not into.size:
        return _Fault("image.empty", "a JPEG", "0 bytes")
    camera = into.data
    handle = os.open(f"{root}/{file}", os.O_RDONLY)
    try:
        num_read = os.readv(handle, [camera])
        while num_read < len(camera) and (more := os.readv(handle, [camera[num_read:]])):
            num_read += more
    finally:
        os.close(handle)
    if num_read != len(camera):
        return _Fault("image.truncated", "", "the file shrank while it was read")
    try:
        header = read_jpeg_header(camera)
    except ValueError as error:
        if str(error) == "not a JPEG":
            return _Fault("image.not_jpeg", "a whole JPEG", f"bytes {bytes(camera[:4])!r}")
        return _Fault("image.truncated", "a whole JPEG", str(error))
    if header.height * header.width > MAX_PIXELS:
        size = f"{header.width}x{header.height}"
        return _Fault("image.too_large", f"at most {MAX_PIXELS // 1_000_000} megapixels", size)
    if header.odd_coding is not None:
        return _Fault("image.coding", "an 8-bit baseline or progressive JPEG", header.odd_coding)
    return header


def _common_size(files: list[str], headers: list[JpegHeader], findings: Findings) -> JpegHeader | None:
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
    findings.add("image.size_changes", files[others[0]], expected=expected, found=found, count=len(others))
    return None


def _describe_kinds(files: list[str], headers: list[JpegHeader], folder: str, findings: Findings) -> None:
    """Adds one finding per camera for each unusual property of its images that does not prevent training."""
    whole = list(zip(files, headers, strict=True))
    kinds = {
        "image.gray": [file for file, header in whole if header.num_components == 1],
        "image.progressive": [file for file, header in whole if header.is_progressive],
        "image.rotated": [file for file, header in whole if header.orientation != 1],
    }
    for code, ours in kinds.items():
        if ours:
            first = ours[0].rpartition("/")[2]
            findings.add(code, folder, found=f"{len(ours)} of {len(files)} images, the first {first}")

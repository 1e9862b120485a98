"""Reads one camera's JPEG files in the order of their stamps. Bytes are kept unless other images are asked for."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.clock_file import ClockFile
from vlapipe.pipeline.read.images.image_options import AS_RECORDED, ImageOptions, ImageSize
from vlapipe.pipeline.read.images.image_stamps import stamp_images
from vlapipe.pipeline.read.images.jpeg import MAX_PIXELS, JpegHeader, read_jpeg_header
from vlapipe.pipeline.stream_rows import ImageRows, SourceFile
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["read_images"]

_HASHED_AT_ONCE = 4 << 20  # bytes per call of the hashing thread: few calls, and still in the CPU's cache


def read_images(
    root: Path,
    files: list[str],
    stream: ImageStream,
    findings: Findings,
    clock: ClockFile | None = None,
    *,
    images: ImageOptions = AS_RECORDED,
    only_size: ImageSize | None = None,
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
    """
    folder = str(PurePosixPath(files[0]).parent)
    ordered, timestamp = stamp_images(files, folder, stream.time, clock, findings)
    try:
        # Strings and plain system calls, because making a Path costs as much as reading the image.
        sizes = [os.stat(f"{root}/{file}").st_size for file in ordered]  # noqa: PTH116
        offset = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        data = np.empty(int(offset[-1]), dtype=np.uint8)
        headers, sha256 = _read_all(root, ordered, data, offset, findings)
    except OSError as error:
        raise_if_stopped(error, root / folder)
        findings.add("file.unreadable", folder, found=str(error))
        return None
    size = _common_size(ordered, headers, findings)
    _describe_kinds(ordered, headers, folder, findings)
    if size is None or timestamp is None or any(header is None for header in headers):
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
    if images.as_recorded:
        return rows
    # Imported here, because importing Pillow takes 15 ms and images stored as recorded do not need it.
    from vlapipe.pipeline.read.images.stored_images import store_images

    return store_images(rows, ordered, images, findings)


def _read_all(
    root: Path, files: list[str], data: NDArray[np.uint8], offset: NDArray[np.int64], findings: Findings
) -> tuple[list[JpegHeader | None], str]:
    """Fills ``data`` file by file. Returns the headers and the SHA-256, which another thread computes meanwhile."""
    headers: list[JpegHeader | None] = []
    ends: list[int] = offset[1:].tolist()
    sha256, start, hashed = hashlib.sha256(), 0, 0
    waiting: list[Future[None]] = []
    with ThreadPoolExecutor(1) as hashing:
        for file, end in zip(files, ends, strict=True):
            headers.append(_read_image(root, file, data[start:end], findings))
            start = end
            if end - hashed >= _HASHED_AT_ONCE or end == ends[-1]:
                waiting.append(hashing.submit(sha256.update, data.data[hashed:end]))
                hashed = end
    for future in waiting:
        future.result()
    return headers, sha256.hexdigest()


def _read_image(root: Path, file: str, into: NDArray[np.uint8], findings: Findings) -> JpegHeader | None:
    if not into.size:
        findings.add("image.empty", file, expected="a JPEG", found="0 bytes")
        return None
    camera = into.data
    handle = os.open(f"{root}/{file}", os.O_RDONLY)
    try:
        num_read = os.readv(handle, [camera])
        while num_read < len(camera) and (more := os.readv(handle, [camera[num_read:]])):
            num_read += more
    finally:
        os.close(handle)
    if num_read != len(camera):
        findings.add("image.truncated", file, found="the file shrank while it was read")
        return None
    try:
        header = read_jpeg_header(camera)
    except ValueError as error:
        code = "image.not_jpeg" if str(error) == "not a JPEG" else "image.truncated"
        found = f"bytes {bytes(camera[:4])!r}" if code == "image.not_jpeg" else str(error)
        findings.add(code, file, expected="a whole JPEG", found=found)
        return None
    if header.height * header.width > MAX_PIXELS:
        size = f"{header.width}x{header.height}"
        findings.add("image.too_large", file, expected=f"at most {MAX_PIXELS // 1_000_000} megapixels", found=size)
        return None
    if header.odd_coding is not None:
        findings.add("image.coding", file, expected="an 8-bit baseline or progressive JPEG", found=header.odd_coding)
        return None
    return header


def _common_size(files: list[str], headers: list[JpegHeader | None], findings: Findings) -> JpegHeader | None:
    """Returns the header of the first whole image, or ``None`` if another image differs in size, which is reported."""
    first = next((header for header in headers if header is not None), None)
    if first is None:
        return None
    size = first[:2]
    others = [i for i, header in enumerate(headers) if header is not None and header[:2] != size]
    if not others:
        return first
    other = headers[others[0]]
    assert other is not None
    expected = f"{first.width}x{first.height} as before"
    found = f"{other.width}x{other.height}"
    findings.add("image.size_changes", files[others[0]], expected=expected, found=found, count=len(others))
    return None


def _describe_kinds(files: list[str], headers: list[JpegHeader | None], folder: str, findings: Findings) -> None:
    """Adds one finding per camera for each unusual property of its images that does not prevent training."""
    whole = [(file, header) for file, header in zip(files, headers, strict=True) if header is not None]
    kinds = {
        "image.gray": [file for file, header in whole if header.num_components == 1],
        "image.progressive": [file for file, header in whole if header.is_progressive],
        "image.rotated": [file for file, header in whole if header.orientation != 1],
    }
    for code, ours in kinds.items():
        if ours:
            first = ours[0].rpartition("/")[2]
            findings.add(code, folder, found=f"{len(ours)} of {len(files)} images, the first {first}")

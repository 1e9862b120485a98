"""Reads the files of one camera in the order of their stamps; ``keep`` checks and keeps them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.discover.proportion import MOST_FREE
from vlapipe.pipeline.long_images import empty_images
from vlapipe.pipeline.read.clock_file import ClockFile
from vlapipe.pipeline.read.images.image_options import AS_RECORDED, ImageOptions, ImageSize
from vlapipe.pipeline.read.images.image_stamps import stamp_images
from vlapipe.pipeline.read.images.keep import EncodedImages, keep_encoded
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
    with ThreadPoolExecutor(1) as hashing:
        try:
            # Strings and plain system calls, because making a Path costs as much as reading the image.
            sizes = [os.stat(f"{root}/{file}").st_size for file in ordered]  # noqa: PTH116
            if max(sizes, default=0) > MOST_FREE:
                file, size = next(each for each in zip(ordered, sizes, strict=True) if each[1] > MOST_FREE)
                findings.add(
                    "file.too_large", file, expected=f"an image of at most {MOST_FREE:,} bytes", found=f"{size:,}"
                )
                return None
            offset = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
            data = empty_images((int(offset[-1]),), np.uint8)
            sha256 = hashlib.sha256()
            waiting = [hashing.submit(sha256.update, part) for part in _read_all(root, ordered, data, offset)]
        except OSError as error:
            raise_if_stopped(error, root / folder)
            findings.add("file.unreadable", folder, found=str(error))
            return None
        encoded = EncodedImages(
            data=data,
            offset=offset,
            timestamp=timestamp,
            places=ordered,
            source=SourceFile(path=folder, num_files=len(files), num_bytes=data.nbytes, sha256=""),
            clock_location=clock.place if clock is not None and clock.names is None else None,
        )
        rows = keep_encoded(encoded, stream, findings, images, only_size, in_parts)  # while the last bytes are hashed
    for future in waiting:
        future.result()
    return None if rows is None else replace(rows, source=replace(rows.source, sha256=sha256.hexdigest()))


def _read_all(root: Path, files: list[str], data: NDArray[np.uint8], offset: NDArray[np.int64]) -> Iterator[memoryview]:
    """Fills ``data`` file by file, and yields its parts that are filled."""
    start, yielded = 0, 0
    ends: list[int] = offset[1:].tolist()
    for file, end in zip(files, ends, strict=True):
        _read_file(f"{root}/{file}", data[start:end].data)
        start = end
        if end - yielded >= _HASHED_AT_ONCE or end == ends[-1]:
            yield data.data[yielded:end]
            yielded = end


def _read_file(path: str, into: memoryview) -> None:
    """Fills ``into`` with one file. If the file has shrunk meanwhile, the rest is zeros, which no image ends with."""
    if not len(into):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        num_read = os.readv(handle, [into])
        while num_read < len(into) and (more := os.readv(handle, [into[num_read:]])):
            num_read += more
    finally:
        os.close(handle)
    into[num_read:] = bytes(len(into) - num_read)

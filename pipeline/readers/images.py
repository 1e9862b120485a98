"""Reads one camera's JPEG files, in the order of their stamps; their bytes pass through untouched."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.readers.arrays import ImageRows, SourceFile
from vlapipe.pipeline.readers.clock import check_clock, parse_stamp
from vlapipe.pipeline.readers.jpeg import JpegHeader, read_jpeg_header
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream, TimeSpec

__all__ = ["read_images"]

_DECIMAL = re.compile(r"\d+(\.\d+)?\Z")


def read_images(root: Path, files: list[str], stream: ImageStream, findings: Findings) -> ImageRows | None:
    """Read a camera's images; ``None`` where errors were found.

    Args:
        root: the dataset's folder.
        files: the images' paths below it.
        stream: what the schema says of the camera.
        findings: takes what is wrong; every faulty image is named.
    """
    stamped = _sort_by_stamp(files, stream.time, findings)
    folder = str(PurePosixPath(files[0]).parent)
    try:
        sizes = [(root / file).stat().st_size for file, _ in stamped]
        offset = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        data = np.empty(int(offset[-1]), dtype=np.uint8)
        headers = [
            _read_image(root, file, data[offset[i] : offset[i + 1]], findings) for i, (file, _) in enumerate(stamped)
        ]
    except OSError as error:
        findings.add("file.unreadable", folder, found=str(error))
        return None
    size = _common_size(stamped, headers, findings)
    timestamp = np.array([stamp for _, stamp in stamped], dtype=stream.time.dtype)
    check_clock(timestamp, findings, file=folder, column=None, line_of=lambda _row: None, rate_hz=stream.rate_hz)
    if size is None or len(stamped) < len(files) or any(header is None for header in headers):
        return None
    source = SourceFile(
        path=folder, num_files=len(files), num_bytes=data.nbytes, sha256=hashlib.sha256(data.data).hexdigest()
    )
    return ImageRows(timestamp=timestamp, data=data, offset=offset, height=size.height, width=size.width, source=source)


def _sort_by_stamp(files: list[str], time: TimeSpec, findings: Findings) -> list[tuple[str, int | float]]:
    stamped: list[tuple[str, int | float]] = []
    for file in files:
        path = PurePosixPath(file)
        try:
            if not time.format and not _DECIMAL.match(path.stem):
                raise ValueError(path.stem)
            stamped.append((file, parse_stamp(path.name if time.format else path.stem, time)))
        except ValueError:
            wanted = f"a name like {time.format!r}" if time.format else f"a time in {time.unit} as the name"
            findings.add("image.bad_name", file, expected=wanted, found=path.name)
    return sorted(stamped, key=lambda pair: (pair[1], pair[0]))


def _read_image(root: Path, file: str, into: NDArray[np.uint8], findings: Findings) -> JpegHeader | None:
    if not into.size:
        findings.add("image.empty", file, expected="a JPEG", found="0 bytes")
        return None
    view = into.data
    with (root / file).open("rb") as handle:
        if handle.readinto(view) != len(view):
            findings.add("image.truncated", file, found="the file shrank while it was read")
            return None
    try:
        return read_jpeg_header(view)
    except ValueError as error:
        code = "image.not_jpeg" if str(error) == "not a JPEG" else "image.truncated"
        found = f"bytes {bytes(view[:4])!r}" if code == "image.not_jpeg" else str(error)
        findings.add(code, file, expected="a whole JPEG", found=found)
        return None


def _common_size(
    stamped: list[tuple[str, int | float]], headers: list[JpegHeader | None], findings: Findings
) -> JpegHeader | None:
    first: JpegHeader | None = None
    for (file, _), header in zip(stamped, headers, strict=True):
        if header is None:
            continue
        first = first or header
        if (header.height, header.width) != (first.height, first.width):
            expected = f"{first.width}x{first.height} as before"
            findings.add("image.size_changes", file, expected=expected, found=f"{header.width}x{header.height}")
            return None
    return first

"""JPEG and PNG files in the rows of an array: padded with zeros as ALOHA keeps them, or of their own length each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.long_images import Pieces
from vlapipe.pipeline.read.containers.arrays import ArrayFiles
from vlapipe.schemas.findings import Findings

__all__ = ["packed_images"]

_LENGTHS = "/compress_len"  # ALOHA's: (cameras, rows), in an order that is written nowhere


def packed_images(
    opened: ArrayFiles, blocks: Iterable[NDArray[Any]], label: str, name: str, findings: Findings
) -> tuple[NDArray[np.uint8], NDArray[np.int64]] | None:
    """Returns the files end to end, with their offsets; ``None`` with a finding if the rows hold something else.

    ``blocks`` are the rows, some at a time. A JPEG file ends with ``ff d9`` and a PNG file with ``60 82``, so zeros at
    the end of a row are padding.
    """
    files, is_padded = Pieces(), False
    for rows in blocks:
        is_padded = rows.dtype == np.uint8
        for row in rows:
            file = _bytes_of(row)
            if file is None:
                expected, found = "JPEG or PNG files", f"{type(row).__name__} in row {len(files)}"
                findings.add("image.layout", label, column=name, expected=expected, found=found)
                return None
            files.append(file)
    data, offset = files.joined()
    if is_padded:
        _compare_lengths(opened, np.diff(offset), label, name, findings)
    return data, offset


def _bytes_of(row: Any) -> bytes | None:
    if isinstance(row, np.ndarray):
        return row.tobytes().rstrip(b"\0") if row.dtype == np.uint8 and row.ndim == 1 else None
    if isinstance(row, np.void):
        return row.tobytes().rstrip(b"\0")
    return bytes(row).rstrip(b"\0") if isinstance(row, bytes) else None


def _compare_lengths(opened: ArrayFiles, lengths: NDArray[np.int64], label: str, name: str, findings: Findings) -> None:
    """Reports files that are shorter than the lengths that the recorder wrote down beside them."""
    stated_name = next((each for each in (_LENGTHS, _LENGTHS[1:]) if each in opened.arrays), None)
    stated = None if stated_name is None else opened.load(stated_name, findings)
    if stated is None or stated.ndim != 2 or stated.shape[1] != len(lengths):
        return
    differing = (stated != lengths).sum(axis=1)
    nearest = int(np.argmin(differing))
    if differing[nearest]:
        row = int(np.argmax(stated[nearest] != lengths))
        expected = f"{int(stated[nearest, row])} bytes in row {row}, as {stated_name} says"
        count = int(differing[nearest])
        found = f"{int(lengths[row])}"
        findings.add("image.truncated", label, column=name, expected=expected, found=found, count=count)

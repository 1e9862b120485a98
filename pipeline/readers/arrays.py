"""What a reader hands on: one stream's clock and fields as arrays of equal length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ImageRows", "SourceFile", "StreamRows"]


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A raw file (or one camera's folder of images) that was read: path relative to the dataset, size and digest."""

    path: str
    num_files: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class StreamRows:
    """One stream of one episode.

    ``timestamp`` is ``(rows,)``, int64 nanoseconds or float64 seconds; each field is ``(rows, ...)``. Fields read from
    CSV lie column by column in memory (Fortran order), as they are stored.
    """

    timestamp: NDArray[Any]
    fields: dict[str, NDArray[Any]] = field(default_factory=dict)
    source: SourceFile

    @property
    def num_rows(self) -> int:
        """Length of the clock."""
        return len(self.timestamp)


@dataclass(frozen=True, kw_only=True)
class ImageRows:
    """One camera of one episode: JPEG files end to end, row ``i`` in ``data[offset[i]:offset[i + 1]]``."""

    timestamp: NDArray[Any]
    data: NDArray[np.uint8]
    offset: NDArray[np.int64]
    height: int
    width: int
    source: SourceFile

    @property
    def num_rows(self) -> int:
        """Number of images."""
        return len(self.timestamp)

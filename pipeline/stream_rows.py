"""The output of a reader: one stream's clock and fields as arrays of equal length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.long_images import picked
from vlapipe.schemas.findings import Findings

__all__ = ["ClockLocation", "ImageRows", "RowFaults", "Rows", "SourceFile", "StreamRows"]

_FIRST_OF_PNG = 0x89  # a JPEG begins with 0xFF


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A raw file, or one camera's folder of images, that was read: path relative to the dataset, size and SHA-256."""

    path: str
    num_files: int
    num_bytes: int
    sha256: str


def _no_line(_row: int) -> int | None:
    return None


@dataclass(frozen=True, kw_only=True)
class ClockLocation:
    """The location of a clock that has a file of its own. ``line_of(row)`` returns the line of the row's stamp."""

    file: str
    column: str | None = None
    line_of: Callable[[int], int | None] = _no_line

    def from_row(self, start: int) -> ClockLocation:
        """Returns the location for rows that are counted from ``start``."""
        line_of = self.line_of
        return replace(self, line_of=lambda row: line_of(row + start))


@dataclass(frozen=True, kw_only=True)
class RowFaults:
    """Rows with one kind of fault, in a file of several episodes: only the episode that holds such a row is refused.

    ``rows`` is ascending. ``lines`` and ``found`` describe them one by one; ``found`` may end early.
    """

    code: str
    file: str
    column: str | None
    expected: str
    rows: NDArray[np.int64]
    lines: NDArray[np.int64] | None
    found: tuple[str, ...]

    def within(self, start: int, stop: int) -> RowFaults:
        """Returns the faults of the rows ``start <= row < stop``, which are then counted from ``start``."""
        first, last = np.searchsorted(self.rows, [start, stop])
        lines = None if self.lines is None else self.lines[first:last]
        return replace(self, rows=self.rows[first:last] - start, lines=lines, found=self.found[first:last])

    def at(self, rows: NDArray[np.int64], which: NDArray[np.int64]) -> RowFaults:
        """Returns the faults at the positions ``which``, ascending, under other row numbers."""
        lines = None if self.lines is None else self.lines[which]
        told = which[: int(np.searchsorted(which, len(self.found)))].tolist()
        return replace(self, rows=rows, lines=lines, found=tuple(self.found[i] for i in told))

    def report(self, findings: Findings, code: str | None = None) -> None:
        """Adds one finding for all rows, if there is any. ``code`` overrides the fault's own."""
        if len(self.rows):
            line = None if self.lines is None else int(self.lines[0])
            found = self.found[0] if self.found else ""
            findings.add(
                code or self.code,
                self.file,
                line=line,
                column=self.column,
                expected=self.expected,
                found=found,
                count=len(self.rows),
            )


@dataclass(frozen=True, kw_only=True)
class StreamRows:
    """One stream of one episode.

    ``timestamp`` is ``(rows,)``, int64 nanoseconds or float64 seconds. Each field is ``(rows, ...)``. Fields read from
    CSV are column-major in memory (Fortran order), as they are stored.
    ``line_of(row)`` returns the line of the source file on which the row begins, or ``None`` if the file has no lines.
    ``line_of`` may be slow. ``clock_name`` is the column or array that holds the clock. ``column_names[field]`` holds
    the names of the field's columns in the file. ``clock_location`` is set if the clock has a file of its own.
    ``faults`` are set only in a file of several episodes; the values of such rows mean nothing.
    """

    timestamp: NDArray[Any]
    fields: dict[str, NDArray[Any]] = field(default_factory=dict)
    source: SourceFile
    line_of: Callable[[int], int | None] = _no_line
    clock_name: str | None = None
    column_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    clock_location: ClockLocation | None = None
    faults: tuple[RowFaults, ...] = ()

    @property
    def num_rows(self) -> int:
        """Returns the number of rows, which is the length of the clock."""
        return len(self.timestamp)

    def cut(self, start: int, stop: int) -> StreamRows:
        """Returns the rows ``start <= row < stop`` as views of the same memory."""
        line_of, place = self.line_of, self.clock_location
        return replace(
            self,
            timestamp=self.timestamp[start:stop],
            fields={name: values[start:stop] for name, values in self.fields.items()},
            line_of=lambda row: line_of(row + start),
            clock_location=None if place is None else place.from_row(start),
            faults=tuple(fault.within(start, stop) for fault in self.faults),
        )


@dataclass(frozen=True, kw_only=True)
class ImageRows:
    """One camera of one episode: JPEG or PNG files end to end; row ``i`` is ``data[offset[i]:offset[i + 1]]``.

    If ``offset`` is ``None``, ``data`` is pixels: RGB ``(rows, height, width, 3)`` uint8, or depth ``(rows, height,
    width, 1)`` uint16. ``num_dropped`` counts the images of the source that were left out because they are damaged.
    ``psnr_db`` is set if images became JPEG files: what was lost, in a sample of them. ``faults`` are as in
    ``StreamRows``.
    """

    timestamp: NDArray[Any]
    data: NDArray[Any]
    offset: NDArray[np.int64] | None
    height: int
    width: int
    source: SourceFile
    clock_location: ClockLocation | None = None
    num_dropped: int = 0
    psnr_db: float | None = None
    faults: tuple[RowFaults, ...] = ()

    @property
    def num_rows(self) -> int:
        """Returns the number of images."""
        return len(self.timestamp)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Returns the arrays that are stored beside the clock, by their names in a shard."""
        return {"pixels": self.data} if self.offset is None else {"bytes": self.data, "offset": self.offset}

    @property
    def storage(self) -> str:
        """Returns ``"raw"`` for pixels, ``"png"`` if some files are PNG, else ``"jpeg"``."""
        return self.kinds[-1]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Returns ``"raw"``, or which of ``"jpeg"`` and ``"png"`` the files are."""
        if self.offset is None:
            return ("raw",)
        if not self.num_rows:
            return ("jpeg",)
        is_png = self.is_png
        return (*(() if is_png.all() else ("jpeg",)), *(("png",) if is_png.any() else ()))

    @property
    def is_png(self) -> NDArray[np.bool_]:
        """Returns which files are PNG, ``(rows,)``."""
        assert self.offset is not None, "pixels are no file"
        is_png: NDArray[np.bool_] = picked(self.data, self.offset[:-1]) == _FIRST_OF_PNG
        return is_png

    def encoded(self, row: int) -> NDArray[np.uint8]:
        """Returns the bytes of one JPEG or PNG file, as a view."""
        assert self.offset is not None, "pixels are no file"
        return self.data[self.offset[row] : self.offset[row + 1]]

    def cut(self, start: int, stop: int) -> ImageRows:
        """Returns the images ``start <= row < stop`` as views of the same bytes."""
        place = self.clock_location
        cut = replace(
            self,
            timestamp=self.timestamp[start:stop],
            clock_location=None if place is None else place.from_row(start),
            faults=tuple(fault.within(start, stop) for fault in self.faults),
        )
        if self.offset is None:
            return replace(cut, data=self.data[start:stop])
        offset = self.offset[start : stop + 1]
        return replace(cut, data=self.data[offset[0] : offset[-1]], offset=offset - offset[0])


Rows = StreamRows | ImageRows

"""Turns arrays of pixels into frames ``(height, width, 3)`` uint8, and depth into frames ``(height, width, 1)``.

A conversion is exact, or it is reported. What an array is follows from its shape, its dtype and the schema's ``unit``:

- the last axis has 3 colours, or else the second one has; an array ``(rows, 3, height, 3)`` has them last;
- one channel is depth if the schema says ``unit``, else gray; depth keeps its numbers here;
- fractions are levels from 0 to 255, or from 0 to 1 if none is larger.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.containers.arrays import ArrayFiles
from vlapipe.pipeline.read.refused import RefusedError
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream

__all__ = ["Layout", "PixelArray", "layout_of"]

Layout = Literal["colours last", "colours first", "one channel", "one channel last", "one channel first"]

_AT_ONCE = 64 << 20  # bytes of an array that are converted at once
_MOST_WHOLE = 256 << 20  # bytes of an array that are handed on in one piece
_NEAR = 1e-4  # of a level: float32 holds k / 255 times 255 to within 2e-5


def layout_of(shape: tuple[int, ...], dtype: np.dtype[Any], stream: ImageStream) -> Layout | None:
    """Returns how the pixels lie; ``None`` if the array holds files.

    Raises:
        RefusedError: the array holds neither.
    """
    if dtype.kind in "SOV" or (dtype == np.uint8 and len(shape) == 2):
        return None
    is_depth = stream.unit is not None
    wanted = "(rows, height, width) or (rows, height, width, 1)" if is_depth else "(rows, height, width, 3)"
    expected = f"{'depth' if is_depth else 'images'} of shape {wanted}, uint8, uint16 or fractions"
    if dtype.kind not in ("uif" if is_depth else "uf") or (not is_depth and dtype.kind == "u" and dtype != np.uint8):
        expected += "" if is_depth or dtype.kind != "u" else "; for depth say unit = 'mm'"
    elif len(shape) == 3:
        return "one channel"
    elif len(shape) == 4 and shape[3] == 1:
        return "one channel last"
    elif len(shape) == 4 and shape[3] == 3 and not is_depth:
        return "colours last"
    elif len(shape) == 4 and shape[1] == 3 and not is_depth:
        return "colours first"
    elif len(shape) == 4 and shape[1] == 1:
        return "one channel first"
    raise RefusedError("image.layout", expected, f"{dtype} {shape}")


@dataclass(kw_only=True)
class PixelArray:
    """The frames of one camera's array. ``report`` tells what was lost, after the frames were read."""

    opened: ArrayFiles
    name: str
    layout: Layout
    stream: ImageStream
    whole: NDArray[Any] | None  # the episode's rows, if they had to be loaded to know the layout
    num_frames: int
    start: int
    factor: float  # from the file's levels to ours
    rounded: int = 0  # frames
    outside: int = 0
    first: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        opened: ArrayFiles,
        name: str,
        layout: Layout,
        stream: ImageStream,
        whole: NDArray[Any] | None,
        findings: Findings,
    ) -> PixelArray:
        """Returns the frames of the episode. Of fractions, all rows are looked at to learn their scale."""
        rows = opened.rows_of(name)
        shape = opened.arrays[name].shape
        length = len(whole) if whole is not None else shape[0] if shape else 0
        start, stop, _ = (rows or slice(None)).indices(length) if whole is None else (0, length, 1)
        pixels = cls(
            opened=opened,
            name=name,
            layout=layout,
            stream=stream,
            whole=whole,
            num_frames=max(stop - start, 0),
            start=start,
            factor=1.0,
        )
        if layout in ("one channel", "one channel last", "one channel first") and stream.unit is None:
            label = opened.file_of(name)
            findings.add("image.gray", label, found=f"{pixels.num_frames} of {pixels.num_frames} images of {name}")
        return pixels

    def frames(self) -> NDArray[Any] | Iterator[NDArray[Any]]:
        """Returns the frames as one array, or one after the other if they are many."""
        entry = self.opened.arrays[self.name]
        dtype = self.whole.dtype if self.whole is not None else entry.dtype
        assert dtype is not None
        if dtype.kind == "f" and self.stream.unit is None:
            self.factor = self._scale()
        shape = self.whole.shape[1:] if self.whole is not None else (entry.shape or (0,))[1:]
        frame_bytes = max(1, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
        if self.num_frames * frame_bytes <= _MOST_WHOLE:
            return self._converted(self._rows(0, self.num_frames), 0)
        return self._each(max(1, _AT_ONCE // frame_bytes))

    def report(self, label: str, name: str, findings: Findings) -> None:
        """Adds findings about frames whose values could not be kept exactly."""
        at = {code: f"in row {self.start + row}" for code, row in self.first.items()}
        if self.rounded:
            expected, found = "levels of 8 bits: whole from 0 to 255, or k / 255", f"others, first {at['rounded']}"
            findings.add("image.rounded", label, column=name, expected=expected, found=found, count=self.rounded)
        if self.outside:
            found = f"others, first {at['outside']}"
            expected = "levels from 0 to 255"
            findings.add("image.rounded", label, column=name, expected=expected, found=found, count=self.outside)

    def _rows(self, start: int, stop: int) -> NDArray[Any]:
        if self.whole is not None:
            return self.whole[start:stop]
        loaded: NDArray[Any] = self.opened.arrays[self.name].load(slice(self.start + start, self.start + stop))
        return loaded

    def _each(self, at_once: int) -> Iterator[NDArray[Any]]:
        for start in range(0, self.num_frames, at_once):
            stop = min(start + at_once, self.num_frames)
            yield from self._converted(self._rows(start, stop), start)

    def _scale(self) -> float:
        """Returns 255 if fractions from 0 to 1 are levels, else 1."""
        for start in range(0, self.num_frames, 64):
            rows = self._rows(start, min(start + 64, self.num_frames))
            if rows.size and np.nanmax(rows) > 1:
                return 1.0
        return 255.0

    def _converted(self, rows: NDArray[Any], first: int) -> NDArray[Any]:
        if self.layout == "colours first":
            rows = rows.transpose(0, 2, 3, 1)
        elif self.layout == "one channel first":
            rows = rows[:, 0]
        elif self.layout == "one channel last":
            rows = rows[..., 0]
        rows = rows if self.stream.unit is not None else self._levels(rows, first)
        if self.layout.startswith("one channel"):
            rows = rows[..., None]
            rows = rows if self.stream.unit is not None else np.repeat(rows, 3, axis=-1)
        return np.ascontiguousarray(rows)

    def _levels(self, rows: NDArray[Any], first: int) -> NDArray[Any]:
        if rows.dtype == np.uint8:
            return rows
        with np.errstate(invalid="ignore", over="ignore"):
            scaled: NDArray[Any] = rows.astype(np.float32 if rows.dtype.itemsize <= 4 else np.float64)
            scaled = scaled * np.float32(self.factor)
            whole = np.rint(scaled)
            outside = ~((whole >= 0) & (whole <= 255))
            self._count("outside", outside, first)
            self._count("rounded", ~outside & (np.abs(scaled - whole) > _NEAR), first)
            return np.where(outside, 0, whole).astype(np.uint8)

    def _count(self, what: str, wrong: NDArray[np.bool_], first: int) -> None:
        rows = wrong.reshape(len(wrong), -1).any(axis=1)
        if rows.any():
            setattr(self, what, getattr(self, what) + int(rows.sum()))
            self.first.setdefault(what, first + int(np.argmax(rows)))

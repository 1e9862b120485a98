"""Guesses a stream of NPZ or NPY files, from the names and shapes of its arrays and the first episode's stamps.

Arrays of images become cameras, which have the times of the other arrays' rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.infer.arrays.array_shapes import Shapes, load_first, shapes_of
from vlapipe.pipeline.infer.columns.clock import ASSUMED_HZ, ClockGuess, looks_like_time, rate_of, unit_of
from vlapipe.pipeline.infer.columns.columns import Column
from vlapipe.pipeline.infer.columns.groups import identifier
from vlapipe.pipeline.infer.guess import FieldGuess, StreamGuess
from vlapipe.schemas.schema import NANOSECONDS, TimeSpec

__all__ = ["ArraysGuess", "clock_of_values", "dtype_to_keep", "guess_arrays"]

_MAX_STAMPS = 100_000
_SMALLEST_FILE = 64  # bytes of an encoded image
_SMALLEST_IMAGE = 8  # pixels; a smaller array is a table


@dataclass(frozen=True, kw_only=True)
class ArraysGuess:
    """A stream, its clock, its number of rows, the cameras beside it, and the arrays that cannot be read.

    ``stream`` has no arrays if the container holds only images.
    """

    stream: StreamGuess
    clock: ClockGuess
    num_rows: int
    not_read: tuple[str, ...]
    cameras: tuple[StreamGuess, ...] = ()


def guess_arrays(name: str, files: tuple[str, ...], paths: list[Path]) -> ArraysGuess | None:
    """Guess a stream from one NPZ file, or from NPY files. Returns ``None`` if they hold no arrays of numbers."""
    path = paths[0]
    shapes = shapes_of(paths)
    numbers = {n: (shape, dtype) for n, (shape, dtype) in shapes.items() if dtype.kind in "iufb" and len(shape) > 0}
    not_read = [f"{path.name}: {n}, an array of {dtype}" for n, (_, dtype) in shapes.items() if n not in numbers]
    if not numbers:
        return None
    images = {n: entry for n, entry in numbers.items() if _is_image(n, *entry) or _is_encoded(path, n, *entry)}
    clock_name = _clock_name(path, {n: entry for n, entry in numbers.items() if n not in images})
    lengths = [shape[0] for n, (shape, _) in numbers.items() if n != clock_name]
    rows = numbers[clock_name][0][0] if clock_name else max(set(lengths), key=lengths.count)
    clock = clock_of_values(clock_name, load_first(path, clock_name, _MAX_STAMPS) if clock_name else None)
    taken = set()
    arrays = []
    for n, (shape, dtype) in numbers.items():
        if n == clock_name or (n in images and shape[0] == rows):
            continue
        if shape[0] != rows:
            not_read.append(f"{path.name}: {n} {shape}, which has not {rows} rows")
        elif looks_like_time(_named(n)) is not None and len(shape) == 1:
            not_read.append(f"{path.name}: {n}, another clock")
        else:
            field = identifier(n)
            while field in taken or field == "timestamp":
                field += "_value"
            taken.add(field)
            arrays.append(FieldGuess(name=field, columns=(n,), shape=shape[1:], dtype=dtype_to_keep(dtype)))
    if not arrays and not images:
        return None
    stream = StreamGuess(
        name=name,
        kind="npz",
        files=files,
        time=clock.time,
        time_reasons=clock.reasons,
        rate_hz=clock.rate_hz,
        fields=tuple(arrays),
        assumed=clock.assumed,
    )
    cameras = tuple(_camera(n, dtype, stream) for n, (shape, dtype) in images.items() if shape[0] == rows)
    return ArraysGuess(stream=stream, clock=clock, num_rows=rows, not_read=tuple(not_read), cameras=cameras)


def _is_image(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Return True if an array holds an image a row: three channels, or one of depth, as its dtype or its name says."""
    if len(shape) < 3 or min(shape[1:3]) < _SMALLEST_IMAGE:
        return False
    if shape[3:] == (3,):
        return dtype == np.uint8
    return shape[3:] in ((), (1,)) and (dtype == np.uint16 or (dtype.kind in "if" and "depth" in name.lower()))


def _is_encoded(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Return True if each row of an array is a padded JPEG or PNG file."""
    if dtype != np.uint8 or len(shape) != 2 or shape[1] < _SMALLEST_FILE or not shape[0]:
        return False
    first = load_first(path, name, 1)
    return first is not None and bytes(first[0, :3]) in (b"\xff\xd8\xff", b"\x89PN")


def _camera(array: str, dtype: np.dtype[Any], stream: StreamGuess) -> StreamGuess:
    """Describe a camera. Its images have the times of the stream's rows, or their clock if there are no such rows."""
    time = TimeSpec(rows_of=stream.name) if stream.fields else stream.time
    depth = dtype.kind in "if" or dtype == np.uint16
    what = "an array of depth images" if depth else "an array of images"
    return StreamGuess(
        name=identifier(array, "camera"),
        kind="images",
        files=stream.files,
        time=time,
        reasons=(what,),
        array=array,
        unit="mm" if depth else None,
        file_unit="m" if dtype.kind == "f" else None,
    )


def _named(name: str) -> Column:
    return Column(name=name, position=0, kind="number", cells=(), unit="", base=name, decimal=".")


def _clock_name(path: Path, numbers: Shapes) -> str | None:
    """Find the array of stamps: by its name, or else the first array that never falls and is no counter."""
    flat = [n for n, (shape, dtype) in numbers.items() if len(shape) == 1 and shape[0] > 1 and dtype != np.float32]
    named = [n for n in flat if looks_like_time(_named(n)) is not None]
    named.sort(key=lambda n: (looks_like_time(_named(n)) or 0, bool(re.search("send|recv|receive", n))))
    for name in [*named, *flat]:
        stamps = load_first(path, name, _MAX_STAMPS)
        if stamps is not None and len(stamps) and np.all(np.diff(stamps) >= 0) and stamps[-1] > stamps[0]:
            counts = np.all(np.diff(stamps) == 1)
            if name in named or not counts:
                return name
    return None


def clock_of_values(name: str | None, stamps: NDArray[Any] | None) -> ClockGuess:
    """Return the clock that an array's values make; with ``None``, an assumed rate."""
    if name is None or stamps is None:
        reason = f"no array is a clock; {ASSUMED_HZ:g} rows a second is only assumed: correct rate_hz"
        return ClockGuess(time=TimeSpec(index_rate_hz=ASSUMED_HZ), rate_hz=ASSUMED_HZ, reasons=(reason,), assumed=True)
    steps = np.diff(stamps).astype(np.float64)
    unit, reasons = unit_of(name, "", stamps.astype(np.float64), steps)
    scale = NANOSECONDS[unit or "s"] / 1e9
    return ClockGuess(
        time=TimeSpec(sources=(name,), unit=unit or "s", integer=stamps.dtype.kind in "iu"),
        columns=(name,),
        rate_hz=rate_of(steps * scale),
        stamps_s=stamps.astype(np.float64) * scale,
        reasons=tuple(reasons),
    )


def dtype_to_keep(dtype: np.dtype[Any]) -> str:
    """Return the schema's dtype that can hold an array's values."""
    if dtype.kind == "b":
        return "uint8"
    if dtype.kind == "f":
        return "float32" if dtype.itemsize <= 4 else "float64"
    kept = {"u1": "uint8", "u2": "uint16", "i1": "int32", "i2": "int32", "i4": "int32"}
    return kept.get(f"{dtype.kind}{dtype.itemsize}", "int64")

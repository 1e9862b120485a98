"""Guesses a stream of NPZ or NPY files, from the names and shapes of its arrays and the first episode's stamps."""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.infer.clock import ASSUMED_HZ, ClockGuess, looks_like_time, rate_of, unit_of
from vlapipe.pipeline.infer.columns import Column
from vlapipe.pipeline.infer.groups import identifier
from vlapipe.pipeline.infer.guess import ArrayGuess, StreamGuess
from vlapipe.schemas.schema import NANOSECONDS, TimeSpec

__all__ = ["ArraysGuess", "clock_of_values", "dtype_to_keep", "guess_arrays"]

_MAX_STAMPS = 100_000


@dataclass(frozen=True, kw_only=True)
class ArraysGuess:
    """An NPZ stream, its clock, its number of rows, and the arrays that cannot be read."""

    stream: StreamGuess
    clock: ClockGuess
    num_rows: int
    not_read: tuple[str, ...]


def guess_arrays(name: str, files: tuple[str, ...], paths: list[Path]) -> ArraysGuess | None:
    """Guess a stream from one NPZ file, or from NPY files. Returns ``None`` if they hold no arrays of numbers."""
    path = paths[0]
    shapes = _shapes(path) if path.suffix == ".npz" else _shapes_of_files(paths)
    numbers = {n: (shape, dtype) for n, (shape, dtype) in shapes.items() if dtype.kind in "iufb" and len(shape) > 0}
    not_read = [f"{path.name}: {n}, an array of {dtype}" for n, (_, dtype) in shapes.items() if n not in numbers]
    if not numbers:
        return None
    clock_name = _clock_name(path, numbers)
    lengths = [shape[0] for n, (shape, _) in numbers.items() if n != clock_name]
    rows = numbers[clock_name][0][0] if clock_name else max(set(lengths), key=lengths.count)
    clock = clock_of_values(clock_name, _load(path, clock_name) if clock_name else None)
    taken = set()
    arrays = []
    for n, (shape, dtype) in numbers.items():
        if n == clock_name:
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
            arrays.append(ArrayGuess(name=field, array=n, shape=shape[1:], dtype=dtype_to_keep(dtype)))
    if not arrays:
        return None
    stream = StreamGuess(
        name=name,
        kind="npz",
        files=files,
        time=clock.time,
        time_reasons=clock.reasons,
        rate_hz=clock.rate_hz,
        arrays=tuple(arrays),
        assumed=clock.assumed,
    )
    return ArraysGuess(stream=stream, clock=clock, num_rows=rows, not_read=tuple(not_read))


def _shapes(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return the shape and dtype of each array of an NPZ file. Only array headers are read."""
    found: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if not member.endswith(".npy"):
                    continue
                with archive.open(member) as file:
                    found[member.removesuffix(".npy")] = _read_header(file)
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
        return found
    return found


def _shapes_of_files(paths: list[Path]) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return the shape and dtype of each NPY file, by the file's name without its suffix."""
    found: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                found[path.stem] = _read_header(file)
        except (OSError, ValueError, EOFError):
            continue
    return found


def _read_header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _named(name: str) -> Column:
    return Column(name=name, position=0, kind="number", cells=(), unit="", base=name, decimal=".")


def _clock_name(path: Path, numbers: dict[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> str | None:
    """Find the array of stamps: by its name, or else the first array that never falls and is no counter."""
    flat = [n for n, (shape, dtype) in numbers.items() if len(shape) == 1 and shape[0] > 1 and dtype != np.float32]
    named = [n for n in flat if looks_like_time(_named(n)) is not None]
    named.sort(key=lambda n: (looks_like_time(_named(n)) or 0, bool(re.search("send|recv|receive", n))))
    for name in [*named, *flat]:
        stamps = _load(path, name)
        if stamps is not None and np.all(np.diff(stamps) >= 0) and stamps[-1] > stamps[0]:
            counts = np.all(np.diff(stamps) == 1)
            if name in named or not counts:
                return name
    return None


def _load(path: Path, name: str) -> NDArray[Any] | None:
    values: NDArray[Any]
    try:
        if path.suffix == ".npy":
            values = np.load(path.with_name(f"{name}.npy"), mmap_mode="r", allow_pickle=False)[:_MAX_STAMPS]
            return np.array(values)
        with np.load(path, allow_pickle=False) as archive:
            values = archive[name][:_MAX_STAMPS]
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError):
        return None
    return values


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

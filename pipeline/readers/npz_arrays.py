"""Reads one NPZ file into a stream's arrays; never unpickles, and casts to the schema's dtype only with a word."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.readers.arrays import SourceFile, StreamRows
from vlapipe.pipeline.readers.clock import clock_from_numbers
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import FieldSpec, NpzStream
from vlapipe.schemas.toml_table import did_you_mean

__all__ = ["read_npz_stream"]


def read_npz_stream(path: Path, label: str, stream: NpzStream, findings: Findings) -> StreamRows | None:
    """Read a stream's rows; ``None`` where errors were found. Arguments as for ``read_csv_stream``."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            num_bytes = file.tell()
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                if not isinstance(archive, np.lib.npyio.NpzFile):
                    findings.add("npz.unreadable", label, expected="an NPZ archive", found="a single array")
                    return None
                clock, fields = _read_arrays(archive, label, stream, findings)
    except OSError as error:
        findings.add("file.unreadable", label, found=error.strerror or str(error))
        return None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        findings.add("npz.unreadable", label, expected="an NPZ archive", found=_one_line(error))
        return None
    if clock is None or fields is None:
        return None
    name = stream.time.sources[0]
    source = SourceFile(path=label, num_files=1, num_bytes=num_bytes, sha256=digest)
    return StreamRows(timestamp=clock, fields=fields, source=source, clock_name=name)


def _one_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read_arrays(
    archive: Any, label: str, stream: NpzStream, findings: Findings
) -> tuple[NDArray[Any] | None, dict[str, NDArray[Any]] | None]:
    stamps = _read_array(archive, stream.time.sources, label, findings)
    clock = _read_clock(stamps, label, stream, findings) if stamps is not None else None
    fields: dict[str, NDArray[Any]] = {}
    for field in stream.fields:
        array = _read_array(archive, field.columns[0], label, findings)
        if array is not None and _check_array(array, field, label, findings):
            fields[field.name] = _cast(array, field, label, findings)
    if clock is None or len(fields) < len(stream.fields):
        return clock, None
    return clock, fields if _check_lengths(clock, fields, label, stream, findings) else None


def _check_lengths(
    clock: NDArray[Any], fields: dict[str, NDArray[Any]], label: str, stream: NpzStream, findings: Findings
) -> bool:
    """Every field must have a row a stamp; where the fields agree with each other, it is the clock that is wrong."""
    lengths = {len(array) for array in fields.values()}
    if lengths == {len(clock)}:
        return True
    if len(lengths) == 1:
        expected = f"{lengths.pop()} stamps, one a row of {', '.join(f.columns[0][0] for f in stream.fields)}"
        findings.add("npz.length", label, column=stream.time.sources[0], expected=expected, found=f"{len(clock)}")
        return False
    for field in stream.fields:
        rows = len(fields[field.name])
        if rows != len(clock):
            expected = f"{len(clock)} rows, one a stamp"
            findings.add("npz.length", label, column=field.columns[0][0], expected=expected, found=f"{rows}")
    return False


def _read_array(archive: Any, names: tuple[str, ...], label: str, findings: Findings) -> NDArray[Any] | None:
    name = next((name for name in names if name in archive.files), None)
    if name is None:
        expected = "an array " + " or ".join(repr(n) for n in names)
        found = f"none of it; {did_you_mean(names[0], archive.files)}"
        findings.add("npz.missing_array", label, column=names[0], expected=expected, found=found)
        return None
    try:
        array: NDArray[Any] = archive[name]
    except ValueError as error:
        code = "npz.object_array" if "allow_pickle" in str(error) else "npz.unreadable"
        found = "Python objects" if code == "npz.object_array" else _one_line(error)
        findings.add(code, label, column=name, expected="an array of numbers", found=found)
        return None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        findings.add("npz.unreadable", label, column=name, expected="a whole array", found=_one_line(error))
        return None
    if array.dtype.kind not in "iufb":
        findings.add("npz.dtype", label, column=name, expected="numbers", found=str(array.dtype))
        return None
    return array


def _read_clock(stamps: NDArray[Any], label: str, stream: NpzStream, findings: Findings) -> NDArray[Any] | None:
    name = stream.time.sources[0]
    if stamps.ndim != 1 or not len(stamps):
        findings.add(
            "npz.shape", label, column=name, expected="shape (rows,), one row or more", found=f"{stamps.shape}"
        )
        return None
    if stamps.dtype.kind == "f" and not np.isfinite(stamps).all():
        rows = np.flatnonzero(~np.isfinite(stamps))
        found = f"{stamps[rows[0]]} in row {rows[0]}"
        findings.add("npz.not_finite", label, column=name, expected="a time", found=found, count=len(rows))
        return None
    if stamps.dtype == np.float32:
        findings.add("npz.dtype", label, column=name, expected="float64 or integer stamps", found="float32")
        return None
    try:
        return clock_from_numbers(stamps, stream.time)
    except (ValueError, OverflowError) as error:
        findings.add("npz.dtype", label, column=name, expected="whole stamps", found=str(error))
        return None


def _check_array(array: NDArray[Any], field: FieldSpec, label: str, findings: Findings) -> bool:
    name = field.columns[0][0]
    if array.ndim == 0 or array.shape[1:] != field.shape:
        expected = f"shape (rows{''.join(f', {n}' for n in field.shape)})"
        findings.add("npz.shape", label, column=name, expected=expected, found=f"{array.shape}")
        return False
    if not array.size:
        return True
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        rows = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
        found = f"NaN or infinity in row {rows[0]}"
        findings.add("npz.not_finite", label, column=name, expected="finite numbers", found=found, count=len(rows))
        return False
    if field.range and not (low >= field.range[0] and high <= field.range[1]):
        expected = f"values in [{field.range[0]:g}, {field.range[1]:g}]"
        findings.add("npz.out_of_range", label, column=name, expected=expected, found=f"[{low:g}, {high:g}]")
        return False
    return True


def _cast(array: NDArray[Any], field: FieldSpec, label: str, findings: Findings) -> NDArray[Any]:
    if array.dtype == field.dtype:
        return array
    cast = array.astype(field.dtype)
    if not np.array_equal(cast.astype(array.dtype), array):
        name = field.columns[0][0]
        findings.add("npz.rounded", label, column=name, expected=field.dtype, found=str(array.dtype))
    return cast

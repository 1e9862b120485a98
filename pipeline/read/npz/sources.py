"""Finds the arrays that a field is made of, checks their shapes, and joins them: several arrays, parts, texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.containers.arrays import ArrayFiles
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import FieldSpec
from vlapipe.schemas.toml_table import did_you_mean

__all__ = ["Source", "find_source"]

_TEXTS = "SUOu"  # kinds of dtype that may hold texts; uint8 rows are padded bytes


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a field is made of: its own arrays, joined, ``(rows, ...)``, or windows ``(N, W, columns)`` that hold it.

    ``missing`` marks the values that are NaN where the schema allows them to be missing. If ``is_absent``, the file
    lacks the field, and ``values`` has no rows until their number is known.
    """

    spec: FieldSpec
    arrays: tuple[str, ...]
    values: NDArray[Any]
    in_windows: bool = False
    missing: NDArray[np.bool_] | None = None
    is_absent: bool = False

    @property
    def array(self) -> str:
        """Returns the name of the arrays in findings."""
        return ", ".join(self.arrays)


def find_source(files: ArrayFiles, spec: FieldSpec, findings: Findings) -> Source | None:
    """Returns what the field is made of; ``None`` with a finding if it cannot be read or has another shape."""
    if spec.optional and not any(name in files.arrays for names in spec.columns for name in names):
        findings.add("npz.absent", files.label, column=spec.columns[0][0], found=f"no {spec.columns[0][0]}")
        return Source(spec=spec, arrays=(spec.columns[0][0],), values=np.empty((0, *spec.shape)), is_absent=True)
    if spec.text or spec.words:
        return _find_texts(files, spec, findings)
    if spec.window is not None:
        return _find_windows(files, spec, findings)
    parts: list[NDArray[Any]] = []
    names: list[str] = []
    for accepted in spec.columns:
        name = files.find(accepted, findings)
        values = files.load(name, findings) if name is not None else None
        if name is None or values is None:
            continue
        names.append(name)
        values = _part_of(files, name, values, spec, findings)
        if values is not None:
            parts.append(values)
    if len(parts) < len(spec.columns):
        return None
    joined = _join(files, names, parts, spec, findings)
    return None if joined is None else _with_missing(Source(spec=spec, arrays=tuple(names), values=joined))


def _with_missing(source: Source) -> Source:
    spec, values = source.spec, source.values
    if spec.on_missing == "refuse" or values.dtype.kind != "f":
        return source
    missing = np.isnan(values)
    return Source(spec=spec, arrays=source.arrays, values=values, missing=missing if missing.any() else None)


def _part_of(
    files: ArrayFiles, name: str, values: NDArray[Any], spec: FieldSpec, findings: Findings
) -> NDArray[Any] | None:
    """Returns the columns that the schema names. An axis of one column may be there or not."""
    if values.ndim == 0:
        findings.add("npz.shape", files.file_of(name), column=name, expected=_shape_of(spec), found="a single number")
        return None
    first, stop = spec.part or (0, 0)
    if spec.part is not None:
        wide = values[:, None] if values.ndim == 1 else values
        if wide.ndim != 2 or wide.shape[1] < stop:
            expected = f"shape (rows, {stop} or more)"
            findings.add("npz.shape", files.file_of(name), column=name, expected=expected, found=f"{values.shape}")
            return None
        values = wide[:, first:stop]
    if len(spec.columns) > 1:
        return values[:, None] if values.ndim == 1 else values
    if values.ndim == 2 and values.shape[1] == 1 and spec.shape == ():
        return values[:, 0]
    return values[:, None] if values.ndim == 1 and spec.shape == (1,) else values


def _join(
    files: ArrayFiles, names: list[str], parts: list[NDArray[Any]], spec: FieldSpec, findings: Findings
) -> NDArray[Any] | None:
    """Returns the arrays side by side, if that is the shape that the schema says."""
    if len(parts) == 1:
        fits = parts[0].shape[1:] == spec.shape
        found = f"{parts[0].shape}"
        if not fits and parts[0].ndim > len(spec.shape) + 1:
            found += f"; say shape = {list(parts[0].shape[1:])}"
    else:
        lengths = {len(part) for part in parts}
        fits = len(lengths) == 1 and all(part.ndim == 2 for part in parts)
        fits = fits and sum(part.shape[1] for part in parts) == spec.num_columns
        found = " and ".join(f"{part.shape}" for part in parts)
    if not fits:
        file = files.file_of(names[0])
        findings.add("npz.shape", file, column=", ".join(names), expected=_shape_of(spec), found=found)
        return None
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _shape_of(spec: FieldSpec) -> str:
    shape = f"shape (rows{''.join(f', {length}' for length in spec.shape)})"
    return shape if len(spec.columns) == 1 else f"{shape} of {len(spec.columns)} arrays side by side"


def _find_windows(files: ArrayFiles, spec: FieldSpec, findings: Findings) -> Source | None:
    assert spec.window is not None
    window, first, stop = spec.window
    name = files.find(spec.columns[0], findings, or_else=window)
    values = files.load(name, findings) if name is not None else None
    if name is None or values is None:
        return None
    if name != window or name in spec.columns[0]:
        part = _part_of(files, name, values, spec, findings)
        joined = None if part is None else _join(files, [name], [part], spec, findings)
        return None if joined is None else _with_missing(Source(spec=spec, arrays=(name,), values=joined))
    values = values[..., None] if values.ndim == 2 else values
    fits = values.ndim == 3 and values.shape[2] >= stop and values.shape[1] > 0 and stop - first == spec.num_columns
    if not fits:
        expected = f"shape (windows, rows, {stop} or more), {spec.num_columns} of them for {spec.name}"
        findings.add("npz.shape", files.file_of(name), column=name, expected=expected, found=f"{values.shape}")
        return None
    return Source(spec=spec, arrays=(name,), values=values, in_windows=True)


def _find_texts(files: ArrayFiles, spec: FieldSpec, findings: Findings) -> Source | None:
    """Returns texts as padded bytes ``(rows, width)``, or the numbers that the schema's words stand for."""
    name = files.find(spec.columns[0], findings)
    values = files.load(name, findings, kinds=_TEXTS) if name is not None else None
    if name is None or values is None:
        return None
    file = files.file_of(name)
    texts = _texts(values)
    if texts is None:
        found = f"{values.dtype} {values.shape}"
        findings.add("npz.dtype", file, column=name, expected="a text a row", found=found)
        return None
    if spec.words:
        numbers = dict(spec.words)
        named = [text.decode("utf-8", "replace").strip(" \t") for text in texts]
        wrong = [row for row, word in enumerate(named) if word not in numbers]
        if wrong:
            near = did_you_mean(named[wrong[0]], numbers)
            found = f"{named[wrong[0]]!r:.60} in row {wrong[0]}; {near}"
            expected = ", ".join(numbers)
            findings.add("npz.unknown_word", file, column=name, expected=expected, found=found, count=len(wrong))
            return None
        return Source(spec=spec, arrays=(name,), values=np.array([numbers[word] for word in named], dtype=spec.dtype))
    width = spec.shape[0]
    long = [row for row, text in enumerate(texts) if len(text) > width]
    if long:
        found = f"{len(texts[long[0]])} bytes in row {long[0]}"
        findings.add(
            "npz.text_too_long", file, column=name, expected=f"at most {width} bytes", found=found, count=len(long)
        )
        return None
    padded = np.frombuffer(b"".join(text.ljust(width, b"\0") for text in texts), dtype=np.uint8)
    return Source(spec=spec, arrays=(name,), values=padded.reshape(-1, width).copy())


def _texts(values: NDArray[Any]) -> list[bytes] | None:
    """Returns one UTF-8 text a row; ``None`` if the array holds something else."""
    if values.dtype.kind == "u":
        if values.dtype != np.uint8 or values.ndim != 2:
            return None
        return [bytes(row).rstrip(b"\0") for row in values]
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        return None
    items = values.tolist()
    if not all(isinstance(item, str | bytes) for item in items):
        return None
    texts = [item.encode() if isinstance(item, str) else item for item in items]
    return texts if all(_is_utf8(text) for text in texts) else None


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True

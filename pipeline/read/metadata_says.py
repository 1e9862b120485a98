"""Compares the rows of an episode with what the dataset's own metadata says about them, column by column."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.discover.discovery import MetadataSays
from vlapipe.pipeline.read.containers.arrays import ArrayEntry, ArrayFiles
from vlapipe.schemas.findings import Findings

__all__ = ["check_against_metadata", "with_task_texts"]

_TOLERANCE_S = 1e-4  # of a timestamp from frame_index / fps; LeRobot's own
TASK = "task"  # an array that no file has: the text of each row's task_index


def check_against_metadata(files: ArrayFiles, says: MetadataSays, findings: Findings) -> None:
    """Reports where the columns of an episode differ from its metadata."""
    if not _check_length(files, says, findings):
        return
    _check_dtypes(files, says, findings)
    columns: dict[str, NDArray[Any]] = {}
    for name in ("episode_index", "frame_index", "index", "timestamp", "task_index"):
        if name in files.arrays:
            values = files.load(name, findings)
            if values is None:
                continue
            columns[name] = values.reshape(-1) if values.size == says.length else values
    if any(values.shape != (says.length,) for values in columns.values()):
        name, values = next((n, v) for n, v in columns.items() if v.shape != (says.length,))
        expected = f"{says.length} numbers"
        findings.add("lerobot.rows", files.file_of(name), column=name, expected=expected, found=f"shape {values.shape}")
        return
    rows = np.arange(says.length)
    wanted = {"episode_index": np.full(says.length, says.episode_index), "frame_index": rows}
    if says.first_row is not None:
        wanted["index"] = rows + says.first_row
    for name, values in wanted.items():
        if name in columns:
            _report("lerobot.index", columns[name] != values, files, name, columns[name], values, findings)
    if {"timestamp", "frame_index"} <= columns.keys():
        stamps = columns["timestamp"].astype(np.float64)
        at = columns["frame_index"] / says.rate_hz
        # Stamps are float32, and metadata may be too; what a float32 of this size cannot tell apart is no difference.
        off = ~(np.abs(stamps - at) <= _TOLERANCE_S + 2 * np.finfo(np.float32).eps * np.abs(at))
        _report("lerobot.clock", off, files, "timestamp", stamps, at, findings)
    if "task_index" in columns:
        known = [number for number, _ in says.tasks]
        off = ~np.isin(columns["task_index"], known)
        if off.any():
            row, expected = int(np.argmax(off)), " or ".join(map(str, known[:8])) or "a task"
            found = f"{columns['task_index'][row]} in row {row}"
            place = files.file_of("task_index")
            findings.add(
                "lerobot.task", place, column="task_index", expected=expected, found=found, count=int(off.sum())
            )


def _check_length(files: ArrayFiles, says: MetadataSays, findings: Findings) -> bool:
    """Returns whether the file has as many rows as its episodes together."""
    num_rows = says.length if files.part is None else files.part.num_rows
    entry = next(iter(files.arrays.values()), None)
    found = entry.shape[0] if entry is not None and entry.shape else 0
    if found == num_rows:
        return True
    findings.add("lerobot.rows", files.label, expected=f"{num_rows} rows, as meta/ says", found=f"{found}")
    return False


def _check_dtypes(files: ArrayFiles, says: MetadataSays, findings: Findings) -> None:
    for name, stated in says.dtypes:
        entry = files.arrays.get(name)
        if entry is not None and entry.dtype is not None and str(entry.dtype) != stated:
            findings.add("lerobot.dtype", files.label, column=name, expected=stated, found=str(entry.dtype))


def _report(
    code: str,
    off: NDArray[np.bool_],
    files: ArrayFiles,
    name: str,
    values: NDArray[Any],
    wanted: NDArray[Any],
    findings: Findings,
) -> None:
    if off.any():
        row = int(np.argmax(off))
        expected, found = f"{wanted[row]:.6g}" if values.dtype.kind == "f" else f"{wanted[row]}", values[row]
        found = f"{found:.6g} in row {row}" if values.dtype.kind == "f" else f"{found} in row {row}"
        findings.add(code, files.file_of(name), column=name, expected=expected, found=found, count=int(off.sum()))


def with_task_texts(files: ArrayFiles, says: MetadataSays) -> ArrayFiles:
    """Returns the arrays with one more, ``task``: the text of each row's ``task_index``; unknown numbers have none."""
    numbers = files.arrays.get("task_index")
    if numbers is None or TASK in files.arrays:
        return files
    texts = dict(says.tasks)

    def load(rows: slice | None) -> NDArray[Any]:
        found = np.asarray(numbers.load(rows)).reshape(-1).tolist()
        return np.array([texts.get(number, "") for number in found], dtype=object)

    entry = ArrayEntry(file=numbers.file, load=load, shape=numbers.shape and numbers.shape[:1])
    return replace(files, arrays={**files.arrays, TASK: entry})

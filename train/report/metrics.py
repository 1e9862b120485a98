"""Writes OUT/metrics.jsonl, one line for each logged step. A resumed run removes the lines after its checkpoint."""

from __future__ import annotations

import contextlib
import json
import math
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from vlapipe.pipeline.shards.format.atomic import write_bytes
from vlapipe.train.run_files import METRICS_FILE

__all__ = ["METRICS_FILE", "MetricsLog", "median_ends", "metric_columns", "read_metrics"]


class MetricsLog:
    """Appends to the metrics file. Every line is flushed, so you can follow the file during the run."""

    def __init__(self, out: Path, *, resumed_step: int = 0) -> None:
        """Open the log of a run that has made ``resumed_step`` steps; 0 for a new run."""
        self.path = path = out / METRICS_FILE
        if resumed_step:
            kept = [line for line in read_metrics(path) if line["step"] <= resumed_step]
            write_bytes(path, "".join(map(_line, kept)).encode())
        self._file: IO[str] = path.open("a" if resumed_step else "w", encoding="utf-8")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append a step's line. A value that is not finite becomes null, because JSON has no NaN."""
        self._file.write(_line({"step": step, **values}))
        self._file.flush()

    def close(self) -> None:
        """Close the file and ignore errors. ``write`` has already flushed each line, or raised an error."""
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a ``metrics.jsonl``. A line that a kill cut short is left out."""
    return [*_lines_of(path)]


def metric_columns(path: Path) -> dict[str, tuple[array[int], array[float]]]:
    """Returns, by metric, the steps that have it and its values; NaN where a value is null or no number."""
    columns: dict[str, tuple[array[int], array[float]]] = {}
    for line in _lines_of(path):
        for name, value in line.items():
            if name != "step":
                steps, values = columns.setdefault(name, (array("q"), array("d")))
                steps.append(line["step"])
                values.append(float(value) if isinstance(value, int | float) else math.nan)
    return columns


def _lines_of(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                yield line


def median_ends(lines: list[dict[str, Any]], key: str = "train/loss", share: float = 0.05) -> tuple[float, float]:
    """Returns the medians of ``key`` over the first and the last 5 % of the lines (at least one line each).

    Both are NaN if no line has the key.
    """
    values = [line[key] for line in lines if line.get(key) is not None]
    count = math.ceil(len(values) * share)
    return _median(values[:count]), _median(values[len(values) - count :])


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if not ordered:
        return math.nan
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _line(values: Mapping[str, Any]) -> str:
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    return json.dumps(clean, allow_nan=False) + "\n"

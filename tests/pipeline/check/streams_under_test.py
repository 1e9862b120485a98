"""Builds streams from arguments, in the form that readers return."""

from __future__ import annotations

from typing import Any

import numpy as np

from vlapipe.pipeline.stream_rows import ImageRows, SourceFile, StreamRows
from vlapipe.schemas.schema import CsvStream, FieldSpec, TimeSpec

START_S = 1_740_416_404.0


def source(path: str = "ep/x.csv") -> SourceFile:
    return SourceFile(path=path, num_files=1, num_bytes=1, sha256="")


def rows_of(timestamp: Any, path: str = "ep/x.csv", **fields: Any) -> StreamRows:
    """A stream whose row ``i`` stands on line ``i + 2``, as below a header."""
    return StreamRows(
        timestamp=np.asarray(timestamp),
        fields={name: np.asarray(values) for name, values in fields.items()},
        source=source(path),
        line_of=lambda row: row + 2,
        clock_name="t",
    )


def images_of(timestamp: Any, path: str = "ep/cam") -> ImageRows:
    """A camera of which only the clock counts."""
    stamps = np.asarray(timestamp)
    empty = np.empty(0, dtype=np.uint8)
    offset = np.zeros(len(stamps) + 1, dtype=np.int64)
    return ImageRows(timestamp=stamps, data=empty, offset=offset, height=8, width=8, source=source(path))


def stream_of(*fields: FieldSpec, **values: Any) -> CsvStream:
    return CsvStream(name="robot", files=("x.csv",), time=TimeSpec(sources=("t",)), fields=fields, **values)


def ticks(num_rows: int, rate_hz: float = 100.0, start_s: float = START_S) -> Any:
    """An even clock."""
    return start_s + np.arange(num_rows) / rate_hz

"""The times of an array's rows: another array, a rate, a file of stamps, or the rows of another stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.clock_file import ClockFile, clock_of_array, shift_by_name
from vlapipe.pipeline.read.clocks.stamps import clock_from_index
from vlapipe.pipeline.read.containers.arrays import ArrayFiles
from vlapipe.pipeline.stream_rows import ClockLocation
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import TimeSpec

__all__ = ["Stamps", "count_rows", "read_stamps"]


@dataclass(frozen=True, kw_only=True)
class Stamps:
    """The stamps of rows, or of windows; ``timestamp`` is ``None`` if the clock only counts rows."""

    timestamp: NDArray[Any] | None
    place: ClockLocation


def read_stamps(files: ArrayFiles, time: TimeSpec, findings: Findings, clock: ClockFile | None) -> Stamps | None:
    """Returns the stamps of a stream in a container; ``None`` with a finding if they cannot be read."""
    if clock is not None:
        part, stamps = files.part, clock.timestamp
        is_of_all = part is not None and len(stamps) == part.num_rows
        return Stamps(timestamp=stamps[part.start : part.stop] if part and is_of_all else stamps, place=clock.place)
    if time.file is not None:
        return None  # the clock's file could not be read, which was reported
    if not time.sources:
        return Stamps(timestamp=None, place=ClockLocation(file=files.label))
    name = files.find(time.sources, findings)
    array = files.load(name, findings) if name is not None else None
    if name is None or array is None:
        return None
    label = files.file_of(name)
    timestamp = clock_of_array(array, label, name, time, findings)
    return None if timestamp is None else Stamps(timestamp=timestamp, place=ClockLocation(file=label, column=name))


def count_rows(num_rows: int, label: str, time: TimeSpec, findings: Findings) -> NDArray[Any] | None:
    """Returns the times of rows that follow from their number; ``None`` with a finding if they cannot be told."""
    if time.rows_of is not None:
        return np.arange(num_rows)  # until the stream that it names has been read
    assert time.index_rate_hz
    try:
        return shift_by_name(clock_from_index(np.arange(num_rows), time.index_rate_hz), label, time)
    except (ValueError, OverflowError) as error:
        findings.add("npz.bad_time", label, expected="a clock that begins at the file's time", found=str(error))
        return None

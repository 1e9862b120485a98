"""Faults of ``sensor_data.npz`` and ``metadata.json``. The other arrays of a faulty archive do not change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.demo.fault_location import FaultLocation
from vlapipe.pipeline.demo.recorder import write_npz

__all__ = ["FILE", "SENSOR_DEFECTS", "read_arrays"]

FILE = "sensor_data.npz"
NUM_LOST_STAMPS = 10


def read_arrays(episode: Path) -> dict[str, NDArray[Any]]:
    """Returns the arrays of the sensor's archive."""
    with np.load(episode / FILE, allow_pickle=False) as archive:
        return dict(archive)


def sensor_truncated(episode: Path) -> FaultLocation:
    """Cut the archive in half, as if the disk had been full."""
    data = (episode / FILE).read_bytes()
    (episode / FILE).write_bytes(data[: len(data) // 2])
    return FaultLocation(file=FILE, description="the archive is cut in half")


def sensor_missing_array(episode: Path) -> FaultLocation:
    """Remove the array of forces."""
    arrays = read_arrays(episode)
    del arrays["forces"]
    write_npz(episode / FILE, arrays)
    return FaultLocation(file=FILE, column="forces", description="array forces is missing")


def sensor_length_mismatch(episode: Path) -> FaultLocation:
    """Remove the last stamps, so that there are fewer stamps than rows."""
    arrays = read_arrays(episode)
    arrays["timestamps"] = arrays["timestamps"][:-NUM_LOST_STAMPS]
    write_npz(episode / FILE, arrays)
    description = f"timestamps has {NUM_LOST_STAMPS} rows less than forces and alines"
    return FaultLocation(file=FILE, column="timestamps", description=description)


def sensor_object_array(episode: Path) -> FaultLocation:
    """Store the forces as Python objects, which only pickle can read."""
    arrays = read_arrays(episode)
    arrays["forces"] = arrays["forces"].astype(object)
    write_npz(episode / FILE, arrays)
    return FaultLocation(file=FILE, column="forces", description="array forces holds Python objects and needs pickle")


def sensor_nan(episode: Path) -> FaultLocation:
    """Set one force to nan."""
    arrays = read_arrays(episode)
    row = len(arrays["forces"]) * 2 // 3
    arrays["forces"][row] = np.nan
    write_npz(episode / FILE, arrays)
    return FaultLocation(file=FILE, column="forces", description=f"the force in row {row} (from 0) is nan")


def sensor_clock_backwards(episode: Path) -> FaultLocation:
    """Set one stamp back by 1 s, as if the clock had been adjusted."""
    arrays = read_arrays(episode)
    row = len(arrays["timestamps"]) * 2 // 3
    arrays["timestamps"][row] -= 1.0
    write_npz(episode / FILE, arrays)
    return FaultLocation(
        file=FILE, column="timestamps", description=f"the stamp in row {row} (from 0) is 1 s too early"
    )


def bad_metadata_json(episode: Path) -> FaultLocation:
    """Cut the JSON in half."""
    data = (episode / "metadata.json").read_bytes()
    kept = data[: len(data) // 2]
    (episode / "metadata.json").write_bytes(kept)
    return FaultLocation(file="metadata.json", line=kept.count(b"\n") + 1, description="the JSON is cut in half")


SENSOR_DEFECTS: dict[str, Callable[[Path], FaultLocation]] = {
    function.__name__: function
    for function in (
        sensor_truncated,
        sensor_missing_array,
        sensor_length_mismatch,
        sensor_object_array,
        sensor_nan,
        sensor_clock_backwards,
        bad_metadata_json,
    )
}

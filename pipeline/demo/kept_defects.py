"""Faults that ingest keeps: the episode can be read, and only who looks at it sees that something is odd.

The robot goes on while a clock drifts, rows are lost, a camera hangs or a sensor sticks. Nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vlapipe.pipeline.demo.csv_defects import FILE as ROBOT_FILE
from vlapipe.pipeline.demo.csv_defects import read_table, write_table
from vlapipe.pipeline.demo.fault_location import FaultLocation
from vlapipe.pipeline.demo.image_defects import CAMERA_NAMES
from vlapipe.pipeline.demo.recorder import write_npz
from vlapipe.pipeline.demo.sensor_defects import FILE as SENSOR_FILE
from vlapipe.pipeline.demo.sensor_defects import read_arrays

__all__ = ["KEPT_DEFECTS"]

DRIFT = 0.02  # of the sensor's clock
NUM_LOST_ROWS = 60
FROZEN_SHARE = 0.4  # of a camera's images
STUCK_SHARE = 0.3  # of a sensor's rows


def sensor_clock_drift(episode: Path) -> FaultLocation:
    """Let the sensor's clock run 2 % fast, as two recorders' clocks do that nobody sets."""
    arrays = read_arrays(episode)
    first = arrays["timestamps"][0]
    arrays["timestamps"] = first + (arrays["timestamps"] - first) * (1 + DRIFT)
    write_npz(episode / SENSOR_FILE, arrays)
    description = f"the sensor's clock runs {DRIFT:.0%} fast"
    return FaultLocation(file=SENSOR_FILE, column="timestamps", description=description)


def robot_gap(episode: Path) -> FaultLocation:
    """Remove rows in the middle, as a recorder loses them on a busy machine."""
    table = read_table(episode)
    at = len(table) // 2
    write_table(episode, table[:at] + table[at + NUM_LOST_ROWS :])
    description = f"{NUM_LOST_ROWS} rows are lost before this line"
    return FaultLocation(file=ROBOT_FILE, line=at + 1, column="origin_timestamp", description=description)


def camera_frozen(episode: Path) -> FaultLocation:
    """Repeat one image while the robot moves, as a camera's driver does that hangs."""
    camera = episode / "images" / CAMERA_NAMES[0]
    images = sorted(camera.iterdir())
    first = len(images) // 3
    frozen = images[first : first + int(len(images) * FROZEN_SHARE)]
    for image in frozen[1:]:
        image.write_bytes(frozen[0].read_bytes())
    place = camera.relative_to(episode).as_posix()
    return FaultLocation(file=place, description=f"{len(frozen)} images in a row are the same, from {frozen[0].name}")


def sensor_stuck(episode: Path) -> FaultLocation:
    """Repeat one force, as a sensor's driver does that hangs."""
    arrays = read_arrays(episode)
    first = len(arrays["forces"]) // 3
    count = int(len(arrays["forces"]) * STUCK_SHARE)
    arrays["forces"][first : first + count] = arrays["forces"][first]
    write_npz(episode / SENSOR_FILE, arrays)
    description = f"the force is the same in {count} rows from row {first} (from 0)"
    return FaultLocation(file=SENSOR_FILE, column="forces", description=description)


KEPT_DEFECTS: dict[str, Callable[[Path], FaultLocation]] = {
    function.__name__: function for function in (sensor_clock_drift, robot_gap, camera_frozen, sensor_stuck)
}

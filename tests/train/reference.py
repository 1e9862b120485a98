"""Computes what a batch must hold, from the raw files in plain Python, one sample at a time."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

STATE = [f"joint_{i}" for i in range(1, 7)] + [f"pose_{i}" for i in "xyzabr"]
POSE = STATE[6:]
PERIOD_S, TOLERANCE_S = 0.1, 0.02


class RawReference:
    """One raw ``meca500`` episode."""

    def __init__(self, folder: Path) -> None:
        with (folder / "robot_states.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        self.clock = [float(row["origin_timestamp"]) for row in rows]
        self.state = [[np.float32(row[name]) for name in STATE] for row in rows]
        with np.load(folder / "sensor_data.npz") as sensor:
            self.sensor_clock = sensor["timestamps"].tolist()
            self.force, self.aline = sensor["forces"], sensor["alines"]
        self.images = {
            camera.name: sorted((float(image.stem), image) for image in camera.iterdir())
            for camera in (folder / "images").iterdir()
        }

    def frames(self) -> list[int]:
        """Rows at which every stream has begun, to the last that has an action."""
        begin = max(self.sensor_clock[0], *(images[0][0] for images in self.images.values()))
        first = next(i for i, t in enumerate(self.clock) if t >= begin)
        last = max(i for i in range(len(self.clock)) if self.row_ahead(i) is not None)
        return list(range(first, last + 1))

    def row_ahead(self, row: int) -> int | None:
        wanted = self.clock[row] + PERIOD_S
        nearest = min(range(len(self.clock)), key=lambda i: abs(self.clock[i] - wanted))
        return nearest if nearest > row and abs(self.clock[nearest] - wanted) <= TOLERANCE_S else None

    def action(self, row: int) -> list[float] | None:
        ahead = self.row_ahead(row) if row < len(self.clock) else None
        if ahead is None:
            return None
        deltas = [float(self.state[ahead][6 + i]) - float(self.state[row][6 + i]) for i in range(6)]
        deltas[3:] = [delta - 360 * round(delta / 360) for delta in deltas[3:]]
        return [*(float(np.float32(delta)) for delta in deltas), 1.0]

    def sample(self, row: int, *, state_rows: int, sensor_rows: int, action_rows: int, stride: int) -> dict[str, Any]:
        now = self.clock[row]
        state = [row - state_rows + 1 + k for k in range(state_rows)]
        newest = max(i for i, t in enumerate(self.sensor_clock) if t <= now)
        sensor = [newest - sensor_rows + 1 + k for k in range(sensor_rows)]
        actions = [self.action(row + stride * h) for h in range(action_rows)]
        sample: dict[str, Any] = {
            "observation.state": [self.state[max(i, 0)] for i in state],
            "observation.state_is_pad": [i < 0 for i in state],
            "observation.sensors.force": [self.force[max(i, 0)] for i in sensor],
            "observation.sensors.aline": [self.aline[max(i, 0)] for i in sensor],
            "observation.sensors.force_is_pad": [i < 0 for i in sensor],
            "action": [action or [0.0] * 7 for action in actions],
            "action_is_pad": [action is None for action in actions],
        }
        for camera, images in self.images.items():
            _, path = images[max(i for i, (t, _) in enumerate(images) if t <= now)]
            pixels = simplejpeg.decode_jpeg(path.read_bytes(), colorspace="RGB")
            sample[f"observation.images.{camera}"] = pixels.transpose(2, 0, 1)[None]
        return sample


def is_close(found: np.ndarray, expected: Any) -> bool:
    """Equal to the last bit; -0.0 counts as 0.0."""
    expected = np.asarray(expected)
    return found.shape == expected.shape and bool((found == expected).all()) and not math.isnan(float(np.sum(found)))

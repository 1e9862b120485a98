"""Builds tiny raw datasets by arguments, so that no test needs a binary fixture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

MECA_HEADER = (
    "recv_timestamp,origin_timestamp,send_timestamp,force_placeholder,"
    "joint_1,joint_2,joint_3,joint_4,joint_5,joint_6,pose_x,pose_y,pose_z,pose_a,pose_b,pose_r"
)
START_S = 1_740_416_404.0


def float32_text(value: float) -> str:
    """As the recorder prints: a float32 with up to 17 digits."""
    return repr(float(np.float32(value)))


def make_jpeg(seed: int, *, height: int = 24, width: int = 32) -> bytes:
    """A small JPEG whose content depends on ``seed``."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    jpeg: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)), quality=90)
    return jpeg


def make_episode(
    folder: Path,
    *,
    num_rows: int = 60,
    rate_hz: float = 100.0,
    seed: int = 0,
    cameras: tuple[str, ...] = ("View1", "View2"),
    num_images: int = 9,
    sensor: bool = True,
    instruction: str | None = "insert the needle",
    edit_rows: Callable[[list[list[str]]], None] | None = None,
) -> Path:
    """Write one ``meca500`` episode; ``edit_rows`` may change the CSV's cells before they are written."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    clock = START_S + seed * 1000 + np.arange(num_rows) / rate_hz + rng.uniform(0, 2e-4, num_rows)
    values = meca_values(num_rows, seed)
    rows = [
        [repr(t + 1e-3), repr(t), repr(t + 2e-4), "0.0", *map(float32_text, row)]
        for t, row in zip(clock.tolist(), values, strict=True)
    ]
    if edit_rows:
        edit_rows(rows)
    (folder / "robot_states.csv").write_text("\n".join([MECA_HEADER, *map(",".join, rows), ""]))
    span = num_rows / rate_hz
    for i, camera in enumerate(cameras):
        (folder / "images" / camera).mkdir(parents=True)
        for k in range(num_images):
            stamp = clock[0] + 1e-3 * (i + 1) + k * span / num_images
            (folder / "images" / camera / f"{stamp:.6f}.jpg").write_bytes(make_jpeg(seed * 1000 + i * 100 + k))
    if sensor:
        np.savez(folder / "sensor_data.npz", **sensor_arrays(clock[0], span, seed))
    if instruction is not None:
        metadata = {"robot_hz": 100, "sensor_hz": 650, "camera_views": list(cameras), "instruction": instruction}
        (folder / "metadata.json").write_text(json.dumps(metadata))
    return folder


def meca_values(num_rows: int, seed: int) -> NDArray[np.float32]:
    """Joints and pose ``(rows, 12)``; the last angle runs through +-180 degrees."""
    rng = np.random.default_rng(seed + 1)
    smooth = np.cumsum(rng.normal(0, 0.2, (num_rows, 12)), axis=0)
    smooth[:, 11] = (smooth[:, 11] + 179 + 180) % 360 - 180
    return smooth.astype(np.float32)


def sensor_arrays(start_s: float, span_s: float, seed: int) -> dict[str, NDArray[np.generic]]:
    """A 650 Hz sensor recording."""
    rng = np.random.default_rng(seed + 2)
    count = int(span_s * 650)
    stamps = start_s + np.arange(count) / 650
    return {
        "timestamps": stamps,
        "send_timestamps": stamps + 1e-4,
        "forces": rng.normal(0, 1, count).astype(np.float32),
        "alines": (rng.integers(0, 4096, (count, 1025)) / 4096).astype(np.float32),
    }


def make_dataset(root: Path, *, num_episodes: int = 4, num_rows: int = 60, rate_hz: float = 100.0) -> Path:
    """A raw ``meca500`` dataset of short episodes in two tasks."""
    for i in range(num_episodes):
        task = ("insert_red", "insert_blue")[i % 2]
        make_episode(
            root / task / f"episode_20260101_{i:06d}",
            num_rows=num_rows + 5 * i,
            rate_hz=rate_hz,
            seed=i,
            instruction=f"insert the needle into the {task.partition('_')[2]} target",
        )
    return root

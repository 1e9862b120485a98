"""Writes an episode's files as the lab's recorder does. The same recording always gives the same bytes."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.demo.episode import ROBOT_HZ, SENSOR_HZ, Recording

__all__ = ["COLUMNS", "write_episode", "write_npz"]

COLUMNS = (
    *("recv_timestamp", "origin_timestamp", "send_timestamp", "force_placeholder"),
    *(f"joint_{number}" for number in range(1, 7)),
    *(f"pose_{axis}" for axis in "xyzabr"),
)
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # np.savez would write the time of day


def write_episode(folder: Path, recording: Recording) -> None:
    """Write ``robot_states.csv``, ``sensor_data.npz``, images and metadata into ``folder``, which must be new."""
    folder.mkdir(parents=True)
    (folder / "robot_states.csv").write_text(_csv_text(recording), encoding="ascii", newline="")
    arrays: dict[str, NDArray[Any]] = {
        "timestamps": recording.sensor_s,
        "send_timestamps": recording.sensor_sent_s,
        "forces": recording.force_n,
        "alines": recording.aline,
    }
    write_npz(folder / "sensor_data.npz", arrays)
    for camera, frames in recording.images.items():
        images = folder / "images" / camera
        images.mkdir(parents=True)
        for stamp_s, jpeg in frames:
            (images / f"{stamp_s:.6f}.jpg").write_bytes(jpeg)
    metadata = {
        "robot_hz": ROBOT_HZ,
        "sensor_hz": SENSOR_HZ,
        "camera_views": sorted(recording.images),
        "instruction": recording.scene.instruction,
        "task": recording.scene.task,
    }
    (folder / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8", newline="")


def _csv_text(recording: Recording) -> str:
    """Return the CSV text. Numbers are printed as Python prints float64: float32 values get up to 17 digits."""
    values = np.concatenate([recording.joint_deg, recording.pose], axis=1)
    stamps = np.stack([recording.robot_received_s, recording.robot_s, recording.robot_sent_s], axis=1)
    lines = [",".join(COLUMNS)]
    for stamp, value in zip(stamps.tolist(), values.tolist(), strict=True):
        lines.append(",".join(map(repr, [*stamp, 0.0, *value])))
    return "\n".join(lines) + "\n"


def write_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays like ``np.savez``, but with a fixed date. Object arrays are pickled."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", ZIP_DATE)
            member.create_system = 3  # the default depends on the operating system
            member.external_attr = 0o600 << 16
            data = io.BytesIO()
            np.lib.format.write_array(data, np.asanyarray(array), allow_pickle=True)
            archive.writestr(member, data.getbuffer())

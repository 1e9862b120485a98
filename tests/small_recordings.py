"""Writes small recordings of an arm and a camera by arguments, and checks them with a dry run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from vlapipe.pipeline.ingest import IngestConfig, ingest

SCHEMA = """
schema_version = 1
name = "bench"
anchor = "robot"
[episodes]
folders = ["episode_*"]
task = "{parent}"
[streams.robot]
kind = "csv"
files = ["robot.csv"]
rate_hz = 30
[streams.robot.time]
column = "t"
[streams.robot.fields.joint_position]
columns = ["joint_{1..6}"]
unit = "rad"
[streams.robot.fields.gripper_width]
columns = ["gripper_width"]
unit = "m"
[streams.camera]
kind = "images"
files = ["images/{camera}/*.jpg"]
[streams.camera.time]
unit = "s"
[action]
kind = "absolute"
of = ["robot/joint_position"]
period_s = 0.1
tolerance_s = 0.02
"""
ROWS = 60
START_S = 1_790_000_000.0


def joints(seed: int, num_rows: int = ROWS) -> NDArray[np.float64]:
    """Six smooth joints and a gripper that opens late, ``(rows, 7)``."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(num_rows)[:, None] / 30
    hz, phase, reach = rng.uniform(0.2, 0.8, 6), rng.uniform(0, 6, 6), rng.uniform(0.4, 1.5, 6)
    gripper = np.where(time_s > num_rows / 40, 0.04, 0.0)
    return np.concatenate([reach * np.sin(2 * np.pi * hz * time_s + phase), gripper], axis=1).round(6)


def pictures(seed: int, count: int) -> NDArray[np.uint8]:
    """A fixed scene that is more blue than red, with one small thing that moves; RGB ``(count, 48, 64, 3)``."""
    scene = np.random.default_rng(0).integers(20, 90, (6, 8, 3))
    scene[..., 0] //= 2
    scene[..., 2] += 60
    images = np.repeat(scene.repeat(8, 0).repeat(8, 1)[None], count, axis=0).astype(np.uint8)
    for i in range(count):
        left = (seed * 7 + i * 3) % 56
        images[i, 20:28, left : left + 8] = (200, 200, 40 + (seed * 13 + i) % 100)
    return images


def write_episode(
    folder: Path,
    values: NDArray[np.float64],
    images: NDArray[np.uint8] | None = None,
    *,
    start_s: float = START_S,
    image_hz: float = 15.0,
    image_start_s: float = 0.0,
    quality: int = 90,
) -> Path:
    """Write one episode; by default without a camera."""
    folder.mkdir(parents=True)
    lines = ["t," + ",".join([*(f"joint_{i}" for i in range(1, 7)), "gripper_width"])]
    for i, row in enumerate(values.tolist()):
        lines.append(",".join([f"{start_s + i / 30:.6f}", *(f"{value:.6f}" for value in row)]))
    (folder / "robot.csv").write_text("\n".join([*lines, ""]))
    if images is not None:
        (folder / "images" / "front").mkdir(parents=True)
        for i, image in enumerate(images):
            jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality)
            stamp = start_s + image_start_s + i / image_hz
            (folder / "images" / "front" / f"{stamp:.6f}.jpg").write_bytes(jpeg)
    return folder


def write_dataset(
    root: Path,
    *,
    num_episodes: int = 5,
    edit: Callable[[int, NDArray[np.float64]], None] | None = None,
    film: Callable[[int, NDArray[np.uint8]], NDArray[np.uint8]] | None = None,
) -> Path:
    """Write episodes with a camera; ``edit`` may change an episode's values in place, and ``film`` its images."""
    for i in range(num_episodes):
        values, images = joints(i), pictures(i, ROWS // 2)
        if edit is not None:
            edit(i, values)
        write_episode(
            root / "task" / f"episode_{i:03d}",
            values,
            images if film is None else film(i, images),
            start_s=START_S + 100 * i,
        )
    return root


def findings_of(root: Path, schema: str = SCHEMA) -> list[dict[str, Any]]:
    """The findings of a dry run; the schema is written beside the dataset."""
    path = root.parent / "schema.toml"
    path.write_text(schema)
    report = ingest(IngestConfig(source=root, dry_run=True, schema=str(path), workers=1))
    return [*report.findings, *(reason for reject in report.rejects for reason in reject["reasons"])]


def ingested(root: Path, schema: str = SCHEMA, **options: Any) -> Path:
    """The dataset that ingest makes of it."""
    path = root.parent / "schema.toml"
    path.write_text(schema)
    out = root.parent / f"{root.name}-data"
    ingest(IngestConfig(source=root, out=out, schema=str(path), workers=1, **options))
    return out

"""Measures the cost of augmenting the demo's images while reading them. ``--picture FILE.jpg`` shows the effect.

One JSON line a case: microseconds of processor time for one image on one thread, and the ratio to plain reading. The
cases are measured in turns, and each figure is the median of the turns.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray

from vlapipe.pipeline.demo import make_demo
from vlapipe.train.data.images.augment import Augmentation
from vlapipe.train.data.images.camera_reader import ImageReader

SIZES = ((480, 640), (224, 224))
CASES = {
    "plain": None,
    "shift": Augmentation(brightness=0, contrast=0, saturation=0),
    "colour": Augmentation(shift=0),
    "shift, colour": Augmentation(),
    "shift, rotation": Augmentation(rotation_deg=5, brightness=0, contrast=0, saturation=0),
    "shift, rotation, colour": Augmentation(rotation_deg=5),
}
SHOWN = (240, 320)


def demo_jpegs(scratch: Path) -> list[NDArray[np.uint8]]:
    """Return 64 of the demo's images, 640x480, spread over all its cameras and tasks."""
    make_demo(scratch, num_episodes=4)
    files = sorted(scratch.rglob("*.jpg"))
    return [np.fromfile(file, dtype=np.uint8) for file in files[:: len(files) // 64][:64]]


def draws_of(augmentation: Augmentation | None, count: int) -> NDArray[np.float64] | None:
    frames = np.arange(count)
    return None if augmentation is None else augmentation.of(frames, seed=0)


def costs(jpegs: list[NDArray[np.uint8]], size: tuple[int, int], turns: int) -> Iterator[dict[str, Any]]:
    reader, out = ImageReader(size), np.empty((len(jpegs), *size, 3), dtype=np.uint8)
    draws = {case: draws_of(augmentation, len(jpegs)) for case, augmentation in CASES.items()}
    took: dict[str, list[float]] = {case: [] for case in CASES}
    for turn in range(turns + 1):
        for case in CASES:
            started = time.thread_time()
            reader.read(jpegs, out, draws[case])
            if turn:  # the first turn warms up
                took[case].append((time.thread_time() - started) / len(jpegs) * 1e6)
    for case, seconds in took.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, took["plain"], strict=True))
        yield {"case": case, "size": f"{size[1]}x{size[0]}", "us_an_image": statistics.median(seconds), "ratio": ratio}


def draw_picture(jpeg: NDArray[np.uint8], path: Path) -> None:
    """Write a picture with the original image at the top left and eight augmented samples of it."""
    out = np.empty((9, *SHOWN, 3), dtype=np.uint8)
    reader = ImageReader(SHOWN)
    reader.read([jpeg], out[:1])
    reader.read([jpeg] * 8, out[1:], draws_of(Augmentation(), 8))
    tiles = out.reshape(3, 3, *SHOWN, 3).swapaxes(1, 2).reshape(3 * SHOWN[0], 3 * SHOWN[1], 3)
    path.write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(tiles), quality=85, colorsubsampling="420"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    where = {"machine": f"{platform.machine()}, Python {platform.python_version()}", "commit": commit.stdout.strip()}
    with tempfile.TemporaryDirectory() as scratch:
        jpegs = demo_jpegs(Path(scratch))
    if arguments.picture:
        draw_picture(jpegs[0], arguments.picture)
        return
    for size in SIZES:
        for line in costs(jpegs, size, arguments.turns):
            rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()}
            print(json.dumps({"bench": "augment", **rounded, **where}), flush=True)


if __name__ == "__main__":
    main()

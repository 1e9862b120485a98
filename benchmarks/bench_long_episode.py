"""Ingests episodes of several GB of images, and measures the memory that it takes; one JSON line a case.

Each case is one episode whose images come from files, from an array of pixels in HDF5, from a video, or from a bag.
It is ingested twice, at one length and at twice that length. ``mb_a_gb`` compares the peaks of the two: the
megabytes of memory that a further gigabyte of stored images takes. Each ingest runs in a process of its own. Its peak
counts pages of mapped files too, which the system takes back as it needs memory.

``python benchmarks/bench_long_episode.py --out benchmarks/results/long_episode.jsonl``
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import simplejpeg
from bench_bags import write_bag
from bench_episodes import CAMERA, ROBOT
from machine import machine, rounded
from numpy.typing import NDArray

START, RATE = 1_790_000_000, 30
CAMERAS = {
    "files": CAMERA,
    "hdf5": '[streams.front]\nkind = "images"\nfiles = ["*.h5"]\narray = "front"\ntime = { array = "t" }\n',
    "video": f'[streams.camera]\nkind = "video"\nfiles = ["{{camera}}.mp4"]\ntime = {{ rate_hz = {RATE} }}\n',
    "bag": """[streams.left]
kind = "images"
files = ["bag/run/*.mcap"]
topic = "/left"
time = { array = "header.stamp" }
""",
}
CHILD = """
import json, re, sys, time
from pathlib import Path
from vlapipe.pipeline.ingest import IngestConfig, ingest
raw, out, schema = sys.argv[1:]
began = time.perf_counter()
report = ingest(IngestConfig(source=Path(raw), out=Path(out), schema=schema, workers=2))
took, peak = time.perf_counter() - began, re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())
assert report.num_episodes == 1, report
print(json.dumps([report.stored_bytes, took, int(peak[1]) * 1024]))
"""


def make_scenes(count: int) -> list[NDArray[np.uint8]]:
    """Make 640x480 images with the noise of a camera."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:480, :640]
    scene = (100 + 60 * np.sin(x / 90) + 40 * np.cos(y / 70))[..., None].repeat(3, axis=2)
    return [(scene + random.normal(0, 6, scene.shape) + i).clip(0, 255).astype(np.uint8) for i in range(count)]


def _files(folder: Path, frames: int, scenes: list[NDArray[np.uint8]]) -> None:
    jpegs = []
    (folder / "front").mkdir()
    for number, scene in enumerate(scenes):
        jpegs.append(folder.parent / f"{number}.jpg")
        jpegs[-1].write_bytes(simplejpeg.encode_jpeg(scene, quality=90))
    for i in range(frames):
        (folder / "front" / f"{START + i / RATE:.6f}.jpg").hardlink_to(jpegs[i % len(jpegs)])
    for jpeg in jpegs:
        jpeg.unlink()


def _hdf5(folder: Path, frames: int, scenes: list[NDArray[np.uint8]]) -> None:
    with h5py.File(folder / "cameras.h5", "w") as file:
        pixels = file.create_dataset("front", (frames, 480, 640, 3), np.uint8, chunks=(1, 480, 640, 3))
        for i in range(frames):
            pixels[i] = scenes[i % len(scenes)]
        file["t"] = START + np.arange(frames) / RATE


def _video(folder: Path, frames: int, scenes: list[NDArray[np.uint8]]) -> None:
    with av.open(str(folder / "front.mp4"), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuv420p"
        for i in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scenes[i % len(scenes)], format="rgb24")))
        container.mux(stream.encode(None))


def _bag(folder: Path, frames: int, _: list[NDArray[np.uint8]]) -> None:
    write_bag(folder / "bag", "mcap", "compressed", frames / RATE)


MAKERS: dict[str, tuple[Callable[[Path, int, list[NDArray[np.uint8]]], None], int]] = {
    "files": (_files, 20_000),
    "hdf5": (_hdf5, 1_500),
    "video": (_video, 8_000),
    "bag": (_bag, 8_000),
}


def make_raw(root: Path, case: str, frames: int, scenes: list[NDArray[np.uint8]]) -> None:
    """Write one episode."""
    folder = root / "task" / "episode_000000"
    folder.mkdir(parents=True)
    start = 1_700_000_000 if case == "bag" else 0 if case == "video" else START
    motion = np.random.default_rng(0).normal(0, 0.01, (frames, 3)).cumsum(axis=0)
    lines = [f"{start + i / RATE:.4f},{a:.5f},{b:.5f},{c:.5f}" for i, (a, b, c) in enumerate(motion.tolist())]
    (folder / "robot.csv").write_text("\n".join(["t,q0,q1,q2", *lines, ""]))
    MAKERS[case][0](folder, frames, scenes)


def run(raw: Path, out: Path, schema: Path) -> tuple[int, float, int]:
    """Ingest, and return the stored bytes, the seconds and the peak of memory in bytes."""
    command = [sys.executable, "-c", CHILD, str(raw), str(out), str(schema)]
    done = subprocess.run(command, env=dict(os.environ), stdout=subprocess.PIPE, text=True, check=True)
    stored, seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return stored, seconds, peak


def main() -> None:
    """Ingest each case at both lengths."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default=",".join(MAKERS))
    parser.add_argument("--share", type=float, default=1.0, help="of the frames")
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args()
    lines, scenes = [], make_scenes(100)
    for case in wanted.cases.split(","):
        peaks, stored = [], []
        for length in (1, 2):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                schema = folder / "long.toml"
                schema.write_text(ROBOT + CAMERAS[case])
                frames = int(length * wanted.share * MAKERS[case][1])
                make_raw(folder / "raw", case, frames, scenes)
                num_bytes, seconds, peak = run(folder / "raw", folder / "data", schema)
            peaks.append(peak)
            stored.append(num_bytes)
            sizes = {"stored_mb": num_bytes / 1e6, "seconds": seconds, "mb_per_s": num_bytes / 1e6 / seconds}
            lines.append({"case": case, "frames": frames, **sizes, "peak_mb": peak / 1e6})
        more = {"mb_a_gb": (peaks[1] - peaks[0]) / 1e6 / ((stored[1] - stored[0]) / 1e9)}
        lines.append({"case": f"{case}: twice the length", **more, **machine()})
    text = "".join(json.dumps({name: rounded(value) for name, value in each.items()}) + "\n" for each in lines)
    sys.stdout.write(text)
    if wanted.out:
        wanted.out.write_text(text)


if __name__ == "__main__":
    main()

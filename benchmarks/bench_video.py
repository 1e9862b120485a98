"""Measures how fast videos are ingested, against what decoding and JPEG encoding take alone on two cores.

One JSON line a case and coding:

- ``video``: reading one video into JPEG frames, hashing and checking included. Baseline: the time in which PyAV decodes
  it to RGB (its own threads, nothing else running), plus the time in which simplejpeg encodes those frames on two
  threads. ``ratio`` is the baseline's time divided by ours.
- ``command``: ``vlapipe ingest`` of several recordings with two videos each, in a fresh process, start-up included.
- ``part``: the last tenth of a long video, against decoding the whole.

Repeats are interleaved and medians compared. Input is in the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import simplejpeg
from machine import machine, rounded
from numpy.typing import NDArray

from vlapipe.pipeline.read.video.video import read_video
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream, TimeSpec

WIDTH, HEIGHT, RATE = 640, 480, 30
CODINGS = {
    "h264": ("libx264", "mp4", {"preset": "fast", "crf": "23"}),
    "hevc": ("libx265", "mkv", {"preset": "fast", "x265-params": "log-level=none"}),
    "av1": ("libsvtav1", "mp4", {"preset": "10", "g": "2"}),
}
STREAM = ImageStream(name="camera", files=("*",), kind="video", time=TimeSpec(integer=True))
SCHEMA = """
schema_version = 1
name = "bench"
anchor = "robot"
[episodes]
folders = ["episode_*"]
[streams.robot]
kind = "csv"
files = ["robot.csv"]
time = { rate_hz = 30 }
[streams.robot.fields.joint]
columns = ["j{1..6}"]
[streams.camera]
kind = "video"
files = ["{camera}.mp4"]
time = { rows_of = "robot" }
[action]
kind = "delta"
period_s = 0.1
of = ["robot/joint"]
"""


def picture(number: int) -> NDArray[np.uint8]:
    """A scene with soft shades, an arm that moves across, and a camera's noise."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    shade = 90 + 60 * np.sin((columns + number) / 90) + 40 * np.cos(rows / 70)
    image = np.stack([shade, shade * 0.9 + 10, shade * 0.7 + 30], axis=-1)
    left = 40 + (4 * number) % (WIDTH - 160)
    image[180:300, left : left + 90] = [200, 60, 40]
    return np.clip(image + rng.normal(0, 4, (HEIGHT, WIDTH, 1)), 0, 255).astype(np.uint8)


def make_video(path: Path, coding: str, num_frames: int, first: int = 0) -> None:
    codec, _, options = CODINGS[coding]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, width=WIDTH, height=HEIGHT, pix_fmt="yuv420p", options=options)
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(first + number), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def decode_alone(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "AUTO", 2
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]


def encode_alone(frames: list[NDArray[np.uint8]]) -> int:
    with ThreadPoolExecutor(2) as pool:
        return sum(
            pool.map(lambda frame: len(simplejpeg.encode_jpeg(frame, quality=95, colorsubsampling="420")), frames)
        )


def read(path: Path, times: tuple[float, float] | None = None) -> int:
    rows = read_video(path.parent, [path.name], STREAM, Findings(), times=times)
    assert rows is not None
    return rows.num_rows


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turns(repeats: int, *works: Callable[[], Any]) -> list[float]:
    """Returns the median seconds of each; each is run once before, to warm caches."""
    for work in works:
        work()
    taken = [[seconds(work) for work in works] for _ in range(repeats)]
    return [statistics.median(each) for each in zip(*taken, strict=True)]


def cases(scratch: Path, num_frames: int, repeats: int) -> Iterator[dict[str, Any]]:
    for coding, (_, ending, _) in CODINGS.items():
        path = scratch / f"{coding}.{ending}"
        make_video(path, coding, num_frames)
        frames = decode_alone(path)
        ours, decoding, encoding = in_turns(
            repeats,
            lambda path=path: read(path),
            lambda path=path: decode_alone(path),
            lambda frames=frames: encode_alone(frames),
        )
        yield {
            "case": "video",
            "coding": coding,
            "frames_per_s": len(frames) / ours,
            "decode_s": decoding,
            "encode_s": encoding,
            "ours_s": ours,
            "ratio": (decoding + encoding) / ours,
            "target": 0.8,
        }
    path = scratch / "h264.mp4"
    part = (0.9 * num_frames / RATE, num_frames / RATE)
    ours, whole = in_turns(repeats, lambda: read(path, part), lambda: decode_alone(path))
    yield {
        "case": "part",
        "coding": "h264",
        "ours_s": ours,
        "whole_decode_s": whole,
        "ratio": whole / ours,
        "target": 1.0,
    }
    yield command(scratch, num_frames, repeats)


def command(scratch: Path, num_frames: int, repeats: int) -> dict[str, Any]:
    """The whole command on four recordings."""
    raw, schema = scratch / "raw", scratch / "bench.toml"
    schema.write_text(SCHEMA)
    videos = []
    for number in range(4):
        folder = raw / "task" / f"episode_{number}"
        folder.mkdir(parents=True)
        values = np.cumsum(np.random.default_rng(number).normal(0, 0.01, (num_frames, 6)), axis=0)
        rows = "\n".join(",".join(f"{v:.5f}" for v in row) for row in values)
        (folder / "robot.csv").write_text(f"j1,j2,j3,j4,j5,j6\n{rows}\n")
        for camera in ("front", "wrist"):
            videos.append(folder / f"{camera}.mp4")
            make_video(videos[-1], "h264", num_frames, first=97 * number)
    runs = iter(range(1000))

    def ingest() -> None:
        out = str(scratch / f"out-{next(runs)}")
        line = [sys.executable, "-m", "vlapipe", "ingest", "--dataset", str(raw), "--schema", str(schema), "--out", out]
        subprocess.run(line, check=True, capture_output=True)

    def alone() -> None:
        for video in videos:
            encode_alone(decode_alone(video))

    ours, theirs = in_turns(repeats, ingest, alone)
    line = {
        "case": "command",
        "coding": "h264",
        "ours_s": ours,
        "alone_s": theirs,
        "ratio": theirs / ours,
        "target": 0.8,
    }
    return {**line, "frames_per_s": len(videos) * num_frames / ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--frames", type=int, default=600, help="of each video")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    made_on = {**machine(), "load_before": round(os.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory(prefix="bench-video-") as folder:
        for line in cases(Path(folder), options.frames, options.repeats):
            line = {key: rounded(value) for key, value in line.items()}
            print(json.dumps({"bench": "video", **line, "met": line["ratio"] >= line["target"], **made_on}), flush=True)


if __name__ == "__main__":
    main()

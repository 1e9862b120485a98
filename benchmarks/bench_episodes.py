"""Ingests 5,000 and 50,000 tiny episodes: MB/s, and the memory that an episode takes; one JSON line a case.

Each episode is a folder with a table of 40 rows and four small images, which lie in the page cache. Each ingest runs in
a process of its own. ``kb_an_episode`` compares the peaks of the two, so it has nothing of what an ingest of any size
needs. The last line has the ratio of the speeds.

``python benchmarks/bench_episodes.py --out benchmarks/results/episodes.jsonl``
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from machine import machine, rounded

ROBOT = """
name = "tiny"
anchor = "robot"
[episodes]
folders = ["episode_*"]
[streams.robot]
kind = "csv"
files = ["robot.csv"]
time = { column = "t" }
fields = { q = { columns = ["q0", "q1", "q2"] } }
[action]
kind = "next"
of = ["robot/q"]
[sample]
state = ["robot/q"]
"""
CAMERA = """
[streams.camera]
kind = "images"
files = ["{camera}/*.jpg"]
[streams.camera.time]
"""
CHILD = """
import json, re, sys, time
from pathlib import Path
from vlapipe.pipeline.ingest import IngestConfig, ingest
raw, out, schema = sys.argv[1:]
began, busy = time.perf_counter(), time.process_time()
report = ingest(IngestConfig(source=Path(raw), out=Path(out), schema=schema, workers=2))
took, peak = time.perf_counter() - began, re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())
print(json.dumps([report.num_episodes, report.raw_bytes, took, time.process_time() - busy, int(peak[1]) * 1024]))
"""
ROWS, IMAGES = 40, 2


def make_raw(root: Path, episodes: int) -> None:
    """Write episodes that differ in every value and image."""
    random = np.random.default_rng(0)
    for number in range(episodes):
        folder = root / f"task_{number % 20:02d}" / f"episode_{number:06d}"
        start = 1_790_000_000 + 10 * number
        motion = np.cumsum(random.normal(0, 0.01, (ROWS, 3)), axis=0)
        lines = [f"{start + i / 50:.4f},{a:.5f},{b:.5f},{c:.5f}" for i, (a, b, c) in enumerate(motion.tolist())]
        for camera in ("left", "right"):
            (folder / camera).mkdir(parents=True)
            for image in range(IMAGES):
                pixels = random.integers(0, 255, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
                jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90)
                (folder / camera / f"{start + image * 0.3 + 0.01:.6f}.jpg").write_bytes(jpeg)
        (folder / "robot.csv").write_text("\n".join(["t,q0,q1,q2", *lines, ""]))


def run(raw: Path, out: Path, schema: Path) -> dict[str, Any]:
    """Ingest, and return what it took."""
    command = [sys.executable, "-c", CHILD, str(raw), str(out), str(schema)]
    done = subprocess.run(command, env=dict(os.environ), stdout=subprocess.PIPE, text=True, check=True)
    episodes, raw_bytes, seconds, busy_s, peak = json.loads(done.stdout.splitlines()[-1])
    speeds = {"mb_per_s": raw_bytes / 1e6 / seconds, "mb_per_cpu_s": raw_bytes / 1e6 / busy_s}
    return {"episodes": episodes, "seconds": seconds, "cpu_s": busy_s, **speeds, "peak_mb": peak / 1e6}


def main() -> None:
    """Ingest both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, nargs=2, default=[5000, 50_000])
    parser.add_argument("--out", type=Path)
    wanted = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        schema = Path(folder) / "tiny.toml"
        schema.write_text(ROBOT + CAMERA)
        for count in wanted.episodes:
            raw = Path(folder) / f"raw_{count}"
            make_raw(raw, count)
            lines.append({"case": f"{count} tiny episodes", **run(raw, Path(folder) / f"data_{count}", schema)})
    few, many = lines
    more = many["episodes"] - few["episodes"]
    ratio = {"speed": many["mb_per_s"] / few["mb_per_s"], "speed_cpu": many["mb_per_cpu_s"] / few["mb_per_cpu_s"]}
    kb = (many["peak_mb"] - few["peak_mb"]) * 1e3 / more
    lines.append({"case": "many beside few", **ratio, "kb_an_episode": kb, "target": 0.8, **machine()})
    text = "".join(json.dumps({name: rounded(value) for name, value in each.items()}) + "\n" for each in lines)
    sys.stdout.write(text)
    if wanted.out:
        wanted.out.write_text(text)


if __name__ == "__main__":
    main()

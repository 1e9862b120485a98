"""Measures how fast a LeRobot v3 dataset with videos is ingested, against the time in which LeRobot writes it.

One JSON line a coding (``libsvtav1``, LeRobot's default, and ``h264``). Baseline: LeRobot's own writer, given frames
that are in memory, with four threads a camera for images as its recording script has them. Ours: ``vlapipe ingest
--schema lerobot`` of what LeRobot has just written, in a fresh process, start-up included. ``ratio`` is LeRobot's time
divided by ours; the target is 3. Repeats are interleaved and medians compared; both run on the same cores.

LeRobot runs under a Python of its own: ``--python``. Without LeRobot there, one line says so.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine, rounded

TARGET = 3.0
CODINGS = ("libsvtav1", "h264")
WRITER = """
import json, sys, time
import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
root, coding, episodes, rows, width, height = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
cameras = ("front", "wrist")
names = ["height", "width", "channels"]
vector = {"dtype": "float32", "shape": (6,), "names": [f"joint_{i}" for i in range(6)]}
features = {"observation.state": vector, "action": vector}
camera = {"dtype": "video", "shape": (height, width, 3), "names": names}
features |= {f"observation.images.{name}": camera for name in cameras}
y, x = np.mgrid[:height, :width]
grain = np.random.default_rng(0).integers(0, 12, (height, width, 3))
def frame(number, camera):
    ramp = (x // 3 + y // 2 + 2 * number) % 180
    image = (np.stack([ramp, ramp[::-1], np.full_like(ramp, 60 + camera * 40)], -1) + grain).astype(np.uint8)
    left = (7 * number) % (width - 60)
    image[height // 3 : height // 3 + 60, left : left + 60] = [220, 40, 30]
    return image
images = [[frame(i, c) for i in range(rows)] for c in range(len(cameras))]
started = time.perf_counter()
dataset = LeRobotDataset.create(
    "bench/bench", 30, features, root=root, vcodec=coding, image_writer_threads=4 * len(cameras)
)
for episode in range(episodes):
    for row in range(rows):
        values = np.sin(np.arange(6, dtype=np.float32) + row / 30 + episode)
        pictures = {f"observation.images.{name}": images[c][row] for c, name in enumerate(cameras)}
        dataset.add_frame({"observation.state": values, "action": values, "task": "move the square", **pictures})
    dataset.save_episode()
dataset.finalize()
print(json.dumps({"seconds": time.perf_counter() - started}))
"""


def cpu_s() -> float:
    """Seconds of processors that the processes started so far have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="a Python that has LeRobot 0.4 or newer")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--rows", type=int, default=150, help="of an episode")
    parser.add_argument("--size", default="640x480", help="of an image, width x height")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2, help="that both may use")
    options = parser.parse_args()
    made_on = machine()
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "SVT_LOG": "1"}
    without_ours = {key: value for key, value in quiet.items() if key != "PYTHONPATH"}
    probe = [options.python, "-c", "import lerobot; print(lerobot.__version__)"]
    found = subprocess.run(probe, capture_output=True, text=True, check=False, env=without_ours)
    if found.returncode:
        skipped = f"no LeRobot in {Path(options.python).name}: give --python"
        print(json.dumps({"bench": "lerobot", "skipped": skipped, **made_on}))
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    size = options.size.split("x")
    for coding in CODINGS:
        theirs, ours, stored = [], [], 0
        cpu = {
            "lerobot": 0.0,
            "ingest": 0.0,
        }  # seconds of processors in the last repeat: a busy machine changes them little
        for _ in range(options.repeats):
            with tempfile.TemporaryDirectory() as scratch:
                root, out = Path(scratch) / "lerobot", Path(scratch) / "out"
                arguments = [str(root), coding, str(options.episodes), str(options.rows), *size]
                before = cpu_s()
                written = subprocess.run(
                    [options.python, "-c", WRITER, *arguments],
                    capture_output=True,
                    text=True,
                    check=True,
                    env=without_ours,
                )
                cpu["lerobot"] = cpu_s() - before
                theirs.append(json.loads(written.stdout.splitlines()[-1])["seconds"])
                command = [sys.executable, "-m", "vlapipe", "ingest", "--dataset", str(root), "--schema", "lerobot"]
                before, started = cpu_s(), time.perf_counter()
                subprocess.run([*command, "--out", str(out)], capture_output=True, check=True, env=quiet)
                ours.append(time.perf_counter() - started)
                cpu["ingest"] = cpu_s() - before
                stored = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
                shutil.rmtree(out)
        their_s, our_s = statistics.median(theirs), statistics.median(ours)
        frames = 2 * options.episodes * options.rows
        line = {
            "coding": coding,
            "frames": frames,
            "size": options.size,
            "lerobot": found.stdout.strip(),
            "lerobot_write_s": their_s,
            "ingest_s": our_s,
            "lerobot_cpu_s": cpu["lerobot"],
            "ingest_cpu_s": cpu["ingest"],
            "ingest_frames_per_s": frames / our_s,
            "stored_mb": stored / 1e6,
            "cores": options.cores,
            "ratio": their_s / our_s,
        }
        verdict = {"target": TARGET, "reached": their_s / our_s >= TARGET}
        print(
            json.dumps({"bench": "lerobot", **{k: rounded(v) for k, v in line.items()}, **verdict, **made_on}),
            flush=True,
        )


if __name__ == "__main__":
    main()

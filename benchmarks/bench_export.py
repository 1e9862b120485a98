"""Measures exports against LeRobot's own writer, which is fed with decoded frames from memory.

One JSON line a case: LeRobot with images, h264 and av1, and HDF5 (which has no baseline here). ``episodes_per_s`` and
``frames_per_s`` are of the whole export with its checks, ``warm`` (the shards are unpacked already). ``ratio`` is how
many times as fast it is as LeRobot's writer; its reading and decoding are not counted, ours are.

Set VLAPIPE_LEROBOT_PYTHON to the Python of an environment with LeRobot for the baseline.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine, rounded

import vlapipe
from vlapipe.pipeline.demo import make_demo
from vlapipe.pipeline.export.plan import ExportPlan
from vlapipe.pipeline.export.sample_rows import sample_of
from vlapipe.pipeline.ingest import IngestConfig, ingest

CASES = {"images": ("lerobot", None), "h264": ("lerobot", "h264"), "av1": ("lerobot", "av1"), "hdf5": ("hdf5", None)}


def main() -> None:
    """Run the cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), options)


def run(root: Path, options: argparse.Namespace) -> None:
    """Make a dataset and export it in each way."""
    make_demo(root / "raw", num_episodes=options.episodes, seed=0)
    ingest(IngestConfig(source=root / "raw", out=root / "data"))
    vlapipe.export(root / "data", root / "warm", fps=options.fps)
    python = os.environ.get("VLAPIPE_LEROBOT_PYTHON")
    if python is not None:
        dump(root / "data", root / "frames", options.fps)
    for case in options.cases:
        to, video = CASES[case]
        ours, baseline = float("inf"), float("inf")
        for _ in range(options.repeat):
            out = root / ("out.hdf5" if to == "hdf5" else "out")
            started = time.perf_counter()
            report = vlapipe.export(root / "data", out, to=to, fps=options.fps, video=video, workers=options.workers)
            ours = min(ours, time.perf_counter() - started)
            remove(out)
            if python is not None and to == "lerobot":
                baseline = min(baseline, by_lerobot(python, root / "frames", root / "theirs", options.fps, case))
                remove(root / "theirs")
        result = {
            "bench": "export",
            "case": case,
            "workers": options.workers,
            "episodes": report.episodes,
            "frames": report.tally.frames,
            "cameras": len(report.tally.changes) - 1,
            "bytes": report.num_bytes,
            "seconds": ours,
            "episodes_per_s": report.episodes / ours,
            "frames_per_s": report.tally.frames / ours,
            "psnr_db": {camera: round(loss.psnr_db, 1) for camera, loss in report.tally.losses.items()},
            "lerobot_seconds": baseline if baseline < float("inf") else None,
            "ratio": baseline / ours if baseline < float("inf") else None,
            **machine(),
        }
        print(json.dumps({name: rounded(value) for name, value in result.items()}), flush=True)


def dump(data: Path, folder: Path, fps: int) -> None:
    """Write the frames of each episode as arrays, for the baseline."""
    folder.mkdir()
    dataset = vlapipe.open_dataset(data)
    episodes = list(range(len(dataset)))
    sample = sample_of(dataset, None, episodes)
    plan = ExportPlan(dataset=dataset, episodes=episodes, sample=sample, out=folder, fps=fps, video=None, workers=1)
    for i in episodes:
        episode = plan.read(i)
        images = {
            f"images/{camera}": np.stack([own.pixels(row) for row in episode.frames.rows[camera].tolist()])
            for camera, own in episode.cameras.items()
        }
        path = folder / f"{i:06d}.npz"
        np.savez(path, state=episode.state, action=episode.action, task=np.array(episode.tasks[0]), **images)


def by_lerobot(python: str, frames: Path, out: Path, fps: int, kind: str) -> float:
    """Seconds that LeRobot's own writer takes."""
    script = Path(__file__).with_name("export_by_lerobot.py")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    command = [python, str(script), str(frames), str(out), str(fps), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout.split()[-1])


def remove(path: Path) -> None:
    """Remove a file or folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


if __name__ == "__main__":
    main()

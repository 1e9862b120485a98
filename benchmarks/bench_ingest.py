"""Measures how fast ingest is on clean recordings, each figure against a baseline measured in the same run.

One JSON line a case, with a ratio that should reach its target:

- ``command``: ``vlapipe ingest`` in a fresh process, start-up included. Baseline: the original converter's method,
  where pandas reads each CSV, and the states are then saved twice with ``savez_compressed``.
- ``work``: reading, checking, compressing, writing and reading back, without start-up. Baseline: pyarrow parses the
  same bytes, already in memory, with the same options and as many threads as there are workers.
- ``small``: the whole command on 20 small episodes. Baseline: 3 seconds.
- ``images``: the whole command on camera frames. Baseline: ``cp -r`` of the same folder.

Repeats are interleaved and medians compared, so that a busy machine slows both sides alike. Input is in the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import simplejpeg

REPEATS = 3
ROWS = 3000  # rows of an episode: 30 s at 100 Hz
IMAGES_A_CSV_ROW = 0.3  # two cameras at 15 Hz
JOINTS = [f"joint_{i}" for i in range(1, 7)]
POSE = ["pose_x", "pose_y", "pose_z", "pose_a", "pose_b", "pose_r"]
SCHEMA = """
schema_version = 1
name = "meca500_alone"
anchor = "robot"
[episodes]
folders = ["episode_*"]
task = "{parent}"
[instruction]
template = "{task_words}"
[streams.robot]
kind = "csv"
files = ["robot_states.csv"]
rate_hz = 100
drop = ["recv_timestamp", "send_timestamp", "force_placeholder"]
[streams.robot.time]
column = "origin_timestamp"
unit = "s"
[streams.robot.fields.joint_position]
columns = ["joint_{1..6}"]
unit = "deg"
range = [-360, 360]
[streams.robot.fields.tcp_pose]
columns = ["pose_x", "pose_y", "pose_z", "pose_a", "pose_b", "pose_r"]
unit = ["mm", "mm", "mm", "deg", "deg", "deg"]
period = [0, 0, 0, 360, 360, 360]
range = [-2000, 2000]
[action]
kind = "delta"
of = ["robot/tcp_pose"]
period_s = 0.1
tolerance_s = 0.02
append = { gripper = 1.0 }
[sample]
state = ["robot/joint_position", "robot/tcp_pose"]
state_rows = 100
action_rows = 8
action_stride = 10
"""
CAMERA = """
[streams.camera]
kind = "images"
files = ["images/{camera}/*.jpg"]
[streams.camera.time]
unit = "s"
"""
ORIGINAL = """
import sys
from pathlib import Path
import numpy as np
import pandas as pd
raw, out = map(Path, sys.argv[1:])
out.mkdir()
for i, path in enumerate(sorted(raw.rglob("*.csv"))):
    table = pd.read_csv(path)
    states = table.iloc[:, 4:].to_numpy(np.float32)
    np.savez_compressed(out / f"{i}_state.npz", states)
    np.savez_compressed(out / f"{i}.npz", states=states, timestamps=table["origin_timestamp"].to_numpy())
"""


def write_csv(path: Path, number: int, rows: int) -> None:
    """Write a CSV of smooth motion with noise of 0.001 degrees or mm. Float32 values are printed as float64."""
    rng = np.random.default_rng(number)
    time_s = np.arange(rows) * 0.01
    stamps = 1.7e9 + 1000.0 * number + time_s + rng.normal(0, 2e-4, rows)
    phase, hz, reach = rng.uniform(0, 6, (2, 12)), rng.uniform(0.02, 0.2, (2, 12)), rng.uniform(2, 25, (2, 12))
    states = sum(r * np.sin(2 * np.pi * f * time_s[:, None] + p) for p, f, r in zip(phase, hz, reach, strict=True))
    states = (states + rng.normal(0, 1e-3, states.shape)).astype(np.float32).astype(np.float64)
    columns = [stamps + 0.001, stamps, stamps + 0.002, np.zeros(rows), *states.T]
    names = ["recv_timestamp", "origin_timestamp", "send_timestamp", "force_placeholder", *JOINTS, *POSE]
    with path.open("wb") as file:
        file.write(",".join(names).encode() + b"\n")
        pa_csv.write_csv(pa.table(columns, names=names), file, pa_csv.WriteOptions(include_header=False))


def make_episodes(
    root: Path, *, num_bytes: int = 0, least: int = 1, rows: int = ROWS, images: list[bytes] | None = None
) -> None:
    """Write episodes until they have ``num_bytes`` in all and there are ``least`` of them."""
    made = number = 0
    while made < num_bytes or number < least:
        folder = root / f"task_{number % 4}" / f"episode_20260101_{number:06d}"
        folder.mkdir(parents=True)
        write_csv(folder / "robot_states.csv", number, rows)
        made += (folder / "robot_states.csv").stat().st_size
        for camera in ("front", "side") if images else ():
            (folder / "images" / camera).mkdir(parents=True)
            for i in range(int(rows * IMAGES_A_CSV_ROW / 2)):
                data = images[(number + i) % len(images)] if images else b""
                (folder / "images" / camera / f"{1.7e9 + 1000 * number + i / 15:.6f}.jpg").write_bytes(data)
                made += len(data)
        number += 1


def make_jpegs() -> list[bytes]:
    """Make 640x480 frames of a gradient with camera noise, about 70 KB each."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:480, :640]
    scene = np.stack([x / 3 + y / 5, x / 2, y / 2], axis=-1) % 256
    noisy = [np.clip(np.roll(scene, 10 * i, 1) + rng.normal(0, 6, scene.shape), 0, 255) for i in range(16)]
    return [simplejpeg.encode_jpeg(np.ascontiguousarray(image, dtype=np.uint8), 85) for image in noisy]


def command(raw: Path, schema: Path, out: Path, shard_format: str, workers: int) -> list[str]:
    options = ["--format", shard_format, "--workers", str(workers)]
    where = ["--dataset", str(raw), "--schema", str(schema), "--out", str(out)]
    return [sys.executable, "-m", "vlapipe", "ingest", *where, *options]


def seconds(work: Callable[[], object], *results: Path) -> float:
    """Time one run. Earlier ``results`` are removed and pending disk writes are flushed before the clock starts."""
    for result in results:
        shutil.rmtree(result, ignore_errors=True)
    os.sync()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def run(arguments: list[str]) -> None:
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def warm(root: Path) -> None:
    """Bring every file into the page cache."""
    for path in root.rglob("*"):
        if path.is_file():
            path.read_bytes()


def stored(out: Path) -> dict[str, int]:
    manifest = json.loads((out / "manifest.json").read_text())
    images = sum(a["bytes"] for s in manifest["shards"] for n, a in s["arrays"].items() if n.endswith("/bytes"))
    total = manifest["totals"]["shard_bytes"]
    return {"stored_bytes": total, "stored_without_jpeg_bytes": total - images}


def compare(
    ours: dict[tuple[str, int], Callable[[], float]], baselines: dict[int, Callable[[], float]]
) -> Iterator[tuple[str, int, float, float]]:
    """Measure everything in turns. Yields format, workers, and the medians of ours and of the baseline."""
    times: dict[Any, list[float]] = {}
    for _ in range(REPEATS):
        for key, measure in [*baselines.items(), *ours.items()]:
            times.setdefault(key, []).append(measure())
    for shard_format, workers in ours:
        base = times[workers if workers in baselines else 0]
        yield shard_format, workers, statistics.median(times[shard_format, workers]), statistics.median(base)


def bench_command(scratch: Path, raw: Path, schema: Path, baseline: list[str]) -> Iterator[dict[str, Any]]:
    """Compare the whole command with a ``baseline`` command, which takes the output folder as its last argument."""
    theirs, num_bytes = scratch / "theirs", sum(p.stat().st_size for p in raw.rglob("*") if p.is_file())
    csv_bytes = sum(p.stat().st_size for p in raw.rglob("*.csv"))
    outs = {(f, w): scratch / f"{f}-{w}" for f in ("zarr", "npz") for w in (1, 2)}

    def ours(key: tuple[str, int]) -> Callable[[], float]:
        return lambda: seconds(lambda: run(command(raw, schema, outs[key], *key)), outs[key])

    warm(raw)
    against = {0: lambda: seconds(lambda: run([*baseline, str(theirs)]), theirs)}
    for shard_format, workers, took, base in compare({key: ours(key) for key in outs}, against):
        size = stored(outs[shard_format, workers])
        share = size["stored_without_jpeg_bytes"] / csv_bytes
        figures = {"seconds": took, "baseline_seconds": base, "ratio": base / took, "mb_s": num_bytes / took / 1e6}
        yield {
            "format": shard_format,
            "workers": workers,
            **figures,
            **size,
            "csv_share": share,
            "raw_bytes": num_bytes,
        }
    for folder in (theirs, *outs.values()):
        shutil.rmtree(folder, ignore_errors=True)


def bench_small(scratch: Path, schema: Path) -> Iterator[dict[str, Any]]:
    raw, out = scratch / "small", scratch / "small-out"
    make_episodes(raw, least=20, rows=300)
    for shard_format in ("zarr", "npz"):
        plain = command(raw, schema, out, shard_format, 1)[:-2]  # the number of workers is left to the command
        took = statistics.median(seconds(lambda plain=plain: run(plain), out) for _ in range(REPEATS))
        yield {"format": shard_format, "episodes": 20, "seconds": took, "ratio": 3 / took}


def bench_work(scratch: Path, raw: Path, schema: Path) -> Iterator[dict[str, Any]]:
    """Compare ingest with parsing, both in this process, where all modules are imported already."""
    from vlapipe.pipeline.ingest import IngestConfig, ingest

    out = scratch / "work"
    texts = [path.read_bytes() for path in sorted(raw.rglob("*.csv"))]
    options = parser_options(raw)

    def parse(text: bytes) -> None:
        start = text.index(b"\n") + 1
        pa_csv.read_csv(pa.BufferReader(pa.py_buffer(text).slice(start)), **options)

    def parse_all(workers: int) -> float:
        with ThreadPoolExecutor(workers) as pool:
            return seconds(lambda: list(pool.map(parse, texts)))

    def ours(shard_format: str, workers: int) -> float:
        config = IngestConfig(source=raw, out=out, schema=str(schema), shard_format=shard_format, workers=workers)
        return seconds(lambda: ingest(config), out)

    keys = [(f, w) for f in ("zarr", "npz") for w in (1, 2)]
    num_bytes = sum(map(len, texts))
    measures = {key: (lambda key=key: ours(*key)) for key in keys}
    for shard_format, workers, took, base in compare(measures, {w: (lambda w=w: parse_all(w)) for w in (1, 2)}):
        figures = {"seconds": took, "baseline_seconds": base, "ratio": base / took, "mb_s": num_bytes / took / 1e6}
        yield {"format": shard_format, "workers": workers, **figures, "raw_bytes": num_bytes}
    shutil.rmtree(out)


def parser_options(raw: Path) -> dict[str, Any]:
    """Return the options that our reader passes to pyarrow, caught by replacing its CSV module."""
    from vlapipe.pipeline.read.csv import rows as csv_rows
    from vlapipe.pipeline.read.csv.table import read_csv_stream
    from vlapipe.schemas.findings import Findings
    from vlapipe.schemas.parse import parse_schema

    caught: dict[str, Any] = {}

    class Catching:
        def __getattr__(self, name: str) -> Any:
            return getattr(pa_csv, name)

        def read_csv(self, source: Any, **options: Any) -> pa.Table:
            caught.update(options)
            return pa_csv.read_csv(source, **options)

    stream: Any = parse_schema(SCHEMA, "bench").stream("robot")
    csv_rows.pa_csv = Catching()
    try:
        read_csv_stream(next(raw.rglob("*.csv")), "", stream, Findings())
    finally:
        csv_rows.pa_csv = pa_csv
    return caught


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--csv-mb", type=int, default=1000, help="of CSV-only episodes")
    parser.add_argument("--images-mb", type=int, default=1500, help="of episodes with two cameras")
    parser.add_argument("--small", action="store_true", help="a few MB, to see that it runs")
    parser.add_argument("--cases", default="command,work,small,images", help="which, with commas between")
    parser.add_argument("--scratch", type=Path, help="a folder on the disk to measure; default: the temporary folder's")
    options = parser.parse_args()
    if options.small:
        globals()["REPEATS"] = 1
        options.csv_mb, options.images_mb = 3, 3
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    others = round(os.getloadavg()[0], 1)  # before we begin: how busy the cores are with other work
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    made_on = {"machine": machine, "load_before": others, "commit": commit.stdout.strip()}
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="bench-ingest-") as folder:
        scratch = Path(folder)
        for case, target, line in cases(scratch, options):
            rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()}
            verdict = {"target": target, "met": line["ratio"] >= target}
            print(json.dumps({"bench": "ingest", "case": case, **rounded, **verdict, **made_on}), flush=True)


def cases(scratch: Path, options: argparse.Namespace) -> Iterator[tuple[str, float, dict[str, Any]]]:
    """Yield each case's lines with the ratio that they should reach."""
    wanted = set(options.cases.split(","))
    schema, with_images = scratch / "alone.toml", scratch / "images.toml"
    schema.write_text(SCHEMA)
    with_images.write_text(SCHEMA.replace("[action]", f"{CAMERA}[action]"))
    raw = scratch / "raw"
    if wanted & {"command", "work"}:
        make_episodes(raw, num_bytes=options.csv_mb * 1_000_000)
    if "command" in wanted:
        original = [sys.executable, "-c", ORIGINAL, str(raw)]
        yield from (("command", 5.0, line) for line in bench_command(scratch, raw, schema, original))
    if "work" in wanted:
        yield from (("work", 0.8, line) for line in bench_work(scratch, raw, schema))
    shutil.rmtree(raw, ignore_errors=True)
    if "small" in wanted:
        yield from (("small", 1.0, line) for line in bench_small(scratch, schema))
    if "images" in wanted:
        make_episodes(raw, num_bytes=options.images_mb * 1_000_000, images=make_jpegs())
        copy = ["cp", "-r", str(raw)]
        yield from (("images", 0.8, line) for line in bench_command(scratch, raw, with_images, copy))


if __name__ == "__main__":
    main()

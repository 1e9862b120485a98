"""Measures ratio and speed of the codecs that a shard may use, on the demo's arrays. Baseline: ``savez_compressed``.

One JSON line a case: array, codec, raw float32 bytes over encoded bytes, MB/s of raw bytes to encode and decode, and
the ratios to the baseline (deflate) measured in the same run. Best of three, one thread.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

from vlapipe.pipeline.demo import make_demo
from vlapipe.pipeline.read.csv.table import read_csv_stream
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.registry import load_schema
from vlapipe.schemas.schema import CsvStream

Codec = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]
REPEATS = 3


def deflate(level: int) -> Codec:
    return lambda data: zlib.compress(data, level), zlib.decompress


def blosc(name: str, level: int, shuffle: int) -> Codec:
    codec = Blosc(name, level, shuffle)
    return (lambda data: bytes(codec.encode(np.frombuffer(data, np.float32)))), (lambda data: bytes(codec.decode(data)))


def pcodec(level: int) -> Codec:
    from numcodecs import PCodec

    codec = PCodec(level=level)
    return (lambda data: bytes(codec.encode(np.frombuffer(data, np.float32)))), (lambda data: bytes(codec.decode(data)))


CODECS: dict[str, Callable[[], Codec]] = {
    "deflate:6": lambda: deflate(6),
    "deflate:1": lambda: deflate(1),
    "lz4:5": lambda: blosc("lz4", 5, Blosc.SHUFFLE),
    "zstd:1": lambda: blosc("zstd", 1, Blosc.SHUFFLE),
    "zstd:3": lambda: blosc("zstd", 3, Blosc.SHUFFLE),
    "zstd:5": lambda: blosc("zstd", 5, Blosc.SHUFFLE),
    "pcodec:4": lambda: pcodec(4),
    "pcodec:8": lambda: pcodec(8),
}


def demo_arrays() -> dict[str, list[bytes]]:
    """Return buffers of bytes as a shard stores them: the robot's fields by column, A-lines by row."""
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw"
        make_demo(raw, num_episodes=4)
        episodes = sorted(path.parent for path in raw.rglob("robot_states.csv"))
        robot = load_schema("meca500").stream("robot")
        assert isinstance(robot, CsvStream)
        columns: list[list[NDArray[Any]]] = []
        for episode in episodes:
            rows = read_csv_stream(episode / "robot_states.csv", "", robot, Findings())
            assert rows is not None
            columns.append([column for field in rows.fields.values() for column in field.T])
        alines = [np.load(episode / "sensor_data.npz")["alines"] for episode in episodes]
    return {
        "robot, a column at a time": [np.concatenate(parts).tobytes() for parts in zip(*columns, strict=True)],
        "sensor/aline, 8 MiB of rows": [
            part.tobytes() for array in alines for part in np.array_split(array, max(1, array.nbytes >> 23))
        ],
    }


def best_seconds(work: Callable[[bytes], bytes], runs: list[bytes]) -> tuple[list[bytes], float]:
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        result = [work(run) for run in runs]
        best = min(best, time.perf_counter() - started)
    return result, best


def main() -> None:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    for array, runs in demo_arrays().items():
        raw_bytes = sum(map(len, runs))
        baseline: dict[str, float] = {}
        for name, make in CODECS.items():
            try:
                encode, decode = make()
            except ImportError:
                sys.stderr.write(f"{name}: not installed, left out\n")
                continue
            encoded, encode_s = best_seconds(encode, runs)
            decoded, decode_s = best_seconds(decode, encoded)
            assert decoded == runs, name
            figures = {
                "ratio": raw_bytes / sum(map(len, encoded)),
                "encode_mb_s": raw_bytes / encode_s / 1e6,
                "decode_mb_s": raw_bytes / decode_s / 1e6,
            }
            baseline = baseline or figures
            against = {f"{key}_vs_deflate": value / baseline[key] for key, value in figures.items()}
            line = {"bench": "codecs", "array": array, "codec": name, **figures, **against}
            rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()}
            print(json.dumps({**rounded, "machine": machine, "commit": commit.stdout.strip()}), flush=True)


if __name__ == "__main__":
    main()

"""Writes the binary files of the corpus: those of which a ``facts.toml`` says ``made = "<function>"``, and images."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from factories import make_jpeg

__all__ = [
    "arrays_alone",
    "blank_lines",
    "float32_stamps",
    "float32_stamps_with_a_pause",
    "images",
    "table_and_metadata_in_a_zip",
    "table_yaml_and_text_in_a_zip",
    "windows_of_arrays",
]


def images(
    root: Path, *, name: str, first: int = 0, count: int, step: float = 1, height: int = 24, width: int = 32
) -> None:
    """Write ``count`` JPEG files; ``{n}`` in a name is ``first + step * i``, ``{i}`` is i."""
    for i in range(count):
        number = first + step * i
        path = root / name.format(n=int(number) if float(number).is_integer() else number, i=i, t=number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_jpeg(i, height=height, width=width))


def float32_stamps(root: Path, *, pause_s: float = 0.0) -> None:
    """Two Parquet files with LeRobot's columns. The rows come at 20 Hz; ``pause_s`` stands between two of them."""
    for episode in range(2):
        rows = np.arange(60)
        arms = np.c_[np.sin(rows / 9 + episode), np.cos(rows / 7), rows / 60].astype(np.float32)
        columns = {
            "observation.state": pa.FixedSizeListArray.from_arrays(arms.ravel(), 3),
            "action": pa.FixedSizeListArray.from_arrays((arms + 0.05).ravel(), 3),
            "timestamp": (rows / 20 + pause_s * (rows > 30)).astype(np.float32),
            "frame_index": rows,
            "episode_index": np.full(60, episode),
        }
        pq.write_table(pa.table(columns), root / f"file-{episode:03}.parquet")


def float32_stamps_with_a_pause(root: Path) -> None:
    """The same, with stamps that no rate tells."""
    float32_stamps(root, pause_s=0.7)


def arrays_alone(root: Path) -> None:
    """A folder of NPY files: the clock, and an array beside it."""
    t = np.arange(200) * 0.01
    root.joinpath("ep").mkdir()
    np.save(root / "ep" / "t.npy", t)
    np.save(root / "ep" / "value.npy", np.c_[np.sin(t), np.cos(t), t])


def windows_of_arrays(root: Path) -> None:
    """NPY files of two recordings, with a clock in nanoseconds."""
    for k in range(2):
        folder = root / f"take_{k}"
        folder.mkdir()
        stamps = 1_650_000_000_000_000_000 + 5_000_000 * np.arange(150) + k * 10**12
        np.save(folder / "stamps_ns.npy", stamps)
        np.save(folder / "wrench.npy", np.random.default_rng(k).normal(0, 2, (150, 6)))
        np.save(folder / "joint_states.npy", np.cumsum(np.random.default_rng(k + 9).normal(0, 0.01, (150, 7)), axis=0))


def leader_and_end_effector(root: Path) -> None:
    """An NPZ of a leader's joints, a follower's, and where the follower's flange is: no gripper."""
    rng = np.random.default_rng(5)
    leader = np.cumsum(rng.normal(0, 0.01, (90, 7)), axis=0)
    follower = np.roll(leader, 2, axis=0)
    follower[:2] = leader[0]
    flange = np.cumsum(rng.normal(0, 0.01, (90, 7)), axis=0)
    arrays = {"leader_joint_angles": leader, "follower_joint_angles": follower, "follower_end_effector": flange}
    np.savez(root / "pour.npz", stamps=3.5 + np.arange(90) / 30, **arrays)


def table_and_metadata_in_a_zip(root: Path) -> None:
    """As Mecademic's own recorder packs it: a table, and a JSON that says what recorded it."""
    with zipfile.ZipFile(root / "log.zip", "w") as archive:
        archive.writestr("log.json", json.dumps({"robot": "Meca500", "monitoring_interval": "0.001"}))
        rows = "".join(f"{676541379000 + 1000 * i},{190 + i / 1000}\n" for i in range(50))
        archive.writestr("log_output_df.csv", "timestamp,CartPos_X\n" + rows)


def table_yaml_and_text_in_a_zip(root: Path) -> None:
    """A lab's own archive: a table, how the robot was set up, and a word for the reader."""
    with zipfile.ZipFile(root / "take_01.zip", "w") as archive:
        archive.writestr("config.yaml", "robot: xarm6\nrate: 100\n")
        archive.writestr("README.txt", "Recorded on the second bench.\n")
        rows = "".join(f"{i / 100:.2f},{np.sin(i / 20):.5f},{np.cos(i / 15):.5f}\n" for i in range(80))
        archive.writestr("states.csv", "t,q1,q2\n" + rows)


def blank_lines(root: Path) -> None:
    """240 kB of blank lines that end with a carriage return, and a small table below them."""
    (root / "log.csv").write_bytes(b"\r" * 240_000 + b"x,y\n1,2\n3,4\n")


def udacity_images(root: Path) -> None:
    """The images that the simulator's log names."""
    for line in (root / "driving_log.csv").read_text(encoding="utf-8").splitlines():
        for name in line.split(",")[:3]:
            images(root, name=name.strip(), count=1)

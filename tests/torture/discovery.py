"""Finds and plans the episodes of a simulated year of recordings; prints what the process that plans needs.

``python tests/torture/discovery.py --episodes 100000 --images 998 --limits``

No file is there: the script answers as the file system would when a folder is listed. All else is what ``ingest`` does
until the first recording is read. Each episode is a folder with a table, an NPZ and the images of two cameras. With
``--flat`` it is a table in a folder of all tables, with its images in folders beside it. With ``--limits`` the script
fails if the peak is over 500 MB or an episode takes over 2 kB.
"""

from __future__ import annotations

import argparse
import re
import stat
import sys
import tempfile
import time
from pathlib import Path

from vlapipe.pipeline.build.made_from import MadeFrom
from vlapipe.pipeline.discover import listing
from vlapipe.pipeline.discover.discovery import discover
from vlapipe.pipeline.plan.plan import make_plan
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.registry import load_schema
from vlapipe.schemas.schema import Schema

PER_TASK = 1000
LIMIT_MB, LIMIT_BYTES = 500, 2000
FLAT = """
name = "flat"
anchor = "robot"
[episodes]
per_file = true
[streams.robot]
kind = "csv"
files = ["*.csv"]
time = { column = "t" }
fields = { x = { columns = ["x"] } }
[streams.camera]
kind = "images"
files = ["{stem}/{camera}/*.jpg"]
[streams.camera.time]
[action]
kind = "next"
of = ["robot/x"]
[sample]
state = ["robot/x"]
"""


class Entry:
    """One entry of a simulated folder."""

    __slots__ = ("_is_folder", "name", "path", "seed")

    def __init__(self, folder: str, name: str, seed: int, *, is_folder: bool = False) -> None:
        self.name, self.path, self.seed, self._is_folder = name, f"{folder}/{name}", seed, is_folder

    def is_dir(self) -> bool:
        return self._is_folder

    def is_file(self) -> bool:
        return not self._is_folder

    def is_symlink(self) -> bool:
        return False

    def stat(self) -> Status:
        return Status(self.seed)


class Status:
    """What the system says of a simulated file."""

    __slots__ = ("st_mtime_ns", "st_size")
    st_mode = stat.S_IFREG

    def __init__(self, seed: int) -> None:
        self.st_size = 20_000 + seed * 7919 % 10_007
        self.st_mtime_ns = 1_790_000_000_000_000_000 + seed * 33_333_333


class Year:
    """A folder of recordings that is not there. ``num_files`` counts the files that were listed."""

    def __init__(self, root: Path, episodes: int, images: int, *, flat: bool) -> None:
        self.root, self.episodes, self.images, self.flat = root, episodes, images, flat
        self.num_files = 0

    def entries(self, folder: Path) -> list[Entry]:
        """Return what a folder holds."""
        parts, place = folder.relative_to(self.root).parts, str(folder)
        numbers = range(self.episodes)
        if parts and parts[-1].startswith("View"):
            found = [Entry(place, f"{1790000000 + i / 30:.6f}.jpg", i) for i in range(self.images // 2)]
        elif (parts and parts[-1] == "images") or (len(parts) == 1 and self.flat):
            return [Entry(place, f"View{i}", 0, is_folder=True) for i in (1, 2)]
        elif self.flat:
            self.num_files += self.episodes
            folders = [Entry(place, f"run_{i:07d}", i, is_folder=True) for i in numbers]
            return [Entry(place, f"run_{i:07d}.csv", i) for i in numbers] + folders
        elif not parts:
            return [Entry(place, f"task_{i:04d}", i, is_folder=True) for i in range(-(-self.episodes // PER_TASK))]
        elif len(parts) == 1:
            of_task = numbers[int(parts[0][5:]) * PER_TASK :][:PER_TASK]
            return [Entry(place, f"episode_{i:07d}", i, is_folder=True) for i in of_task]
        else:
            found = [Entry(place, name, 1) for name in ("robot_states.csv", "sensor_data.npz")]
            self.num_files += len(found)
            return [*found, Entry(place, "images", 0, is_folder=True)]
        self.num_files += len(found)
        return found


def peak_mb() -> float:
    """Return the largest resident memory of this process so far, in MB (1e6 bytes)."""
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024 / 1e6


def plan_year(root: Path, schema: Schema, year: Year) -> tuple[float, float]:
    """Find and plan all episodes. Print each step's time and memory; return the peak in MB and the bytes an episode."""
    listing._entries = year.entries  # type: ignore[assignment]
    before, began = peak_mb(), time.process_time()

    def say(step: str, done: str) -> None:
        took = time.process_time() - began
        sys.stdout.write(f"{step:>10}: {done}, {peak_mb():,.0f} MB, {took:,.0f} s of the processor\n")
        sys.stdout.flush()

    found = discover(root, schema)
    say("found", f"{len(found.episodes):,} episodes, {year.num_files:,} files listed")
    made_from = MadeFrom.of(found, schema, {})
    say("described", f"{len(made_from.episodes):,} digests")
    plan = make_plan(found, schema, shard_bytes=256_000_000, options={})
    say("planned", f"{len(plan.shards):,} shards")
    assert sum(len(shard.episodes) for shard in plan.shards) == year.episodes
    return peak_mb(), (peak_mb() - before) * 1e6 / year.episodes


def main() -> None:
    """Plan a year."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=998, help="of both cameras of an episode")
    parser.add_argument("--flat", action="store_true")
    parser.add_argument("--limits", action="store_true")
    wanted = parser.parse_args()
    schema = parse_schema(FLAT, "flat") if wanted.flat else load_schema("meca500")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        peak, of_episode = plan_year(root, schema, Year(root, wanted.episodes, wanted.images, flat=wanted.flat))
    sys.stdout.write(f"peak {peak:,.0f} MB; {of_episode:,.0f} bytes an episode\n")
    if wanted.limits and (peak > LIMIT_MB or of_episode > LIMIT_BYTES):
        sys.exit(f"over {LIMIT_MB} MB, or over {LIMIT_BYTES} bytes an episode")


if __name__ == "__main__":
    main()

"""Each damage of a dataset is found with its shard and episodes; a repair makes exactly the damaged files again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("damage.py")
SRC = Path(__file__).parents[2] / "src"


@pytest.mark.parametrize(
    ("flips", "others", "shards", "damaged"),
    [(100, 50, 12, 4), pytest.param(10_000, 2_000, 500, 50, marks=pytest.mark.slow)],
    ids=["short", "long"],
)
def test_every_damage_is_found_and_exactly_the_damaged_files_are_made_again(
    flips: int, others: int, shards: int, damaged: int
) -> None:
    numbers = {"flips": flips, "others": others, "shards": shards, "damaged": damaged, "seed": 1}
    command = [sys.executable, str(SCRIPT), *(f"--{name}={number}" for name, number in numbers.items())]
    done = subprocess.run(command, env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{flips} altered, {flips} found" in done.stdout
    assert f"{others} found" in done.stdout
    assert all(kind in done.stdout for kind in ("truncated", "missing", "swapped", "stale", "unlisted"))
    assert f"{damaged} of {shards + 7} files repaired from the recordings" in done.stdout
    assert f"{shards + 7} of {shards + 7} files repaired from a copy" in done.stdout

"""Saves under torture: kills and flipped bits, hundreds of them in the slow suite; and a disk that is really full."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

from launching import environment, options, run_ranks

from vlapipe.train.checkpoint.files import FOLDER, all_checkpoints
from vlapipe.train.checkpoint.saved_policy import load_policy

SCRIPT = Path(__file__).with_name("saves.py")


@pytest.mark.parametrize(
    ("kills", "flips"),
    [pytest.param(6, 40, marks=pytest.mark.slow), pytest.param(200, 1000, marks=pytest.mark.slow)],
    ids=["short", "long"],
)
def test_kills_leave_only_whole_checkpoints_and_every_flipped_bit_is_found(kills: int, flips: int) -> None:
    command = [sys.executable, str(SCRIPT), f"--kills={kills}", f"--flips={flips}", "--seed=1"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{kills} kills, 0 damaged checkpoints" in done.stdout
    assert f"{flips} flips" in done.stdout
    inside = re.search(r"(\d+) kills inside a write", done.stdout)
    assert inside
    assert int(inside[1]) > kills / 5  # else it is no torture


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2.8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2800k", "tmpfs", str(disk)]
    try:
        failed = os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0
    except FileNotFoundError:
        failed = True
    if failed:
        pytest.skip("a small disk needs the right to mount one")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize("async_save", [pytest.param(False, marks=pytest.mark.slow), True])
def test_full_disk_in_a_save_stops_the_run_and_with_more_space_it_goes_on(
    tiny_dataset: Path, small_disk: Path, async_save: bool
) -> None:
    out = small_disk / "run"
    policy = {"policy": "tiny_policy:WatchesSaves", "policy_args": {"ballast_mb": 1}}
    values = options(tiny_dataset, out, save_every=2, max_steps=40, async_save=async_save, **policy)
    [rank] = run_ranks(values, num_ranks=1)
    assert rank.code == 5, rank
    cure = "free some space there; the same command then goes on with --resume"
    assert rank.err.splitlines()[-1] == f"vlapipe: {out}: the disk is full ({cure})"
    assert set((out / FOLDER).iterdir()) == set(all_checkpoints(out))
    assert int(load_policy(out).num_batches) == 4  # type: ignore[arg-type]
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    [rank] = run_ranks(values | {"resume": True}, num_ranks=1)
    assert rank.code == 0, rank
    assert int(load_policy(out).num_batches) == 40  # type: ignore[arg-type]

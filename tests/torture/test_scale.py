"""A dataset of a million episodes grows, opens and is looked at within the time and memory that are promised."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("scale.py")
SRC = Path(__file__).parents[2] / "src"


@pytest.mark.slow
@pytest.mark.parametrize("shards", [500, 40_000], ids=["20 thousand", "a million"])
def test_simulated_dataset_grows_and_is_looked_at(shards: int) -> None:
    limits = ["--limits"] if shards > 1000 else []
    command = [sys.executable, str(SCRIPT), f"--shards={shards}", *limits]
    done = subprocess.run(command, env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{25 * shards + 20} episodes, {shards + 2} shards, 3 generations" in done.stdout

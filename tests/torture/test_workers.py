"""A killed worker changes nothing; an episode that kills workers is set aside, and the others are kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("workers.py")
SRC = Path(__file__).parents[2] / "src"


def torture(**numbers: int) -> str:
    command = [sys.executable, str(SCRIPT), *(f"--{name}={number}" for name, number in numbers.items())]
    done = subprocess.run(command, env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("kills", "episodes"), [(2, 60), pytest.param(50, 200, marks=pytest.mark.slow)])
def test_run_in_which_a_worker_is_killed_makes_the_same_tree(kills: int, episodes: int) -> None:
    said = torture(kills=kills, episodes=episodes, harmful=0, seed=kills)
    assert f"{kills} runs with a worker killed" in said
    assert "0 trees differ" in said


@pytest.mark.slow
def test_episodes_that_kill_workers_are_set_aside_alone() -> None:
    assert "197 of 200 episodes kept" in torture(kills=0, episodes=200)

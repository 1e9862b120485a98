"""A run that is interrupted at random steps makes the losses of an undisturbed one, bit by bit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from launching import environment

SCRIPT = Path(__file__).with_name("interruptions.py")


@pytest.mark.parametrize(
    "interruptions",
    [pytest.param(2, marks=pytest.mark.slow), pytest.param(50, marks=pytest.mark.slow)],
    ids=["short", "long"],
)
def test_interrupted_runs_have_the_losses_of_an_undisturbed_one(tiny_dataset: Path, interruptions: int) -> None:
    command = [sys.executable, str(SCRIPT), f"--data={tiny_dataset}", f"--interruptions={interruptions}", "--seed=3"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("0 lines that differ") == 2

"""A simulated year of recordings is found and planned within the memory that is promised."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("discovery.py")
SRC = Path(__file__).parents[2] / "src"


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(["--episodes=100000", "--images=998"], id="100 million files"),
        pytest.param(["--episodes=200000", "--images=10"], id="many small episodes"),
        pytest.param(["--episodes=20000", "--images=100", "--flat"], id="a folder of tables"),
    ],
)
def test_simulated_year_is_planned_in_little_memory(sizes: list[str]) -> None:
    command = [sys.executable, str(SCRIPT), "--limits", *sizes]
    done = subprocess.run(command, env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bytes an episode" in done.stdout

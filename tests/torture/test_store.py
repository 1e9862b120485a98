"""Requests that fail, killed commands and appends at the same time leave in a store what they leave on a disk."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="needs moto (pip install 'moto[s3]' flask flask-cors)")
pytest.importorskip("obstore", reason="needs obstore (pip install '.[store]')")

SCRIPT = Path(__file__).with_name("store.py")
SRC = Path(__file__).parents[2] / "src"


def torture(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *options]
    return subprocess.run(command, env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=False)


@pytest.mark.slow  # tests/pipeline/stores lets some requests fail in the fast suite
def test_request_that_fails_costs_a_retry_or_ends_the_command_and_the_same_command_finishes() -> None:
    done = torture("--kills=0", "--processes=0", "--seed=1")
    assert done.returncode == 0, done.stdout + done.stderr
    for what in ("ingest", "append", "edit", "read", "verify", "repair"):
        assert re.search(rf"^{what}: \d+ requests, ", done.stdout, re.M)


@pytest.mark.parametrize("kills", ["3", pytest.param("60", marks=pytest.mark.slow)], ids=["short", "long"])
def test_killed_commands_are_finished_by_any_machine(kills: str) -> None:
    done = torture("--sample=0", f"--kills={kills}", "--processes=0", "--seed=2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("0 lost, 0 left over, 0 differ") == 3


@pytest.mark.parametrize(
    ("processes", "appends", "opens"),
    [(3, 2, 5), pytest.param(8, 25, 300, marks=pytest.mark.slow)],
    ids=["short", "long"],
)
def test_appends_of_several_machines_are_all_there(processes: int, appends: int, opens: int) -> None:
    done = torture("--sample=0", "--kills=0", f"--processes={processes}", f"--appends={appends}", f"--opens={opens}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{processes * appends} episodes, 0 lost, 0 twice" in done.stdout


@pytest.mark.slow
def test_without_the_conditional_put_the_script_fails() -> None:
    done = torture("--sample=0", "--kills=0", "--processes=6", "--appends=5", "--without-conditional-put")
    assert done.returncode != 0

"""Killed commands lose and leave nothing, whatever they change; of appends at once none is lost."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("generations.py")
SRC = Path(__file__).parents[2] / "src"


def torture(*options: str, **numbers: int) -> subprocess.CompletedProcess[str]:
    named = [f"--{name.replace('_', '-')}={number}" for name, number in numbers.items()]
    command = [sys.executable, str(SCRIPT), *named, *options]
    return subprocess.run(command, env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("kills", "kills_a_step"), [(7, 0), pytest.param(200, 20, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_killed_commands_leave_one_generation_or_the_next_and_nothing_else(kills: int, kills_a_step: int) -> None:
    done = torture(kills=kills, kills_a_step=kills_a_step, processes=0, seed=1)
    assert done.returncode == 0, done.stderr
    nothing = "0 twice, 0 torn, 0 left over, 0 lost, 0 differ, 0 faults"
    for what in ("ingest", "append", "edit", "merge", "compact", "gc", "repair"):
        assert re.search(rf"^{what}: {-(-kills // 7)} killed, .*{nothing}$", done.stdout, re.M)
    steps = re.findall(rf"^\w+ at [\w.]+: {kills_a_step} killed, {nothing}$", done.stdout, re.M)
    assert done.stdout.count(" at ") == len(steps) > 40


@pytest.mark.parametrize(
    ("processes", "appends", "opens", "compactions"),
    [(3, 2, 20, 2), pytest.param(8, 25, 1000, 25, marks=pytest.mark.slow)],
    ids=["short", "long"],
)
def test_appends_at_the_same_time_are_all_there(processes: int, appends: int, opens: int, compactions: int) -> None:
    numbers = {"processes": processes, "appends": appends, "opens": opens, "compactions": compactions}
    done = torture(kills=0, kills_a_step=0, **numbers)
    assert done.returncode == 0, done.stderr
    assert f"{processes * appends} episodes, 0 lost, 0 twice, {processes * appends + 1} generations" in done.stdout
    assert done.stdout.count(f" compactions: {processes * appends} episodes, 0 lost, 0 twice") == 2
    assert done.stdout.count("0 partial views, 0 faults") == 2
    merged = f"{processes} merges at once: {2 * processes} episodes, 0 lost, 0 twice, {processes + 1} generations"
    assert f"{merged}, 0 faults" in done.stdout


@pytest.mark.slow
def test_without_the_exclusive_create_the_script_fails() -> None:
    done = torture("--without-exclusive-create", kills=0, kills_a_step=0, processes=6, appends=6, opens=50)
    assert done.returncode != 0

"""Each failing call ends the command in one line and exit code 5; nothing is damaged, and the same command finishes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from failing_calls import can_fail_calls

SCRIPT = Path(__file__).with_name("faults.py")
SRC = Path(__file__).parents[2] / "src"


@pytest.mark.skipif(bool(can_fail_calls()), reason=can_fail_calls() or "calls can be made to fail")
@pytest.mark.parametrize("sample", [1, pytest.param(None, marks=pytest.mark.slow)], ids=["short", "every call"])
def test_call_that_fails_ends_the_command_in_one_line_and_the_same_command_finishes(sample: int | None) -> None:
    options = ["--seed=1", *([f"--sample={sample}"] if sample else ["--jobs=2"])]
    command = [sys.executable, str(SCRIPT), *options]
    done = subprocess.run(command, env={"PYTHONPATH": str(SRC)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for what in ("ingest", "append", "edit", "merge", "compact", "gc", "repair"):
        assert re.search(rf"^{what}: \d+ calls, 5 errors: [1-9]\d* stopped, .* 0 wrong$", done.stdout, re.M)

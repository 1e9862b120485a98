"""If W&B dies, hangs or fails to start, this is reported once, every step is made, and the command ends."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launching import environment, options
from test_loop import SMALL, lines

MAIN = """
import json, sys, train_main
from vlapipe.train.report import wandb_run
wandb_run._CLOSE_S = 2.0
train_main.main()
"""


def run_with_wandb(data: Path, out: Path, number: int) -> tuple[int, str]:
    """Exit code and stderr, by way of files: a helper that hangs would keep pipes open."""
    policy = {"policy": "policies_under_test:HurtsWandb", "policy_args": SMALL | {"signal_number": number}}
    values = options(data, out, wandb="offline", save_every=3, eval_every=99, **policy)
    command = [sys.executable, "-c", MAIN, json.dumps(values)]
    paths = [out.with_name(name) for name in ("stdout", "stderr")]
    with paths[0].open("w") as stdout, paths[1].open("w") as stderr:
        try:
            done = subprocess.run(command, env=environment(), stdout=stdout, stderr=stderr, timeout=60, check=False)
        finally:
            with contextlib.suppress(ProcessLookupError, IndexError):  # one that hangs would outlive the test
                os.kill(int(paths[0].read_text().splitlines()[0]), signal.SIGKILL)
    return done.returncode, paths[1].read_text()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the helper process in /proc")
@pytest.mark.parametrize(
    ("number", "why"), [(signal.SIGKILL, r"\w+Error"), (signal.SIGSTOP, "it does not finish within 2 s")]
)
def test_helper_process_that_dies_or_hangs_does_not_stop_training(
    tiny_dataset: Path, tmp_path: Path, number: int, why: str
) -> None:
    pytest.importorskip("wandb")
    code, errors = run_with_wandb(tiny_dataset, tmp_path / "run", number)
    assert code == 0, errors
    assert [line["step"] for line in lines(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]
    assert errors.count("training goes on, and metrics.jsonl has all metrics") == 1
    assert re.search(f"^wandb: {why}.*; training goes on", errors, re.MULTILINE), errors
    assert "Traceback" not in errors

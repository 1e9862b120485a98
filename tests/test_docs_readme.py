"""README.md shows what the commands print, and its code runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vlapipe.pipeline.demo.dataset import make_demo
from vlapipe.pipeline.demo.defects import DEFECTS, KEPT_DEFECTS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def run(*command: object, cwd: Path = ROOT) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_the_readme_shows_is_what_its_commands_print() -> None:
    pytest.importorskip("torch")
    run("docs/check_readme.py")


def test_number_of_planted_faults_is_the_demos() -> None:
    assert f"plants {len(DEFECTS)} such faults" in README
    assert f"and {len(KEPT_DEFECTS)} that keep their episode" in README


def test_rates_in_the_readme_are_the_demos(tmp_path: Path) -> None:
    make_demo(tmp_path / "raw", num_episodes=1)
    run("-m", "vlapipe", "ingest", "--dataset", tmp_path / "raw", "--out", tmp_path / "data")
    streams: dict[str, Any] = json.loads(run("-m", "vlapipe", "inspect", tmp_path / "data", "--json"))["streams"]
    for file, stream in (("robot_states.csv", "robot"), ("sensor_data.npz", "sensor"), ("images/View1/*.jpg", "View1")):
        (rate_hz,) = re.findall(rf"^  {re.escape(file)} +(\d+) Hz", README, re.MULTILINE)
        assert streams[stream]["rate_hz"] == pytest.approx(int(rate_hz), rel=0.05)


def test_python_code_of_the_readme_runs_and_gives_the_shapes_it_says(tiny_dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "data").symlink_to(tiny_dataset)
    options = ("--max-steps", 1, "--batch-size", 2, "--wandb", "disabled")
    run("-m", "vlapipe", "train", "--data", "data", "--out", "run", *options, cwd=tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    shown = """
print(dataset.episode(0)["robot/joint_position"].shape[1:])
print(tuple(vlapipe.load_policy("run/").act(next(iter(vlapipe.Loader(dataset, batch_size=64)))).shape))
"""
    shapes = run("-c", code + shown, cwd=tmp_path).splitlines()
    assert shapes == ["(6,)", "(64, 8, 7)"]
    assert "(rows, 6) float32" in code
    assert "(64, 8, 7)" in code

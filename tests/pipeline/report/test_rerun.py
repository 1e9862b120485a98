"""An episode in Rerun: each column, action and image of it arrives. Needs rerun-sdk."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from report_lab import hostile_dataset

import vlapipe
from vlapipe.pipeline.report.rerun_view import show_in_rerun

pytest.importorskip("rerun", reason="needs rerun-sdk (pip install '.[rerun]')")


def rows_of(recording: Path) -> dict[str, int]:
    """How many rows each entity of a recording has, as Rerun's own program reads it."""
    command = [sys.executable, "-m", "rerun", "rrd", "print", str(recording)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "WARN" not in said.stderr
    rows: dict[str, int] = {}
    for count, entity in re.findall(r"^Chunk\(\w+\) with ([\d,]+) rows .*? - (/.*) - data columns", said.stdout, re.M):
        rows[entity] = rows.get(entity, 0) + int(count.replace(",", ""))
    return rows


def test_each_column_action_and_image_of_an_episode_arrives(tiny_dataset: Path, tmp_path: Path) -> None:
    dataset = vlapipe.open_dataset(tiny_dataset)
    show_in_rerun(dataset, 1, tmp_path / "episode.rrd")
    rows, row = rows_of(tmp_path / "episode.rrd"), dataset.row(1)
    assert rows["/robot/joint_position/joint_1"] == row["robot/rows"]
    assert rows["/robot/tcp_pose/pose_r"] == row["robot/rows"]
    assert rows["/sensor/force/forces"] == row["sensor/rows"]
    assert rows["/instruction"] == 1
    assert 0 < rows["/action/gripper"] <= row["robot/rows"]
    for camera in dataset.manifest.cameras:
        assert rows[f"/cameras/{camera}"] == row[f"{camera}/rows"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a screen")
def test_without_a_screen_one_line_says_so(tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    command = [sys.executable, "-m", "vlapipe", "inspect", str(tiny_dataset), "--episode", "0", "--rerun"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert re.search("--rerun: Rerun cannot show the episode: .*needs a screen", done.stderr)


def test_hostile_names_are_names(tmp_path: Path) -> None:
    dataset = vlapipe.open_dataset(hostile_dataset(tmp_path))
    for index in range(len(dataset)):
        show_in_rerun(dataset, index, tmp_path / f"{index}.rrd")
    assert rows_of(tmp_path / "0.rrd")["/robot/joint_position/joint_1"] == 40

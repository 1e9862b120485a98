"""Old names are accepted for one release, with one warning that states the new name."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import vlapipe
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.renamed import RenamedWarning
from vlapipe.schemas.schema import ImageStream

NEW = """
anchor = "robot"
[streams.robot]
kind = "csv"
files = ["log.csv"]
[streams.robot.time]
column = "t"
unit = "s"
[streams.robot.fields.q]
columns = ["q"]
[streams.eyes]
kind = "images"
files = ["{camera}/*.jpg"]
cameras = ["left", "right"]
time = { file = "{camera}/times.txt", unit = "s" }
[checks.severity]
"image.extra_camera" = "off"
[action]
kind = "next"
of = ["robot/q"]
"""
OLD = NEW.replace("{camera}", "{view}").replace("cameras =", "views =").replace("extra_camera", "extra_view")


def test_old_names_of_a_schema_mean_what_the_new_ones_do() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = parse_schema(NEW, "x.toml")
    with pytest.warns(RenamedWarning) as told:
        old = parse_schema(OLD, "x.toml")
    assert (old.streams, old.checks) == (new.streams, new.checks)
    (eyes,) = (stream for stream in old.streams if isinstance(stream, ImageStream))
    assert eyes.cameras == ("left", "right")
    said = "\n".join(str(one.message) for one in told)
    for name in ("views is now called cameras", "{view} is now called {camera}", "image.extra_camera"):
        assert name in said


def test_schema_that_is_stored_with_a_dataset_is_read_silently() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse_schema(OLD, "x.toml", is_stored=True)


def test_command_says_it_in_one_line_without_python(tmp_path: Path) -> None:
    (tmp_path / "old.toml").write_text(OLD)
    (tmp_path / "raw").mkdir()
    command = [sys.executable, "-m", "vlapipe", "ingest", "--dataset", "raw", "--dry-run", "--schema", "old.toml"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if "is now called" in line]
    assert len(lines) == 3
    assert all(line.startswith("vlapipe: schema old.toml: ") for line in lines)
    assert "Warning" not in done.stderr


def test_dataset_has_its_cameras_under_the_old_name_too(tiny_dataset: Path) -> None:
    dataset = vlapipe.open_dataset(tiny_dataset)
    with pytest.warns(RenamedWarning, match="views is now called cameras"):
        assert dataset.views == dataset.cameras

"""Pages of logs that nobody here wrote, by the schema that ``vlapipe schema infer`` guesses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from vlapipe.cli import cli


def page_of(log: Path, tmp_path: Path, *keep: str) -> Any:
    """The numbers of the page of one log as one recording, of whose files those are kept that fit ``keep``."""
    recording = tmp_path / "raw" / "recording"
    for pattern in keep or ("*",):
        for path in sorted(log.glob(pattern)):
            copy = shutil.copytree if path.is_dir() else shutil.copy
            recording.mkdir(parents=True, exist_ok=True)
            copy(path, recording / path.name)
    schema, data = tmp_path / "schema.toml", tmp_path / "data"
    commands = [
        ["schema", "infer", tmp_path / "raw", "--out", schema, "--accept"],
        ["ingest", "--dataset", tmp_path / "raw", "--schema", schema, "--out", data],
        ["inspect", data, "--html", tmp_path / "page.html", "--json"],
    ]
    for command in commands:
        done = CliRunner().invoke(cli, [*map(str, command)])
        assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["report"]


def flags_of(page: Any, field: str) -> dict[str, str]:
    [found] = [each for each in page["fields"] if each["path"] == field]
    return {column["name"]: "; ".join(column["flags"]) for column in found["columns"]}


def test_angles_of_a_mecademic_arm_are_flagged_as_singular(real: Path, tmp_path: Path) -> None:
    page = page_of(real / "meca500" / "logger_example_traj_file", tmp_path, "*.csv")
    flags = flags_of(page, "robot/cart_pos")
    assert "comes round" in flags["CartPos_Alpha"]
    assert "singular: if these are Euler angles, the middle one" in flags["CartPos_Beta"]
    assert not flags["CartPos_X"]


def test_a_rovers_page_shows_the_spacing_of_its_images_and_where_it_drove(real: Path, tmp_path: Path) -> None:
    page = page_of(real / "robond" / "test_dataset", tmp_path)
    steps = page["clocks"]["camera"]["step_s"]
    assert (steps["min"], steps["max"]) == (0.034, 0.064)
    assert (page["coverage"]["x_label"], page["coverage"]["y_label"]) == ("X_Position", "Y_Position")

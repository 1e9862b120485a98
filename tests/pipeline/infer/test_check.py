"""A schema tried on recordings: the report says what fits, what does not, and what was found instead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from factories import make_dataset

from vlapipe.pipeline.infer.check import SchemaCheck, check_schema
from vlapipe.pipeline.infer.infer import infer_schema
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.registry import built_in_schemas


def check(root: Path, *replacements: tuple[str, str], schema: str = "meca500", episodes: int = 3) -> SchemaCheck:
    """The built-in schema with some text replaced, tried on a folder."""
    text = built_in_schemas()[schema]
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    return check_schema(root, parse_schema(text, "mine.toml"), num_episodes=episodes)


def test_good_schema_tells_files_rows_and_rates(tiny_raw: Path) -> None:
    report = check(tiny_raw)
    text = "\n".join(report.lines)
    assert report.good
    assert "robot: robot_states.csv: 65 rows over 0.64" in text
    assert "99.99 Hz" in text
    assert "13 of 16 columns used; not kept: recv_timestamp, send_timestamp, force_placeholder" in text
    assert "View1: 9 files, images/View1/" in text
    assert report.lines[-1] == "good: 3 of 4 episodes tried, no errors"


def test_only_so_many_episodes_are_tried(tiny_raw: Path) -> None:
    assert check(tiny_raw, episodes=1).lines[-1] == "good: 1 of 4 episodes tried, no errors"


def test_misspelt_column_is_shown_against_the_header(tiny_raw: Path) -> None:
    report = check(tiny_raw, ('"joint_{1..6}"', '"jiont_{1..6}"'), episodes=1)
    text = "\n".join(report.lines)
    assert not report.good
    assert "robot_states.csv has the columns recv_timestamp, origin_timestamp" in text
    assert "it lacks: jiont_1 or joint_angle_1 (joint_1?)" in text
    assert report.lines[-1] == "1 of 1 episodes have errors"


def test_wrong_delimiter_is_suspected(tiny_raw: Path) -> None:
    report = check(tiny_raw, ("rate_hz = 100\n", 'rate_hz = 100\ndelimiter = ";"\n'), episodes=1)
    assert not report.good
    assert "';'" in "\n".join(report.lines)


def test_folder_in_which_nothing_fits_is_described(tiny_raw: Path) -> None:
    report = check(tiny_raw, schema="two_joint")
    text = "\n".join(report.lines)
    assert not report.good
    assert "stream 'robot' looks for joint_states.csv" in text
    assert "insert_blue/episode_20260101_000001/robot_states.csv" in text
    assert "did you mean 'robot_states.csv'?" in text


def test_missing_file_of_a_stream_is_named(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "lab", num_episodes=1)
    next(root.rglob("sensor_data.npz")).unlink()
    report = check(root)
    assert not report.good
    assert "  sensor: no file; the schema looks for sensor_data.npz or sensor_data_*.npz" in report.lines


def test_notes_about_good_episodes_are_shown(tiny_raw: Path) -> None:
    report = check(tiny_raw, ("drop = [", "drop = []\n# ["))
    assert report.good
    assert any("[csv.columns_not_kept]" in line for line in report.lines)


def test_missing_folder_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        check(tmp_path / "gone")


def test_keys_of_json_lines_are_columns(tmp_path: Path) -> None:
    rows = (json.dumps({"t": i / 50, "arm": {"j1": i % 7, "j2": i % 5}, "mode": "auto"}) for i in range(40))
    (tmp_path / "log.jsonl").write_text("\n".join(rows) + "\n")
    report = check_schema(tmp_path, parse_schema(infer_schema(tmp_path).toml, "mine.toml"), num_episodes=1)
    assert report.good
    assert any("3 of 4 columns used; not kept: mode" in line for line in report.lines), report.lines

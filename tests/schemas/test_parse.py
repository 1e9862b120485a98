"""Schema language: what it says, and how a mistake in it is answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.registry import built_in_schemas, load_schema
from vlapipe.schemas.schema import CsvStream, ImageStream, Schema

MINIMAL = """
name = "bench"
anchor = "robot"
[streams.robot]
kind = "csv"
files = ["log.csv"]
[streams.robot.time]
column = "t"
[streams.robot.fields.joints]
columns = ["j{1..3}"]
[action]
kind = "column"
of = ["robot/joints"]
[sample]
state = ["robot/joints"]
"""


def parse(text: str) -> Schema:
    return parse_schema(text, "test")


def test_minimal_schema_takes_defaults() -> None:
    schema = parse(MINIMAL)
    stream = schema.stream("robot")
    assert isinstance(stream, CsvStream)
    assert stream.fields[0].columns == (("j1",), ("j2",), ("j3",))
    assert stream.fields[0].shape == (3,)
    assert stream.time.dtype == "float64"
    assert schema.sample.state_rows == 1


def test_every_built_in_schema_parses_and_carries_its_name() -> None:
    names = list(built_in_schemas())
    assert {"meca500", "mecademic_log", "robond", "two_joint"} <= set(names)
    for name in names:
        assert load_schema(name).name == name


def test_meca500_accepts_both_recorders_column_names() -> None:
    columns = load_schema("meca500").field("robot/joint_position").columns
    assert columns[0] == ("joint_1", "joint_angle_1")
    assert columns[5] == ("joint_6", "joint_angle_6")


def test_small_time_units_are_whole_numbers_unless_told_otherwise() -> None:
    assert parse(MINIMAL.replace('column = "t"', 'column = "t"\nunit = "us"')).anchor_stream.time.dtype == "int64"
    text = MINIMAL.replace('column = "t"', 'column = "t"\nunit = "us"\ninteger = false')
    assert parse(text).anchor_stream.time.dtype == "float64"


def test_view_placeholder_makes_one_stream_a_folder() -> None:
    camera = load_schema("meca500").stream("camera")
    assert isinstance(camera, ImageStream)
    assert camera.many_views


MISTAKES = {
    "misspelt key": ('kind = "csv"', 'kind = "csv"\nfile = ["x.csv"]', "did you mean 'files'"),
    "misspelt kind": ('kind = "csv"', 'kind = "cvs"', "did you mean 'csv'"),
    "missing key": ('files = ["log.csv"]', "", "missing key 'files'"),
    "missing key misspelt": ('files = ["log.csv"]', 'flies = ["log.csv"]', "is 'flies' a misspelling"),
    "unknown top-level key": ('name = "bench"', 'name = "bench"\nauthor = "x"', "unknown key 'author'"),
    "anchor that is no stream": ('anchor = "robot"', 'anchor = "robo"', "did you mean 'robot'"),
    "action of an unknown field": ('of = ["robot/joints"]', 'of = ["robot/joint"]', "did you mean 'robot/joints'"),
    "state of an unknown field": (
        'state = ["robot/joints"]',
        'state = ["robot/x"]',
        "sample.state: no field 'robot/x'",
    ),
    "wrong type": ('columns = ["j{1..3}"]', "columns = 3", "expected text or a list of texts"),
    "too few units": ('columns = ["j{1..3}"]', 'columns = ["j{1..3}"]\nunit = ["deg", "deg"]', "one entry or 3"),
    "alias of another length": (
        'columns = ["j{1..3}"]',
        'columns = ["j{1..3}"]\naliases = [["a"]]',
        "expected 3 names",
    ),
    "range the wrong way round": ('columns = ["j{1..3}"]', 'columns = ["j{1..3}"]\nrange = 3', "[lowest, highest]"),
    "period where the action is a column": ('kind = "column"', 'kind = "column"\nperiod_s = 0.1', "period_s"),
    "delta without a period": ('kind = "column"', 'kind = "delta"', "period_s = 0.1"),
    "reserved stream name": ("[streams.robot]", '[streams.align]\nkind = "csv"\n[streams.robot]', "uses itself"),
    "field called timestamp": ("fields.joints", "fields.timestamp", "a name that vlapipe uses itself"),
    "not TOML": ('name = "bench"', "name = bench", "not valid TOML"),
    "newer schema version": ('name = "bench"', 'schema_version = 2\nname = "bench"', "expected 1, found 2"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake_is_answered_with_its_place_and_cure(case: str) -> None:
    old, new, answer = MISTAKES[case]
    assert old in MINIMAL
    with pytest.raises(UsageError) as caught:
        parse(MINIMAL.replace(old, new, 1))
    assert answer in str(caught.value)
    assert "schema test" in str(caught.value)


def test_schema_is_found_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    assert load_schema(str(path)).name == "bench"


@pytest.mark.parametrize(("name", "cure"), [("meca50", "did you mean 'meca500'"), ("gone.toml", "no such file")])
def test_unknown_schema_is_answered_with_the_nearest(name: str, cure: str) -> None:
    with pytest.raises(UsageError, match=cure):
        load_schema(name)

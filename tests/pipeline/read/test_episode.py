"""Reading a whole episode: all faults are reported together; its gaps; what a schema allows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import make_episode

from vlapipe.pipeline.discover.discovery import discover
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.pipeline.plan.plan import make_plan
from vlapipe.pipeline.read.episode import Episode, read_episode
from vlapipe.schemas.findings import Finding, Findings
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.registry import load_schema
from vlapipe.schemas.schema import Schema

MAX_GAP = {"rate_hz = 100\n": "rate_hz = 100\nmax_gap_s = 0.05\n"}


def schema_with(replacements: dict[str, str] | None = None, end: str = "") -> Schema:
    text = load_schema("meca500").toml
    for old, new in (replacements or {}).items():
        assert old in text
        text = text.replace(old, new)
    return parse_schema(text + end, "test")


def read(root: Path, schema: Schema) -> tuple[Episode | None, dict[str, Finding]]:
    discovery = discover(root, schema)
    plan = make_plan(discovery, schema, shard_bytes=1 << 30, options={})
    findings = Findings(schema.checks.severity)
    episode = read_episode(root, plan.shards[0].episodes[0], schema, plan.cameras, findings)
    assert (episode is None) == bool(findings.errors)
    return episode, {finding.code: finding for finding in findings}


def lose_rows(rows: list[list[str]]) -> None:
    del rows[30:40]


def test_good_episode_has_notes_at_most(tmp_path: Path) -> None:
    make_episode(tmp_path / "task" / "episode_1")
    _, findings = read(tmp_path, schema_with())
    assert {f.severity for f in findings.values()} <= {"note"}


def test_gap_is_told_and_its_row_kept_with_the_episode(tmp_path: Path) -> None:
    make_episode(tmp_path / "task" / "episode_1", edit_rows=lose_rows)
    episode, findings = read(tmp_path, schema_with(MAX_GAP))
    assert episode is not None
    assert (findings["clock.gap"].line, findings["clock.gap"].column) == (32, "origin_timestamp")
    assert {name: rows.tolist() for name, rows in episode.gaps.items()} == {
        "robot": [30],
        "sensor": [],
        "View1": [],
        "View2": [],
    }
    assert all(rows.dtype == np.int32 for rows in episode.gaps.values())


def test_gaps_are_lists_in_the_episodes_table_even_where_there_are_none(tmp_path: Path) -> None:
    for i in range(2):
        make_episode(tmp_path / "raw" / "task" / f"episode_{i}", edit_rows=lose_rows if i else None)
    schema = tmp_path / "schema.toml"
    schema.write_text(schema_with(MAX_GAP).toml)
    ingest(IngestConfig(source=tmp_path / "raw", out=tmp_path / "data", schema=str(schema)))
    [path] = (tmp_path / "data").glob("episodes-*.parquet")
    table = pq.read_table(path)
    assert table["robot/gaps"].to_pylist() == [[], [30]]
    for name in ("robot/gaps", "sensor/gaps", "View1/gaps"):
        assert table.schema.field(name).type == pa.list_(pa.int32())


def test_all_faults_of_an_episode_are_found_together(tmp_path: Path) -> None:
    def backwards(rows: list[list[str]]) -> None:
        rows[20][1] = repr(float(rows[20][1]) - 1)

    folder = make_episode(tmp_path / "task" / "episode_1", edit_rows=backwards)
    next(iter((folder / "images" / "View1").iterdir())).write_bytes(b"")
    (folder / "sensor_data.npz").write_bytes(b"PK")
    (folder / "metadata.json").write_text("[")
    episode, findings = read(tmp_path, schema_with())
    assert episode is None
    errors = {code for code, finding in findings.items() if finding.severity == "error"}
    assert errors == {"clock.backwards", "image.empty", "npz.unreadable", "metadata.unreadable"}


def test_streams_that_do_not_overlap_are_refused_with_both_spans(tmp_path: Path) -> None:
    folder = make_episode(tmp_path / "task" / "episode_1")
    arrays = dict(np.load(folder / "sensor_data.npz"))
    arrays["timestamps"] = arrays["timestamps"] + 3600
    np.savez(folder / "sensor_data.npz", **arrays)
    episode, findings = read(tmp_path, schema_with())
    assert episode is None
    assert findings["clock.no_overlap"].file == "task/episode_1/sensor_data.npz"


@pytest.mark.parametrize(
    ("checks", "expected", "found"),
    [
        ("min_seconds = 5", "5 s or longer", "0.58"),
        ("min_frames = 1000", "1000 frames or more", "50"),
    ],
)
def test_short_episode_is_set_aside(tmp_path: Path, checks: str, expected: str, found: str) -> None:
    make_episode(tmp_path / "task" / "episode_1")
    episode, findings = read(tmp_path, schema_with(end=f"\n[checks]\n{checks}\n"))
    assert episode is None
    assert findings["episode.too_short"].expected == expected
    assert findings["episode.too_short"].found.startswith(found)
    lowered = f'\n[checks]\n{checks}\nseverity = {{ "episode.too_short" = "warning" }}\n'
    episode, findings = read(tmp_path, schema_with(end=lowered))
    assert episode is not None
    assert findings["episode.too_short"].severity == "warning"


def test_camera_with_an_image_a_row_must_have_as_many(tmp_path: Path) -> None:
    one_per_row = {'kind = "images"\n': 'kind = "images"\none_per_row = true\n'}
    make_episode(tmp_path / "task" / "episode_1", num_images=60, cameras=("View1",))
    episode, findings = read(tmp_path, schema_with(one_per_row))
    assert episode is not None, findings
    next(iter((tmp_path / "task" / "episode_1" / "images" / "View1").iterdir())).unlink()
    episode, findings = read(tmp_path, schema_with(one_per_row))
    assert episode is None
    assert findings["image.count"].expected.startswith("60 images, one a row of task/episode_1/robot_states.csv")
    assert findings["image.count"].found.startswith("59;")
    off = '\n[checks.severity]\n"image.count" = "off"\n'
    episode, findings = read(tmp_path, schema_with(one_per_row, off))
    assert episode is not None


LOWERED = {
    "csv.out_of_range": {"range = [-360, 360]": "range = [-0.001, 0.001]"},
    "npz.out_of_range": {'array = "forces"\n': 'array = "forces"\nrange = [0, 0.001]\n'},
}


@pytest.mark.parametrize("code", LOWERED)
@pytest.mark.parametrize("severity", ["warning", "note", "off"])
def test_value_whose_finding_is_lowered_passes(tmp_path: Path, code: str, severity: str) -> None:
    make_episode(tmp_path / "task" / "episode_1")
    assert read(tmp_path, schema_with(LOWERED[code]))[0] is None
    plain, _ = read(tmp_path, schema_with())
    episode, findings = read(tmp_path, schema_with(LOWERED[code], f'\n[checks.severity]\n"{code}" = "{severity}"\n'))
    assert episode is not None
    assert plain is not None
    assert (code in findings) == (severity != "off")
    for name, values in plain.fields().items():
        assert np.array_equal(episode.fields()[name], values)


def test_raised_finding_sets_the_episode_aside(tmp_path: Path) -> None:
    make_episode(tmp_path / "task" / "episode_1", edit_rows=lose_rows)
    episode, _ = read(tmp_path, schema_with(MAX_GAP, '\n[checks.severity]\n"clock.gap" = "error"\n'))
    assert episode is None


def two_logs(folder: Path) -> None:
    log = folder / "robot_states.csv"
    log.rename(folder / "robot_state_1.csv")
    (folder / "robot_state_2.csv").write_bytes((folder / "robot_state_1.csv").read_bytes())


def bytes_for_an_instruction(folder: Path) -> None:
    (folder / "metadata.json").unlink()
    (folder / "instruction.txt").write_bytes(b"\xff\xfe\x00")


FOLDER_FAULTS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "two files of one stream": (two_logs, "file.several", "robot_states.csv"),
    "instruction that is no text": (
        bytes_for_an_instruction,
        "instruction.unreadable",
        "instruction.txt",
    ),
    "instruction that is a list with a number": (
        lambda folder: (folder / "metadata.json").write_text('{"instruction": ["pick", 2]}'),
        "metadata.unreadable",
        "metadata.json",
    ),
    "no image of any camera": (lambda folder: shutil.rmtree(folder / "images"), "image.none", "images"),
}


@pytest.mark.parametrize("case", FOLDER_FAULTS)
def test_fault_of_a_folder_is_named_with_its_file(tmp_path: Path, case: str) -> None:
    edit, code, name = FOLDER_FAULTS[case]
    for number in (1, 2):  # so that the other says which cameras there are
        make_episode(tmp_path / "task" / f"episode_{number}")
    edit(tmp_path / "task" / "episode_1")
    _, findings = read(tmp_path, schema_with())
    assert code in findings, findings
    assert findings[code].file == f"task/episode_1/{name}"
    assert findings[code].severity == "error"


def test_camera_that_most_episodes_lack_is_not_kept(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        make_episode(tmp_path / "task" / f"episode_{number}")
    images = tmp_path / "task" / "episode_1" / "images"
    shutil.copytree(images / "View1", images / "Extra")
    episode, findings = read(tmp_path, schema_with())
    assert episode is not None
    assert "Extra" not in episode.streams
    assert findings["image.extra_camera"].file == "task/episode_1/images/Extra"

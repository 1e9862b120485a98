"""Datasets whose episodes lack a camera or a sensor: kept if the schema says ``optional = true``, else refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from factories import make_dataset

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.pipeline.show.inspection import inspect_dataset, inspect_episode
from vlapipe.pipeline.show.inspection_text import print_dataset, print_episode
from vlapipe.schemas.errors import UsageError, VlapipeError
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.registry import load_schema

CAMERA = 'kind = "images"\n'
SENSOR = 'kind = "npz"\n'


def schema_file(folder: Path, *optional: str, **replaced: str) -> str:
    text = load_schema("meca500").toml
    for line in optional:
        text = text.replace(line, line + "optional = true\nmax_gap_s = 0.2\n")
    for old, new in replaced.items():
        text = text.replace(old, new)
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def run(source: Path, schema: str, out: Path | None = None, **options: object) -> IngestReport:
    return ingest(IngestConfig(source=source, out=out, dry_run=out is None, schema=schema, **options))  # type: ignore[arg-type]


def episodes_of(raw: Path) -> list[Path]:
    return sorted(path for path in raw.glob("*/episode_*"))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Six episodes: every other one lacks View2, the first one the sensor too, the last one all but the robot."""
    raw = make_dataset(tmp_path / "raw", num_episodes=6)
    episodes = episodes_of(raw)
    for episode in episodes[::2]:
        shutil.rmtree(episode / "images" / "View2")
    for episode in (episodes[0], episodes[5]):
        (episode / "sensor_data.npz").unlink()
    shutil.rmtree(episodes[5] / "images")
    return raw


@pytest.mark.parametrize("shard_format", ["zarr", "npz"])
@pytest.mark.parametrize("options", [{}, {"image_storage": "raw"}, {"shard_bytes": 1}])
def test_episodes_without_an_optional_stream_are_kept_with_what_they_have(
    raw: Path, tmp_path: Path, shard_format: str, options: dict[str, object]
) -> None:
    schema = schema_file(tmp_path, CAMERA, SENSOR)
    report = run(raw, schema, tmp_path / "data", shard_format=shard_format, **options)
    assert (report.num_episodes, report.rejects) == (6, [])
    dataset = vlapipe.open_dataset(tmp_path / "data")
    assert dataset.cameras == ["View1", "View2"]
    for folder in episodes_of(raw):
        episode = dataset.episode(str(folder.relative_to(raw)))
        row, num_anchor = episode.row, len(episode["robot/timestamp"])
        for name, there in {
            "View1": (folder / "images" / "View1").is_dir(),
            "View2": (folder / "images" / "View2").is_dir(),
            "sensor": (folder / "sensor_data.npz").is_file(),
        }.items():
            clock, align = episode[f"{name}/timestamp"], episode[f"align/{name}"]
            assert len(clock) == row[f"{name}/rows"] == (0 if not there else 9 if name != "sensor" else len(clock))
            robot = episode["robot/timestamp"]
            assert align.tolist() == [int((clock <= stamp).sum()) - 1 for stamp in robot]
            assert row[f"{name}/begin"] == (int((robot < clock[0]).sum()) if there else 0)
            assert bool(np.isnan(row[f"{name}/first_s"])) is not there
            assert row[f"{name}/gaps"] == []
            source = row["sources"][list(dataset.manifest.streams).index(name)]
            assert bool(source["sha256"]) is there
            if name != "sensor":
                assert bool(row[f"{name}/height"]) is there
        begun = [row[f"{name}/begin"] for name in ("View1", "View2", "sensor")]
        assert row["frame_start"] == max(begun)
        assert row["num_left_out"] == 0
        assert row["frame_start"] + row["num_frames"] <= num_anchor
        assert row["statistics"]["sensor/force"] is None or row["sensor/rows"]
        if not options and row["View1/rows"]:
            images = sorted((folder / "images" / "View1").iterdir(), key=lambda path: float(path.stem))
            assert [episode.jpeg("View1", k) for k in range(9)] == [path.read_bytes() for path in images]


def test_statistics_and_reports_are_over_the_episodes_that_have_the_stream(raw: Path, tmp_path: Path) -> None:
    run(raw, schema_file(tmp_path, CAMERA, SENSOR, **{"[sample]": "[split]\nval = 0\n[sample]"}), tmp_path / "data")
    dataset = vlapipe.open_dataset(tmp_path / "data")
    forces = np.concatenate([np.load(path)["forces"] for path in sorted(raw.rglob("sensor_data.npz"))])
    assert dataset.stats["sensor/force"].count == len(forces)
    assert dataset.stats["sensor/force"].mean[0] == pytest.approx(forces.mean(dtype=np.float64), rel=1e-6)
    report = json.loads(json.dumps(inspect_dataset(dataset), allow_nan=False))
    assert [report["streams"][name]["absent_in"] for name in ("robot", "sensor", "View1", "View2")] == [0, 2, 1, 4]
    assert report["streams"]["View2"]["rate_hz"] == pytest.approx(report["streams"]["View1"]["rate_hz"], rel=0.1)
    assert report["streams"]["View1"]["sizes"] == {"32x24": 5}
    print_dataset(report)
    for folder in episodes_of(raw):
        one = inspect_episode(dataset, str(folder.relative_to(raw)))
        json.dumps(one, allow_nan=False)
        print_episode(one)


def test_dry_run_says_the_same_and_foresees_the_size(raw: Path, tmp_path: Path) -> None:
    schema = schema_file(tmp_path, CAMERA, SENSOR)
    dry, real = run(raw, schema), run(raw, schema, tmp_path / "data")
    assert (dry.num_episodes, dry.num_frames, dry.findings) == (real.num_episodes, real.num_frames, real.findings)
    assert dry.expected is not None
    assert dry.expected.stored_bytes == pytest.approx(real.stored_bytes, rel=0.1)
    absent = [(f["episode"], f["file"].rpartition("/")[2]) for f in real.findings if f["code"] == "stream.absent"]
    assert len(absent) == 7
    assert ("insert_red/episode_20260101_000004", "View1") in absent


def test_stopped_run_goes_on_to_the_same_bytes(raw: Path, tmp_path: Path) -> None:
    schema = schema_file(tmp_path, CAMERA, SENSOR)
    last = episodes_of(raw)[-1] / "robot_states.csv"
    good = last.read_text()
    last.write_text("")
    with pytest.raises(VlapipeError, match="--strict"):
        run(raw, schema, tmp_path / "data", shard_bytes=1, strict=True, workers=1)
    last.write_text(good)
    report = run(raw, schema, tmp_path / "data", shard_bytes=1, workers=1)
    assert report.num_resumed_shards > 0
    run(raw, schema, tmp_path / "whole", shard_bytes=1, workers=2)

    def tree(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    assert tree(tmp_path / "data") == tree(tmp_path / "whole")


def test_without_the_key_they_are_refused_and_the_cure_names_it(raw: Path) -> None:
    report = run(raw, "meca500")
    shutil.copytree(episodes_of(raw)[1] / "images" / "View2", episodes_of(raw)[0] / "images" / "View2")
    report.rejects.extend(run(raw, "meca500").rejects)
    reasons = [reason for reject in report.rejects for reason in reject["reasons"]] + report.findings
    lacking = {"file.missing", "image.none", "image.extra_camera", "image.missing_camera"}
    assert {reason["code"] for reason in reasons} >= lacking
    assert all("optional = true" in reason["message"] for reason in reasons if reason["code"] in lacking)


def test_pattern_that_no_episode_fits_is_warned_of(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=2)
    schema = schema_file(tmp_path, CAMERA, SENSOR, **{'"sensor_data.npz", "sensor_data_*.npz"': '"sensr.npz"'})
    report = run(raw, schema, tmp_path / "data")
    assert [f["file"] for f in report.findings if f["code"] == "stream.in_no_episode"] == ["sensor"]
    assert vlapipe.open_dataset(tmp_path / "data").stats["sensor/force"].count == 0


def test_anchor_cannot_be_optional(tmp_path: Path) -> None:
    text = load_schema("meca500").toml.replace('kind = "csv"\n', 'kind = "csv"\noptional = true\n')
    with pytest.raises(UsageError, match=r"streams\.robot: the anchor cannot be optional"):
        parse_schema(text, "test")


def test_clock_that_starts_with_an_absent_stream(tmp_path: Path) -> None:
    """With what the absent stream would have started with; without any, it has no place."""
    raw = make_dataset(tmp_path / "raw", num_episodes=2)
    (episodes_of(raw)[1] / "sensor_data.npz").unlink()
    with_sensor = {'unit = "s"                         # the file': 'starts_with = "sensor"  # the file'}
    report = run(raw, schema_file(tmp_path, SENSOR, **with_sensor))
    assert [reason["code"] for reason in report.rejects[0]["reasons"]][:1] == ["clock.no_start"]
    sensor_too = {'array = "timestamps"\n': 'array = "timestamps"\nstarts_with = "robot"\n'}
    assert run(raw, schema_file(tmp_path, SENSOR, **with_sensor, **sensor_too), tmp_path / "data").rejects == []
    for i in range(2):
        episode = vlapipe.open_dataset(tmp_path / "data").episode(i)
        assert episode["View1/timestamp"][0] == episode["robot/timestamp"][0]


def test_part_of_a_file_without_a_row_of_an_optional_stream_lacks_it(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=1, num_rows=200)
    path = next(raw.rglob("robot_states.csv"))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines[1:80], *lines[150:], ""]))
    for image in sorted((path.parent / "images" / "View2").iterdir(), key=lambda p: float(p.stem))[3:]:
        image.unlink()
    schema = schema_file(tmp_path, CAMERA, SENSOR, **{"[instruction]": "split_gap_s = 0.3\n[instruction]"})
    assert run(raw, schema, tmp_path / "data").rejects == []
    rows = vlapipe.open_dataset(tmp_path / "data").episodes
    assert rows.column("View2/rows").to_pylist() == [3, 0]


def test_an_absent_stream_that_the_action_needs_is_named(tmp_path: Path) -> None:
    table = "[streams.{0}]\nkind = 'csv'\nfiles = ['{0}.csv']\ntime = {{ column = 't' }}\n"
    table += "{1}fields = {{ q = {{ columns = ['q'] }} }}\n"
    text = table.format("arm", "") + table.format("leader", "optional = true\n")
    (tmp_path / "lab.toml").write_text(text + "[action]\nkind = 'column'\nof = ['leader/q']\n")
    for number in range(2):
        folder = tmp_path / "raw" / "task" / f"e{number}"
        folder.mkdir(parents=True)
        for name in ("arm", "leader")[: 2 - number]:
            (folder / f"{name}.csv").write_text("t,q\n" + "".join(f"{i / 10},{i}\n" for i in range(20)))
    report = run(tmp_path / "raw", str(tmp_path / "lab.toml"))
    [reject] = report.rejects
    told = [reason["message"] for reason in reject["reasons"] if reason["code"] == "episode.no_frames"]
    assert "expected rows of leader, from which the action is taken, found none in this episode" in told[0]

"""Whole runs: values equal the raw files, workers do not change bytes, faults are set aside, killed runs finish."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from factories import make_dataset, make_episode
from harmful_episodes import make_hook

import vlapipe
from vlapipe.pipeline.build.output_folder import open_output
from vlapipe.pipeline.demo import make_demo
from vlapipe.pipeline.discover.discovery import discover
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.pipeline.plan.plan import make_plan
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.format.atomic import TEMP_PREFIX
from vlapipe.schemas.errors import UsageError, VlapipeError
from vlapipe.schemas.registry import load_schema


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def run(source: Path, out: Path | None = None, **options: object) -> IngestReport:
    return ingest(IngestConfig(source=source, out=out, dry_run=out is None, **options))  # type: ignore[arg-type]


def csv_columns(path: Path, names: list[str], delimiter: str = ",") -> np.ndarray:
    with path.open(newline="") as file:
        return np.array(
            [[np.float32(row[name]) for name in names] for row in csv.DictReader(file, delimiter=delimiter)]
        )


JOINTS = [f"joint_{i}" for i in range(1, 7)]


@pytest.mark.parametrize("shard_format", ["zarr", "npz"])
@pytest.mark.parametrize("codec", [None, "none"])
def test_every_value_equals_the_raw_input(tiny_raw: Path, tmp_path: Path, shard_format: str, codec: str | None) -> None:
    report = run(tiny_raw, tmp_path / "data", shard_format=shard_format, codec=codec, shard_bytes=3_000_000)
    assert (report.num_episodes, report.num_shards > 1, report.rejects) == (4, True, [])
    dataset = vlapipe.open_dataset(tmp_path / "data")
    for i in range(len(dataset)):
        episode = dataset.episode(i)
        raw = tiny_raw / episode.id
        assert np.array_equal(episode["robot/joint_position"], csv_columns(raw / "robot_states.csv", JOINTS))
        with (raw / "robot_states.csv").open(newline="") as file:
            stamps = [float(row["origin_timestamp"]) for row in csv.DictReader(file)]
        assert episode["robot/timestamp"].tolist() == stamps
        with np.load(raw / "sensor_data.npz") as sensor:
            assert np.array_equal(episode["sensor/force"], sensor["forces"])
            assert np.array_equal(episode["sensor/aline"], sensor["alines"])
            assert np.array_equal(episode["sensor/timestamp"], sensor["timestamps"])
        for camera in ("View1", "View2"):
            images = sorted((raw / "images" / camera).iterdir(), key=lambda p: float(p.stem))
            assert [episode.jpeg(camera, k) for k in range(len(images))] == [p.read_bytes() for p in images]
            assert episode[f"{camera}/timestamp"].tolist() == [float(p.stem) for p in images]


@pytest.mark.parametrize("shard_format", ["zarr", "npz"])
def test_one_and_two_workers_write_identical_files(tiny_raw: Path, tmp_path: Path, shard_format: str) -> None:
    for workers in (1, 2):
        run(tiny_raw, tmp_path / str(workers), workers=workers, shard_format=shard_format, shard_bytes=1_500_000)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


def test_existing_cluster_is_used_by_its_address(tiny_raw: Path, tmp_path: Path) -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        run(tiny_raw, tmp_path / "data", scheduler=cluster.scheduler_address, shard_bytes=1_500_000)
    assert len(vlapipe.open_dataset(tmp_path / "data")) == 4


def test_scheduler_that_does_not_answer_is_refused(tiny_raw: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--scheduler"):
        run(tiny_raw, tmp_path / "data", scheduler="tcp://127.0.0.1:9")


@pytest.fixture(scope="module")
def demo_with_defects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = tmp_path_factory.mktemp("defects") / "raw"
    make_demo(raw, num_episodes=3, defects=True, workers=1)
    return raw


def test_each_planted_fault_is_named_at_its_place_and_good_episodes_are_kept(
    demo_with_defects: Path, tmp_path: Path
) -> None:
    planted = json.loads((demo_with_defects / "planted_defects.json").read_text())
    report = run(demo_with_defects, tmp_path / "data")
    rejects = {reject["episode"]: reject["reasons"] for reject in report.rejects}
    rejected = [defect for defect in planted if not defect["is_kept"]]
    assert len(rejected) >= 25
    assert set(rejects) == {defect["episode"] for defect in rejected}
    for defect in rejected:
        places = [(r["file"], r["line"], r["column"]) for r in rejects[defect["episode"]] if r["severity"] == "error"]
        assert places == [(defect["file"], defect["line"], defect["column"])], defect["name"]
    assert report.num_episodes == 3 + len(planted) - len(rejected)
    written = [json.loads(line) for line in (tmp_path / "data" / "rejects.jsonl").read_text().splitlines()]
    assert written == report.rejects


def test_dry_run_reports_the_same_rejects_and_leaves_no_file(demo_with_defects: Path, tmp_path: Path) -> None:
    before = sorted(demo_with_defects.rglob("*"))
    dry = run(demo_with_defects)
    assert dry.rejects == run(demo_with_defects, tmp_path / "data").rejects
    assert sorted(demo_with_defects.rglob("*")) == before
    assert dry.dataset is None


def test_strict_stops_at_the_first_fault_and_commits_nothing(demo_with_defects: Path, tmp_path: Path) -> None:
    with pytest.raises(VlapipeError, match="--strict: "):
        run(demo_with_defects, tmp_path / "data", strict=True)
    assert not (tmp_path / "data" / "manifest.json").exists()


def test_csv_part_takes_at_most_15_percent_of_the_csv_bytes(demo_with_defects: Path, tmp_path: Path) -> None:
    run(demo_with_defects, tmp_path / "data")
    dataset = vlapipe.open_dataset(tmp_path / "data")
    totals = dataset.manifest.totals
    derived = totals["stored_bytes"]["align"] + totals["stored_bytes"]["action"]
    assert totals["stored_bytes"]["robot"] + derived <= 0.15 * totals["raw_bytes"]["robot"]


def test_nothing_is_left_where_no_episode_can_be_read(tmp_path: Path) -> None:
    episode = make_episode(tmp_path / "raw" / "episode_1", num_rows=20)
    (episode / "robot_states.csv").write_text("")
    report = run(tmp_path / "raw", tmp_path / "data")
    assert (report.num_episodes, len(report.rejects)) == (0, 1)
    assert not (tmp_path / "data").exists()


def test_failure_in_our_own_code_sets_one_episode_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlapipe.pipeline.build import build

    raw = make_dataset(tmp_path / "raw", num_episodes=2)
    real = build.read_episode

    def failing(root: Path, episode: object, *rest: object) -> object:
        if "insert_red" in str(episode):
            raise ZeroDivisionError("ours")
        return real(root, episode, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "read_episode", failing)
    report = run(raw, tmp_path / "data")
    assert [r["reasons"][0]["code"] for r in report.rejects] == ["episode.failed"]
    assert report.num_episodes == 1


def test_killed_run_is_finished_by_the_same_command_to_the_same_bytes(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=10, num_rows=80)
    out = tmp_path / "data"
    command = [sys.executable, "-m", "vlapipe", "ingest", "--dataset", str(raw), "--out", str(out)]
    command += ["--shard-size", "1MB", "--workers", "1"]
    last = max(path.parent.relative_to(raw).as_posix() for path in raw.rglob("metadata.json"))
    hook = make_hook(tmp_path / "hook", {last: "hangs"})  # so that it does not end before it is killed
    paths = os.pathsep.join([str(hook), str(Path(vlapipe.__file__).parents[1])])
    child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.DEVNULL)
    while len(list(out.glob(".ingest/shard-*.json"))) < 3:
        assert child.poll() is None, "it ended before it was killed"
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (out / "manifest.json").exists()
    for folder in (out, out / "shards"):
        (folder / f"{TEMP_PREFIX}1-torn").write_bytes(b"what a kill leaves")

    report = run(raw, out, shard_bytes=1_000_000, workers=1)
    assert report.num_resumed_shards >= 3
    run(raw, tmp_path / "whole", shard_bytes=1_000_000, workers=1)
    assert tree(out) == tree(tmp_path / "whole")


def test_unfinished_run_is_taken_up_as_far_as_its_input_is_the_same(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=4)
    broken = raw / "insert_red" / "episode_20260101_000002" / "robot_states.csv"
    good = broken.read_text()
    broken.write_text("")
    with pytest.raises(VlapipeError, match="--strict"):
        run(raw, tmp_path / "data", shard_bytes=1, strict=True, workers=1)  # a shard an episode
    assert list((tmp_path / "data" / ".ingest").glob("shard-*.json"))
    broken.write_text(good)

    report = run(raw, tmp_path / "data", shard_bytes=1, workers=1)
    assert report.num_episodes == 4
    assert 0 < report.num_resumed_shards < 4
    run(raw, tmp_path / "whole", shard_bytes=1, workers=1)
    assert tree(tmp_path / "data") == tree(tmp_path / "whole")


def test_other_options_begin_anew_and_leave_nothing_of_the_unfinished_run(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=4)
    (raw / "insert_red" / "episode_20260101_000002" / "robot_states.csv").write_text("")
    with pytest.raises(VlapipeError, match="--strict"):
        run(raw, tmp_path / "data", shard_bytes=1, strict=True, workers=1)
    report = run(raw, tmp_path / "data", shard_bytes=1, shard_format="npz", workers=1)
    assert report.num_resumed_shards == 0
    run(raw, tmp_path / "whole", shard_bytes=1, shard_format="npz", workers=1)
    assert tree(tmp_path / "data") == tree(tmp_path / "whole")


def test_run_that_finished_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=2)
    schema = load_schema("meca500")
    plan = make_plan(discover(raw, schema), schema, shard_bytes=1, options={})
    run(raw, tmp_path / "data")  # between the other's first look and its lock
    before = tree(tmp_path / "data")
    with pytest.raises(UsageError, match="already holds a finished dataset"), open_output(tmp_path / "data", plan):
        pass
    assert tree(tmp_path / "data") == before


def test_empty_folder_of_the_user_stays_where_nothing_was_written(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=1)
    next(raw.rglob("robot_states.csv")).write_text("")
    mine, new = tmp_path / "mine", tmp_path / "new"
    mine.mkdir()
    (mine / ".DS_Store").write_text("left by a file manager")
    for out in (mine, new):
        assert run(raw, out).num_episodes == 0
    assert [path.name for path in mine.iterdir()] == [".DS_Store"]
    assert not new.exists()


@pytest.mark.parametrize("case", ["other options", "the user's files", "a file", "inside the raw dataset"])
def test_output_that_holds_something_else_is_refused_untouched(tiny_raw: Path, tmp_path: Path, case: str) -> None:
    out = tmp_path / "data"
    if case == "other options":
        run(make_dataset(tmp_path / "raw", num_episodes=1), out, shard_format="npz")
    elif case == "the user's files":
        out.mkdir()
        (out / "thesis.tex").write_text("x")
    elif case == "a file":
        out.write_text("x")
    else:
        out = tiny_raw / "data"
    before = tree(tmp_path)
    with pytest.raises(UsageError) as caught:
        run(tiny_raw, out)
    assert caught.value.cure
    assert tree(tmp_path) == before


def test_two_runs_into_one_folder_do_not_mix(tmp_path: Path) -> None:
    import fcntl

    raw = make_dataset(tmp_path / "raw", num_episodes=1)
    work = tmp_path / "data" / ".ingest"
    work.mkdir(parents=True)
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another ingest is writing there"):
            run(raw, tmp_path / "data")


def test_episode_without_one_of_the_cameras_is_set_aside(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", num_episodes=3)
    shutil.rmtree(raw / "insert_red" / "episode_20260101_000002" / "images" / "View2")
    report = run(raw)
    (reject,) = report.rejects
    assert [(r["code"], r["file"]) for r in reject["reasons"]] == [
        ("image.missing_camera", "insert_red/episode_20260101_000002/images/View2")
    ]


def test_streams_of_different_times_are_refused(tmp_path: Path) -> None:
    episode = make_episode(tmp_path / "raw" / "episode_1")
    for image in (episode / "images" / "View1").iterdir():
        image.rename(image.with_name(f"{float(image.stem) + 1000:.6f}.jpg"))
    report = run(tmp_path / "raw")
    assert [(r["code"], r["file"]) for r in report.rejects[0]["reasons"]] == [
        ("clock.no_overlap", "episode_1/images/View1")
    ]


def test_statistics_are_over_the_train_split_alone(tiny_dataset: Path) -> None:
    dataset = vlapipe.open_dataset(tiny_dataset)
    train = [i for i in range(len(dataset)) if dataset.episode(i).row["split"] == "train"]
    assert 0 < len(train) < len(dataset)
    for path in ("robot/tcp_pose", "sensor/force", "action/value"):
        values = np.concatenate([_values(dataset, i, path) for i in train]).astype(np.float64)
        np.testing.assert_allclose(dataset.stats[path].mean, np.atleast_1d(values.mean(axis=0)), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(dataset.stats[path].std, np.atleast_1d(values.std(axis=0)), rtol=1e-7, atol=1e-12)


def _values(dataset: Dataset, index: int, path: str) -> np.ndarray:
    episode = dataset.episode(index)
    return episode[path][episode["action/row"] >= 0] if path == "action/value" else episode[path]


def test_instruction_comes_from_metadata_then_file_then_folder(tmp_path: Path) -> None:
    make_episode(tmp_path / "raw" / "peg_in-hole" / "episode_1", instruction="told by metadata")
    second = make_episode(tmp_path / "raw" / "peg_in-hole" / "episode_2", instruction=None)
    (second / "instruction.txt").write_text("told by file\n")
    make_episode(tmp_path / "raw" / "peg_in-hole" / "episode_3", instruction=None)
    run(tmp_path / "raw", tmp_path / "data")
    table = vlapipe.open_dataset(tmp_path / "data").episodes
    assert table.column("instruction").to_pylist() == ["told by metadata", "told by file", "peg in hole"]


def test_other_recorders_columns_are_read_by_alias(tmp_path: Path) -> None:
    episode = make_episode(tmp_path / "raw" / "episode_1")
    path = episode / "robot_states.csv"
    header, _, body = path.read_text().partition("\n")
    names = {**{f"joint_{i}": f"joint_angle_{i}" for i in range(1, 7)}, **{f"pose_{c}": f"EE_{c}" for c in "xyzabr"}}
    names["origin_timestamp"] = "timestamp"
    path.write_text(",".join(names.get(name, name) for name in header.split(",")) + "\n" + body)
    path.rename(path.with_name("robot_state_1740416404.csv"))
    run(tmp_path / "raw", tmp_path / "data")
    assert vlapipe.open_dataset(tmp_path / "data").episode(0)["robot/tcp_pose"].shape == (60, 6)


@pytest.mark.real
def test_robond_values_equal_the_csv_and_every_frame_has_its_row(real: Path, tmp_path: Path) -> None:
    report = run(real / "robond", tmp_path / "data", schema="robond")
    assert (report.num_episodes, report.num_frames, report.rejects) == (1, 283, [])
    episode = vlapipe.open_dataset(tmp_path / "data").episode(0)
    source = real / "robond" / "test_dataset"
    position = csv_columns(source / "robot_log.csv", ["X_Position", "Y_Position"], ";")
    assert np.array_equal(episode["robot/position"], position)
    command = csv_columns(source / "robot_log.csv", ["SteerAngle", "Throttle", "Brake"], ";")
    assert np.array_equal(episode["robot/command"], command)
    assert np.array_equal(episode["action/value"], command)
    assert np.array_equal(episode["align/camera"], np.arange(283))
    assert np.array_equal(episode["camera/timestamp"], episode["robot/timestamp"])
    with (source / "robot_log.csv").open(newline="") as file:
        named = [Path(row["Path"]).name for row in csv.DictReader(file, delimiter=";")]
    assert [episode.jpeg("camera", k) for k in range(283)] == [(source / "IMG" / n).read_bytes() for n in named]


@pytest.mark.real
def test_two_joint_values_equal_the_csv(real: Path, tmp_path: Path) -> None:
    run(real / "two_joint", tmp_path / "data", schema="two_joint")
    episode = vlapipe.open_dataset(tmp_path / "data").episode(0)
    source = real / "two_joint" / "joint_states.csv"
    assert np.array_equal(episode["robot/joint_position"], csv_columns(source, ["joint1", "joint2"]))
    with source.open(newline="") as file:
        assert episode["robot/timestamp"].tolist() == [float(row["timestamp"]) for row in csv.DictReader(file)]


@pytest.mark.real
def test_mecademic_log_keeps_integer_microseconds_and_says_why_others_are_refused(real: Path, tmp_path: Path) -> None:
    report = run(real / "meca500", tmp_path / "data", schema="mecademic_log")
    assert {reject["episode"]: reject["reasons"][-1]["code"] for reject in report.rejects} == {
        "legacy_log_file_reference": "csv.missing_column",
        "log_file_reference": "episode.no_frames",
        "rob_traj_file_for_integ": "csv.missing_column",
    }
    assert "pose.singular" in {finding["code"] for finding in report.findings}
    episode = vlapipe.open_dataset(tmp_path / "data").episode(0)
    source = real / "meca500" / "logger_example_traj_file" / "logger_example_traj_file_output_df.csv"
    names = ["CartPos_X", "CartPos_Y", "CartPos_Z", "CartPos_Alpha", "CartPos_Beta", "CartPos_Gamma"]
    assert np.array_equal(episode["robot/tcp_pose"], csv_columns(source, names))
    with source.open(newline="") as file:
        expected = [int(row["timestamp"]) * 1000 for row in csv.DictReader(file)]
    assert episode["robot/timestamp"].dtype == np.int64
    assert episode["robot/timestamp"].tolist() == expected


@pytest.mark.parametrize("shard_format", ["zarr", "npz"])
def test_dry_run_says_what_would_be_made(tiny_raw: Path, tmp_path: Path, shard_format: str) -> None:
    dry = ingest(IngestConfig(source=tiny_raw, dry_run=True, shard_format=shard_format, shard_bytes=400_000))
    real = ingest(IngestConfig(source=tiny_raw, out=tmp_path / "data", shard_format=shard_format, shard_bytes=400_000))
    assert (dry.num_shards, dry.num_episodes, dry.seconds) == (real.num_shards, real.num_episodes, real.seconds)
    assert dry.expected is not None
    assert dry.expected.stored_bytes == pytest.approx(real.stored_bytes, rel=0.1)
    assert dry.expected.seconds > dry.elapsed_s

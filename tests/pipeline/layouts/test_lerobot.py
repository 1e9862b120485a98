"""LeRobot datasets go in with no line written: values equal an independent reading, and faults are told by place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from lerobot_datasets import JOINTS, write_lerobot
from numpy.typing import NDArray

import vlapipe
from vlapipe.cli import cli
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.pipeline.layouts.layouts import find_episodes, schema_of
from vlapipe.schemas.errors import UsageError

FIELDS = {
    "observation.state": "robot/state",
    "observation.environment_state": "robot/environment_state",
    "observation.matrix": "robot/matrix",
    "observation.count": "robot/count",
    "action": "robot/action",
    "next.reward": "robot/next_reward",
    "next.done": "robot/next_done",
}
TWO_TASKS = (("pick the cube", "put it back"), ("open the drawer",))


def run(root: Path, out: Path | None, **options: Any) -> IngestReport:
    return ingest(IngestConfig(source=root, out=out, dry_run=out is None, **{"schema": "lerobot", **options}))


def codes(report: IngestReport) -> set[str]:
    reasons = [reason for reject in report.rejects for reason in reject["reasons"]]
    return {reason["code"] for reason in reasons if reason["severity"] == "error"}


def messages(report: IngestReport) -> str:
    return "\n".join(reason["message"] for reject in report.rejects for reason in reject["reasons"])


def shown(path: Path, seconds: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """The frames of a video that begin in these seconds, by PyAV alone."""
    with av.open(str(path)) as container:
        frames = [(float(f.pts * f.time_base), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    first, stop = seconds or (0.0, np.inf)
    return np.stack([image for time_s, image in frames if first - 1e-3 <= time_s < stop - 1e-3])


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def edit_table(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    table = change(pq.read_table(path))
    pq.write_table(table, path, row_group_size=max(1, len(table)))


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values))


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_every_value_and_frame_of_a_dataset_with_videos_is_that_of_its_files(tmp_path: Path, version: str) -> None:
    written = write_lerobot(tmp_path / "lab", version=version, cameras={"front": "video", "wrist": "video"})
    report = run(tmp_path / "lab", tmp_path / "out", image_storage="raw")
    assert (report.num_episodes, report.num_frames, report.rejects) == (3, 36, [])
    dataset = vlapipe.open_dataset(tmp_path / "out")
    starts = {"front": 0.0, "wrist": 0.0}
    for number in range(3):
        episode, columns = dataset.episode(number), written.columns[number]
        length = len(columns["index"])
        for name, field in FIELDS.items():
            np.testing.assert_array_equal(episode[field], columns[name], err_msg=name)
        np.testing.assert_array_equal(episode["robot/timestamp"], np.rint(np.arange(length) * 1e9 / 30).astype(int))
        for camera in ("front", "wrist"):
            folder = f"videos/observation.images.{camera}/chunk-000/file-{number // 2:03d}.mp4"
            folder = (
                folder
                if version == "v3.0"
                else f"videos/chunk-000/observation.images.{camera}/episode_{number:06d}.mp4"
            )
            start = 0.0 if number % 2 == 0 or version != "v3.0" else starts[camera]
            wanted = shown(tmp_path / "lab" / folder, (start, start + length / 30))
            np.testing.assert_array_equal(episode[f"{camera}/pixels"], wanted)
            np.testing.assert_array_equal(episode[f"{camera}/timestamp"], episode["robot/timestamp"])
            starts[camera] = start + length / 30
    assert dataset.episodes["id"].to_pylist() == [f"episode_{i:06d}" for i in range(3)]
    assert dataset.episodes["instruction"].to_pylist() == ["pick the cube"] * 2 + ["open the drawer"]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_images_in_the_tables_are_kept_byte_for_byte(tmp_path: Path, version: str) -> None:
    written = write_lerobot(tmp_path / "lab", version=version, cameras={"front": "image"}, depth=True)
    report = run(tmp_path / "lab", tmp_path / "out")
    assert not report.rejects, messages(report)
    dataset = vlapipe.open_dataset(tmp_path / "out")
    rows = [
        row for file in sorted((tmp_path / "lab/data").rglob("*.parquet")) for row in pq.read_table(file).to_pylist()
    ]
    at = 0
    for number in range(3):
        episode = dataset.episode(number)
        for row in range(len(written.columns[number]["index"])):
            for camera in ("front", "depth"):
                assert bytes(episode.image_file(camera, row)) == rows[at][f"observation.images.{camera}"]["bytes"]
            at += 1
    assert dataset.manifest.streams["depth"]["unit"] == "mm"


def test_several_tasks_in_an_episode_are_an_instruction_a_row(tmp_path: Path) -> None:
    for version in ("v2.1", "v3.0"):
        written = write_lerobot(tmp_path / version, version=version, tasks=TWO_TASKS, cameras={})
        report = run(tmp_path / version, tmp_path / f"out-{version}")
        assert not report.rejects, messages(report)
        dataset = vlapipe.open_dataset(tmp_path / f"out-{version}")
        assert dataset.schema.instruction.column == "robot/task"
        for number in range(3):
            texts = [bytes(row).rstrip(b"\0").decode() for row in dataset.episode(number)["robot/task"]]
            assert texts == written.tasks[number]
        train = [i for i, split in enumerate(dataset.episodes["split"].to_pylist()) if split == "train"]
        wanted = [text for i in train for text in written.tasks[i]]
        loader = vlapipe.Loader(dataset, batch_size=len(wanted), seed=0)
        assert sorted(next(iter(loader))["task"]) == sorted(wanted)


def test_the_schema_is_the_ordinary_language_and_can_be_edited(tmp_path: Path) -> None:
    write_lerobot(tmp_path / "lab", cameras={"front": "video", "wrist": "image"})
    printed = CliRunner().invoke(cli, ["schema", "show", "lerobot", "--dataset", str(tmp_path / "lab")])
    assert printed.exit_code == 0, printed.output
    schema = schema_of("lerobot", tmp_path / "lab")
    assert printed.output == schema.toml
    assert schema.embodiment == "so100"
    assert (schema.action.kind, schema.action.of) == ("column", ("robot/action",))
    assert schema.sample.state == ("robot/state",)
    assert dict(schema.sample.sensors)["environment_state"] == "robot/environment_state"
    assert schema.field("robot/state").names == tuple(JOINTS)
    assert {stream.name: stream.kind for stream in schema.streams[1:]} == {"front": "video", "wrist": "images"}
    mine = tmp_path / "mine.toml"
    front = printed.output.index("[streams.front]")
    end = printed.output.index("[streams.wrist]")
    mine.write_text((printed.output[:front] + printed.output[end:]).replace('"robot/state"', '"robot/action"'))
    report = run(tmp_path / "lab", tmp_path / "out", schema=str(mine))
    assert not report.rejects
    assert set(vlapipe.open_dataset(tmp_path / "out").manifest.streams) == {"robot", "wrist"}
    without = CliRunner().invoke(cli, ["schema", "show", "lerobot"])
    assert "--dataset DIR" in str(without.exception)
    listed = CliRunner().invoke(cli, ["schema", "list"])
    assert "lerobot" in listed.output
    checked = CliRunner().invoke(cli, ["schema", "check", "lerobot", str(tmp_path / "lab")])
    assert checked.exit_code == 0, checked.output


def test_names_of_features_that_no_name_of_ours_can_be_are_changed(tmp_path: Path) -> None:
    write_lerobot(tmp_path / "lab", cameras={"robot": "video", "align": "video"})

    def change(info: dict[str, Any]) -> None:
        features = info["features"]
        features["observation.9 odd/name"] = features.pop("observation.count")
        features["observation.timestamp"] = features.pop("observation.matrix")

    edit_json(tmp_path / "lab/meta/info.json", change)
    renamed = {"observation.count": "observation.9 odd/name", "observation.matrix": "observation.timestamp"}
    for path in (tmp_path / "lab/data").rglob("*.parquet"):
        edit_table(path, lambda t: t.rename_columns([renamed.get(name, name) for name in t.column_names]))
    report = run(tmp_path / "lab", tmp_path / "out")
    assert not report.rejects, messages(report)
    assert "x9_odd_name" in vlapipe.open_dataset(tmp_path / "out").manifest.streams["robot"]["fields"]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_what_the_metadata_says_is_compared_with_the_rows(tmp_path: Path, version: str) -> None:
    root = tmp_path / "lab"
    write_lerobot(root, version=version, cameras={}, lengths=(12, 9, 15))
    data = sorted((root / "data").rglob("*.parquet"))[-1]  # of the last episode alone, in either version
    clean = data.read_bytes()

    def faults(change: Callable[[pa.Table], pa.Table]) -> tuple[set[str], str]:
        data.write_bytes(clean)
        edit_table(data, change)
        report = run(root, None)
        assert [reject["episode"] for reject in report.rejects] in ([], ["episode_000002"])
        return codes(report), messages(report)

    found, text = faults(lambda t: t.slice(0, 14))
    assert found == {"lerobot.rows"}
    assert "expected 15 rows, as meta/ says, found 14" in text
    found, text = faults(lambda t: with_column(t, "episode_index", [2] * 9 + [3] * 6))
    assert found == {"lerobot.index"}
    assert "episode_index: expected 2, found 3 in row 9 and 5 more" in text
    found, text = faults(lambda t: with_column(t, "timestamp", (np.arange(15) / 25).astype(np.float32)))
    assert found == {"lerobot.clock"}
    assert "expected 0.0333333, found 0.04 in row 1" in text
    found, text = faults(lambda t: with_column(t, "task_index", [0] * 15))
    assert found == {"lerobot.task"}
    assert "expected 1, found 0 in row 0" in text
    found, text = faults(lambda t: t.drop_columns(["action"]))
    assert found == {"npz.missing_array"}
    assert "action" in text
    found, text = faults(lambda t: with_column(t, "frame_index", [*range(7), *range(8, 16)]))
    assert {"lerobot.index", "lerobot.clock"} == found
    assert "frame_index: expected 7, found 8 in row 7" in text
    data.write_bytes(clean)
    edit_table(data, lambda t: with_column(t, "next.reward", np.zeros(15)))
    edit_json(root / "meta/info.json", lambda info: info.update(total_frames=99, total_tasks=5))
    report = run(root, None)
    told = "\n".join(finding["message"] for finding in report.findings)
    assert "next.reward: expected float32, found float64" in told
    assert "meta/info.json: total_frames: expected 36" in told
    assert "meta/info.json: total_tasks: expected 2" in told
    edit_json(root / "meta/info.json", lambda info: info["features"]["observation.state"].update(shape=[4], names=None))
    report = run(root, None)
    assert codes(report) == {"npz.shape"}
    assert len(report.rejects) == 3


def test_files_that_were_not_copied_are_named(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    write_lerobot(root, cameras={"front": "video", "wrist": "video"})
    gone = root / "videos/observation.images.wrist/chunk-000/file-001.mp4"
    gone.unlink()
    report = run(root, None)
    assert [reject["episode"] for reject in report.rejects] == ["episode_000002"]
    assert "videos/observation.images.wrist/chunk-000/file-001.mp4: expected wrist of episode_000002" in messages(
        report
    )
    (root / "data/chunk-000/file-000.parquet").unlink()
    report = run(root, None)
    assert len(report.rejects) == 3
    assert "data/chunk-000/file-000.parquet" in messages(report)


def test_a_camera_of_which_no_video_was_copied_is_absent_and_told(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    write_lerobot(root, version="v2.1", cameras={"front": "video", "wrist": "video"})
    shutil.rmtree(root / "videos/chunk-000/observation.images.wrist")
    report = run(root, tmp_path / "out")
    assert not report.rejects
    assert {"stream.absent", "stream.in_no_episode"} <= {finding["code"] for finding in report.findings}


def test_a_video_with_fewer_frames_than_rows_is_told(tmp_path: Path) -> None:
    write_lerobot(tmp_path / "lab", version="v2.1")
    write_lerobot(tmp_path / "short", version="v2.1", lengths=(12, 7, 15))
    video = "videos/chunk-000/observation.images.front/episode_000001.mp4"
    shutil.copy(tmp_path / "short" / video, tmp_path / "lab" / video)
    report = run(tmp_path / "lab", None)
    assert any(f["code"] == "clock.fewer_rows" and "expected 9 rows" in f["message"] for f in report.findings)
    shutil.copy(tmp_path / "lab" / video.replace("0001", "0000"), tmp_path / "lab" / video)
    report = run(tmp_path / "lab", None)
    assert codes(report) == {"clock.more_rows"}


BROKEN: dict[str, Callable[[Path], Any]] = {
    "no info": lambda root: (root / "meta/info.json").unlink(),
    "no json": lambda root: (root / "meta/info.json").write_text("{"),
    "deep": lambda root: (root / "meta/info.json").write_text("[" * 100_000),
    "a list": lambda root: (root / "meta/info.json").write_text("[1]"),
    "old version": lambda root: edit_json(root / "meta/info.json", lambda info: info.update(codebase_version="v1.6")),
    "new version": lambda root: edit_json(root / "meta/info.json", lambda info: info.update(codebase_version="v4.0")),
    "no fps": lambda root: edit_json(root / "meta/info.json", lambda info: info.update(fps=0)),
    "nan fps": lambda root: edit_json(root / "meta/info.json", lambda info: info.update(fps=float("nan"))),
    "no features": lambda root: edit_json(root / "meta/info.json", lambda info: info.update(features=[])),
    "odd shape": lambda root: edit_json(
        root / "meta/info.json", lambda info: info["features"]["action"].update(shape=["x"])
    ),
    "path with code": lambda root: edit_json(
        root / "meta/info.json", lambda info: info.update(data_path="{episode_index.__class__}")
    ),
    "wide number": lambda root: edit_json(
        root / "meta/info.json", lambda info: info.update(data_path="{chunk_index:0999999999d}")
    ),
    "unknown name": lambda root: edit_json(root / "meta/info.json", lambda info: info.update(data_path="{x}.parquet")),
    "no tasks": lambda root: (root / "meta/tasks.parquet").unlink(),
    "cut tasks": lambda root: (root / "meta/tasks.parquet").write_bytes(b"PAR1"),
    "a million tasks": lambda root: pq.write_table(
        pa.table({"task_index": np.zeros(1_000_000, dtype=np.int64), "task": ["x"] * 1_000_000}),
        root / "meta/tasks.parquet",
    ),
    "no episodes": lambda root: shutil.rmtree(root / "meta/episodes"),
    "cut episodes": lambda root: (root / "meta/episodes/chunk-000/file-000.parquet").write_bytes(b"PAR1PAR1"),
    "backwards": lambda root: edit_table(
        root / "meta/episodes/chunk-000/file-000.parquet", lambda t: with_column(t, "dataset_to_index", [0, 21, 36])
    ),
    "twice": lambda root: edit_table(
        root / "meta/episodes/chunk-000/file-000.parquet", lambda t: with_column(t, "episode_index", [0, 0, 2])
    ),
    "nan time": lambda root: edit_table(
        root / "meta/episodes/chunk-000/file-000.parquet",
        lambda t: with_column(t, "videos/observation.images.front/to_timestamp", [1.0, float("nan"), 2.0]),
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_metadata_that_cannot_be_used_is_one_line_with_its_file(tmp_path: Path, what: str) -> None:
    write_lerobot(tmp_path / "lab")
    BROKEN[what](tmp_path / "lab")
    with pytest.raises(UsageError) as error:
        run(tmp_path / "lab", None)
    assert "meta/" in str(error.value)
    assert "\n" not in str(error.value), str(error.value)


def test_a_path_in_the_metadata_never_leads_out_of_the_dataset(tmp_path: Path) -> None:
    write_lerobot(tmp_path / "lab", cameras={})
    shutil.copytree(tmp_path / "lab/data", tmp_path / "elsewhere")
    path = "../elsewhere/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    edit_json(tmp_path / "lab/meta/info.json", lambda info: info.update(data_path=path))
    with pytest.raises(UsageError, match="data_path: expected a path within the dataset"):
        run(tmp_path / "lab", None)


def test_the_same_command_goes_on_and_sees_metadata_that_changed(tmp_path: Path) -> None:
    root, out = tmp_path / "lab", tmp_path / "out"
    write_lerobot(root)
    first = run(root, out)
    assert run(root, out).was_finished
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    clean = path.read_bytes()
    edit_table(path, lambda t: with_column(t, "videos/observation.images.front/to_timestamp", [0.3, 0.7, 0.5]))
    assert run(root, out).changes["replaced"] == ["episode_000000"]
    path.write_bytes(clean)
    edit_table(path, lambda t: with_column(t, "tasks", [["open the drawer"], ["pick the cube"], ["open the drawer"]]))
    assert run(root, out).changes["set aside"] == ["episode_000000"]  # data/ says another task
    assert first.num_episodes == 3


def test_some_episodes_are_chosen_and_shards_are_filled_by_each_ones_share(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    write_lerobot(root, lengths=(12, 9, 15, 12, 9, 15), episodes_a_file=3)
    report = run(root, tmp_path / "out", where="instruction == 'open the drawer'")
    assert vlapipe.open_dataset(tmp_path / "out").episodes["id"].to_pylist() == ["episode_000002", "episode_000005"]
    assert report.num_found == 2
    found = find_episodes(root, schema_of("lerobot", root))
    whole = sum(
        path.stat().st_size for name in ("data", "videos") for path in (root / name).rglob("*.[mp]*") if path.is_file()
    )
    assert sum(raw.num_bytes for raw in found.episodes) == pytest.approx(whole, rel=1e-3)
    first, second = found.episodes[:2]
    assert first.num_bytes / second.num_bytes == pytest.approx(12 / 9, rel=1e-2)


def test_in_and_out_and_in_again_gives_the_same_dataset(tmp_path: Path) -> None:
    write_lerobot(tmp_path / "lab", cameras={"front": "image"}, tasks=TWO_TASKS)
    two, one = ["put it back", "pick the cube"], ["open the drawer"]  # LeRobot lists an episode's tasks in any order
    meta = tmp_path / "lab/meta/episodes/chunk-000/file-000.parquet"
    edit_table(meta, lambda t: with_column(t, "tasks", [two, one, two]))
    run(tmp_path / "lab", tmp_path / "first")
    told = vlapipe.open_dataset(tmp_path / "first").episodes["instruction"].to_pylist()
    assert told == ["pick the cube", "open the drawer", "pick the cube"]
    vlapipe.export(tmp_path / "first", tmp_path / "exported")
    report = run(tmp_path / "exported", tmp_path / "second")
    assert not report.rejects, messages(report)
    first, second = (vlapipe.open_dataset(tmp_path / name) for name in ("first", "second"))
    assert first.episodes["instruction"].to_pylist() == second.episodes["instruction"].to_pylist()
    for number in range(3):
        a, b = first.episode(number), second.episode(number)
        for field in first.manifest.streams["robot"]["fields"]:
            np.testing.assert_array_equal(a[f"robot/{field}"], b[f"robot/{field}"], err_msg=field)
        for row in range(len(a["front/timestamp"])):
            assert bytes(a.image_file("front", row)) == bytes(b.image_file("front", row))


def test_a_list_of_one_is_a_number(tmp_path: Path) -> None:
    write_lerobot(tmp_path / "lab", cameras={}, version="v2.0")
    for path in (tmp_path / "lab/data").rglob("*.parquet"):
        edit_table(path, lambda t: with_column(t, "next.reward", [[value] for value in t["next.reward"].to_pylist()]))
    report = run(tmp_path / "lab", tmp_path / "out")
    assert not report.rejects, messages(report)
    assert vlapipe.open_dataset(tmp_path / "out").episode(0)["robot/next_reward"].shape == (12,)


@pytest.mark.parametrize(
    "cameras", [{"front": "video"}, *(pytest.param(few, marks=pytest.mark.slow) for few in ({}, {"front": "image"}))]
)
def test_ten_steps_of_training(tmp_path: Path, cameras: dict[str, str]) -> None:
    write_lerobot(tmp_path / "lab", cameras=cameras)
    run(tmp_path / "lab", tmp_path / "out")
    options = ["--max-steps", "10", "--batch-size", "4", "--precision", "fp32"]
    trained = CliRunner().invoke(
        cli, ["train", "--data", str(tmp_path / "out"), "--out", str(tmp_path / "run"), *options]
    )
    assert trained.exit_code == 0, trained.output
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line][-1] == 10


def test_a_dataset_is_no_single_episode_and_a_file_is_no_dataset(tmp_path: Path) -> None:
    write_lerobot(tmp_path / "lab", cameras={})
    with pytest.raises(UsageError, match="--dataset"):
        run(tmp_path / "lab", None, single_episode=True)
    with pytest.raises(UsageError, match="no such folder"):
        run(tmp_path / "none", None)

"""Checks across episodes: a recording that occurs twice, a recording in both splits, a task with one episode."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from factories import make_dataset, make_episode

from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.pipeline.plan.split import split_of
from vlapipe.schemas.registry import built_in_schemas


def check(raw: Path, schema: str = "meca500") -> IngestReport:
    return ingest(IngestConfig(source=raw, dry_run=True, schema=schema))


def codes(report: IngestReport) -> list[str]:
    return [finding["code"] for finding in report.findings]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "raw", num_episodes=4)


def test_different_recordings_are_not_taken_for_the_same(raw: Path) -> None:
    assert codes(check(raw)) == []


def test_copied_recording_is_found_with_its_original(raw: Path) -> None:
    shutil.copytree(raw / "insert_red" / "episode_20260101_000000", raw / "insert_red" / "episode_20260101_000900")
    found = [f for f in check(raw).findings if f["code"] == "episode.duplicate"]
    assert len(found) == 1
    assert found[0]["episode"] == "insert_red/episode_20260101_000900"
    assert "the same bytes as insert_red/episode_20260101_000000" in found[0]["message"]


def test_same_recording_in_both_splits_is_found(raw: Path, tmp_path: Path) -> None:
    original = raw / "insert_red" / "episode_20260101_000000"
    for i in range(6):  # enough that the hash puts some of the copies on either side
        shutil.copytree(original, raw / "insert_red" / f"episode_20260101_0009{i:02d}")
    (tmp_path / "half.toml").write_text(built_in_schemas()["meca500"] + "\n[split]\nval = 0.5\n")
    report = check(raw, str(tmp_path / "half.toml"))
    assert "split.same_content" in codes(report)
    assert not report.has_errors


def test_schema_can_make_it_an_error_or_silence_it(raw: Path, tmp_path: Path) -> None:
    shutil.copytree(raw / "insert_red" / "episode_20260101_000000", raw / "insert_red" / "episode_20260101_000900")
    for severity, expected in (("error", True), ("off", False)):
        schema = tmp_path / f"{severity}.toml"
        text = built_in_schemas()["meca500"] + f'\n[checks.severity]\n"episode.duplicate" = "{severity}"\n'
        schema.write_text(text)
        report = check(raw, str(schema))
        assert report.has_errors is expected
        assert ("episode.duplicate" in codes(report)) is expected


def test_task_of_one_episode_is_named(raw: Path) -> None:
    shutil.rmtree(raw / "insert_red" / "episode_20260101_000002")
    found = [f for f in check(raw).findings if f["code"] == "task.one_episode"]
    assert [f["file"] for f in found] == ["insert_red"]


def test_report_sums_up_each_kind_the_gravest_first(raw: Path) -> None:
    for name in ("insert_red/episode_20260101_000000", "insert_blue/episode_20260101_000001"):
        (raw / name / "robot_states.csv").write_text("")
    summary = json.loads(check(raw).to_json())["summary"]
    assert list(summary) == ["csv.empty", "task.one_episode"]
    assert (summary["csv.empty"]["episodes"], summary["csv.empty"]["places"]) == (2, 2)
    assert summary["csv.empty"]["severity"] == "error"
    assert summary["csv.empty"]["first"].startswith("insert_")


def test_files_that_nothing_reads_are_named_by_kind(raw: Path) -> None:
    episode = raw / "insert_red" / "episode_20260101_000000"
    shutil.move(episode / "images" / "View2", episode / "spare" / "View2")
    (episode / "notes.txt").write_text("good light")
    found = {f["column"]: f for f in check(raw).findings if f["code"] == "file.not_read"}
    assert set(found) == {".jpg", ".txt"}
    assert found[".jpg"]["count"] == 9
    assert found[".txt"]["file"].endswith("notes.txt")


def test_a_video_that_no_stream_reads_is_a_warning_with_the_kind_that_reads_it(raw: Path) -> None:
    (raw / "insert_red" / "episode_20260101_000000" / "front.mp4").write_bytes(b"x")
    (found,) = [f for f in check(raw).findings if f["code"] == "file.data_not_read"]
    assert (found["severity"], found["count"]) == ("warning", 1)
    assert "kind = 'video'" in found["message"]


def test_data_without_an_episode_to_train_on_is_told(raw: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.toml"
    for val, expected in ((0.999, True), (0.1, False)):
        schema.write_text(built_in_schemas()["meca500"] + f"\n[split]\nval = {val}\n")
        found = [f for f in check(raw, str(schema)).findings if f["code"] == "split.no_train"]
        assert ["4 of 4 episodes validate" in f["message"] for f in found] == [True] * expected


def test_episodes_of_another_rate_are_told(tmp_path: Path) -> None:
    for name, rate_hz, num_rows in (("episode_1", 30, 120), ("episode_2", 10, 60), ("episode_3", 30, 120)):
        make_episode(
            tmp_path / "raw" / "task" / name, rate_hz=rate_hz, num_rows=num_rows, cameras=("View1",), sensor=False
        )
    schema = tmp_path / "schema.toml"
    text = built_in_schemas()["meca500"].replace("rate_hz = 100\n", "")
    begin, end = text.index("[streams.sensor]"), text.index("[streams.camera]")
    schema.write_text((text[:begin] + text[end:]).replace("sensors = ", "# "))
    [found] = [f for f in check(tmp_path / "raw", str(schema)).findings if f["code"] == "clock.rates_differ"]
    assert found["episode"] == "task/episode_2"
    assert "about 30 Hz as in task/episode_" in found["message"]
    assert "found 10 Hz" in found["message"]


def test_task_that_only_validates_is_told(raw: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.toml"
    fractions = [i / 100 for i in range(1, 100)]
    told = []
    for val in fractions:
        tasks = {
            task: [split_of(f"{task}/episode_20260101_{i:06d}", val) for i in range(4) if i % 2 == which]
            for which, task in enumerate(("insert_red", "insert_blue"))
        }
        told = [task for task, splits in tasks.items() if set(splits) == {"val"}]
        if len(told) == 1:
            break
    schema.write_text(built_in_schemas()["meca500"] + f"\n[split]\nval = {val}\n")
    found = [f for f in check(raw, str(schema)).findings if f["code"] == "split.task_only_in_val"]
    assert [(f["file"], f["severity"], f["found"]) for f in found] == [(told[0], "warning", "2 of 2 episodes validate")]


def test_task_of_one_episode_that_validates_says_so(raw: Path, tmp_path: Path) -> None:
    shutil.rmtree(raw / "insert_red" / "episode_20260101_000002")
    alone = "insert_red/episode_20260101_000000"
    val = next(i / 100 for i in range(1, 100) if split_of(alone, i / 100) == "val")
    schema = tmp_path / "schema.toml"
    schema.write_text(built_in_schemas()["meca500"] + f"\n[split]\nval = {val}\n")
    [found] = [f for f in check(raw, str(schema)).findings if f["code"] == "task.one_episode"]
    assert found["found"] == "1 episode, which only validates"

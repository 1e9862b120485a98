from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from vlapipe.pipeline.demo import DemoReport, dataset, make_demo
from vlapipe.pipeline.demo.defects import DEFECTS
from vlapipe.schemas.errors import StoppedError, UsageError


def _bytes(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_with_other_workers(demo: DemoReport, tmp_path: Path) -> None:
    again = make_demo(tmp_path / "again", num_episodes=2, seed=7, workers=2)
    assert _bytes(again.directory) == _bytes(demo.directory)


def test_another_seed_gives_other_episodes(demo: DemoReport, tmp_path: Path) -> None:
    other = make_demo(tmp_path / "other", num_episodes=1, seed=8, workers=1)
    assert not set(_bytes(other.directory).values()) & set(_bytes(demo.directory).values())


def test_the_report_counts_what_is_on_disk(demo: DemoReport) -> None:
    files = _bytes(demo.directory)
    assert demo.num_episodes == 2
    assert demo.num_files == len(files)
    assert demo.num_bytes == sum(map(len, files.values()))
    assert demo.csv_bytes == sum(len(data) for name, data in files.items() if name.endswith(".csv"))
    assert 2 * 3.4 < demo.hours * 3600 < 2 * 5
    assert demo.tasks == tuple(sorted({name.split("/")[0] for name in files}))
    assert demo.defects == ()
    assert "planted_defects.json" not in files


def test_episode_folders_are_named_by_their_time(demo: DemoReport) -> None:
    names = sorted(path.name for path in demo.directory.glob("*/*"))
    assert names == ["episode_20260112_090000", "episode_20260112_090020"]


def test_broken_episodes_come_on_top_of_the_good_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {name: DEFECTS[name] for name in ("nan_value", "missing_camera", "sensor_nan")}
    monkeypatch.setattr(dataset, "DEFECTS", chosen)
    monkeypatch.setattr(dataset, "KEPT_DEFECTS", {})
    report = make_demo(tmp_path / "raw", num_episodes=1, seed=7, defects=True, workers=1)
    folders = {path.relative_to(report.directory).as_posix() for path in report.directory.glob("*/episode_*")}
    assert report.num_episodes == 1
    assert len(folders) == 4
    assert [defect.name for defect in report.defects] == list(chosen)
    assert {defect.episode for defect in report.defects} < folders
    written = json.loads((report.directory / "planted_defects.json").read_text())
    assert written == [asdict(defect) for defect in report.defects]


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        make_demo(tmp_path, num_episodes=1, workers=1)
    assert _bytes(tmp_path) == {"notes.txt": b"mine"}


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        make_demo(tmp_path / "file", num_episodes=1, workers=1)


@pytest.mark.parametrize(
    "wrong", [{"num_episodes": 0}, {"seed": -1}, {"workers": 0}], ids=lambda wrong: next(iter(wrong))
)
def test_an_argument_out_of_range_is_refused_before_anything_is_made(wrong: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        make_demo(tmp_path / "raw", **wrong)
    assert not (tmp_path / "raw").exists()


def test_full_disk_ends_a_demo_and_leaves_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path, recording: object) -> None:
        folder.mkdir(parents=True)
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(dataset, "write_episode", fail)
    with pytest.raises(StoppedError, match="raw: the disk is full"):
        make_demo(tmp_path / "raw", num_episodes=1, workers=1)
    assert not (tmp_path / "raw").exists()  # so that the same command can begin again

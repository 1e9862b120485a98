from __future__ import annotations

import json
import math
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vlapipe.pipeline.demo.defects import DEFECTS, KEPT_DEFECTS, PlantedDefect, plant

CSV = "robot_states.csv"
NPZ = "sensor_data.npz"

Broken = Callable[[str], tuple[Path, PlantedDefect]]


@pytest.fixture
def broken(short_episode: Path, tmp_path: Path) -> Broken:
    """Plant a fault in a copy of the short episode."""

    def make(name: str) -> tuple[Path, PlantedDefect]:
        folder = tmp_path / "Task" / "episode"
        shutil.copytree(short_episode, folder)
        return folder, plant(name, folder, "Task/episode")

    return make


def _lines(folder: Path) -> list[list[str]]:
    return [line.split(",") for line in (folder / CSV).read_text().splitlines()]


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", [*DEFECTS, *KEPT_DEFECTS])
def test_a_defect_changes_its_place_and_nothing_else(name: str, broken: Broken, short_episode: Path) -> None:
    folder, defect = broken(name)
    before, after = _bytes(short_episode), _bytes(folder)
    place = defect.file.removeprefix("Task/episode/")
    changed = {file for file in before.keys() | after.keys() if before.get(file) != after.get(file)}
    assert (defect.name, defect.episode, defect.is_kept) == (name, "Task/episode", name in KEPT_DEFECTS)
    assert defect.description
    assert changed
    if name == "bad_image_name":
        assert len(changed) == 2
        assert place in changed
    else:
        assert all(file == place or file.startswith(place + "/") for file in changed)


@pytest.mark.parametrize(
    ("name", "column", "is_faulty"),
    [
        ("nan_value", "joint_4", lambda text: text == "nan"),
        ("inf_value", "pose_z", lambda text: text == "inf"),
        ("empty_cell", "pose_a", lambda text: text == ""),
        ("text_in_number", "joint_1", lambda text: not text.replace(".", "").isdigit()),
        ("value_out_of_range", "joint_2", lambda text: float(text) == 4000),
        ("clock_backwards", "origin_timestamp", lambda text: math.isfinite(float(text))),
    ],
)
def test_one_cell_is_faulty_at_the_line_and_column_given(
    name: str, column: str, is_faulty: Callable[[str], bool], broken: Broken, short_episode: Path
) -> None:
    folder, defect = broken(name)
    before, after = _lines(short_episode), _lines(folder)
    different = [
        (line, after[0][at])
        for line, (old, new) in enumerate(zip(before, after, strict=True), start=1)
        for at, (a, b) in enumerate(zip(old, new, strict=True))
        if a != b
    ]
    assert different == [(defect.line, column)]
    assert defect.column == column
    assert defect.line is not None
    assert is_faulty(after[defect.line - 1][after[0].index(column)])


def test_the_clock_goes_back_by_a_second_at_one_line_only(broken: Broken) -> None:
    folder, defect = broken("clock_backwards")
    lines = _lines(folder)
    stamps = np.array([float(cells[1]) for cells in lines[1:]])
    back = np.flatnonzero(np.diff(stamps) < 0) + 1
    assert (back + 2).tolist() == [defect.line]  # row 0 is line 2
    assert stamps[back[0]] - stamps[back[0] - 1] == pytest.approx(-0.99, abs=0.01)


def test_a_column_is_missing_from_every_line(broken: Broken, short_episode: Path) -> None:
    folder, defect = broken("missing_column")
    at = _lines(short_episode)[0].index("joint_3")
    assert _lines(folder) == [cells[:at] + cells[at + 1 :] for cells in _lines(short_episode)]
    assert (defect.line, defect.column) == (1, "joint_3")


def test_a_column_is_there_twice(broken: Broken) -> None:
    folder, defect = broken("duplicate_column")
    lines = _lines(folder)
    assert lines[0].count("joint_5") == 2
    assert {len(cells) for cells in lines} == {17}
    assert (defect.line, defect.column) == (1, "joint_5")


@pytest.mark.parametrize(("name", "num_cells"), [("ragged_row", 13), ("extra_cells_row", 18)])
def test_one_row_has_another_number_of_cells(name: str, num_cells: int, broken: Broken) -> None:
    folder, defect = broken(name)
    odd = [(line, len(cells)) for line, cells in enumerate(_lines(folder), start=1) if len(cells) != 16]
    assert odd == [(defect.line, num_cells)]


def test_the_last_line_ends_within_a_number(broken: Broken, short_episode: Path) -> None:
    folder, defect = broken("truncated_last_line")
    before, after = (short_episode / CSV).read_bytes(), (folder / CSV).read_bytes()
    assert before.startswith(after)
    assert not after.endswith(b"\n")
    assert defect.line == len(_lines(folder)) == len(_lines(short_episode))
    assert len(_lines(folder)[-1]) == 13


def test_nul_bytes_begin_at_the_line_given(broken: Broken) -> None:
    folder, defect = broken("nul_bytes")
    data = (folder / CSV).read_bytes()
    assert data.count(0) == 512
    assert data[: data.index(0)].count(b"\n") + 1 == defect.line


def test_the_csv_ends_after_its_header(broken: Broken, short_episode: Path) -> None:
    folder, defect = broken("header_only_csv")
    assert _lines(folder) == _lines(short_episode)[:1]
    assert defect.line == 1


def test_the_csv_is_empty(broken: Broken) -> None:
    folder, defect = broken("empty_csv")
    assert (folder / CSV).read_bytes() == b""
    assert defect.line is None


def test_the_csv_is_not_there(broken: Broken) -> None:
    folder, defect = broken("missing_csv")
    assert not (folder / CSV).exists()
    assert defect.file == f"Task/episode/{CSV}"


def test_the_archive_is_cut(broken: Broken, short_episode: Path) -> None:
    folder, _ = broken("sensor_truncated")
    assert (folder / NPZ).stat().st_size == (short_episode / NPZ).stat().st_size // 2
    with pytest.raises(zipfile.BadZipFile):
        np.load(folder / NPZ)


def test_an_array_is_missing(broken: Broken) -> None:
    folder, defect = broken("sensor_missing_array")
    with np.load(folder / NPZ) as archive:
        assert archive.files == ["timestamps", "send_timestamps", "alines"]
    assert defect.column == "forces"


def test_stamps_are_fewer_than_rows(broken: Broken) -> None:
    folder, defect = broken("sensor_length_mismatch")
    with np.load(folder / NPZ) as archive:
        assert len(archive["timestamps"]) == len(archive["forces"]) - 10 == len(archive["alines"]) - 10
    assert defect.column == "timestamps"


def test_an_array_needs_pickle(broken: Broken) -> None:
    folder, defect = broken("sensor_object_array")
    with np.load(folder / NPZ) as archive:
        assert len(archive["timestamps"])
        with pytest.raises(ValueError, match="allow_pickle"):
            archive["forces"]
    assert defect.column == "forces"


def test_one_force_is_nan(broken: Broken) -> None:
    folder, defect = broken("sensor_nan")
    with np.load(folder / NPZ) as archive:
        rows = np.flatnonzero(np.isnan(archive["forces"]))
        assert np.isfinite(archive["alines"]).all()
    assert len(rows) == 1
    assert f"row {rows[0]} " in defect.description
    assert defect.column == "forces"


def test_the_sensors_clock_goes_back_once(broken: Broken) -> None:
    folder, defect = broken("sensor_clock_backwards")
    with np.load(folder / NPZ) as archive:
        back = np.flatnonzero(np.diff(archive["timestamps"]) < 0) + 1
    assert len(back) == 1
    assert f"row {back[0]} " in defect.description
    assert defect.column == "timestamps"


def test_the_metadata_is_no_json(broken: Broken) -> None:
    folder, defect = broken("bad_metadata_json")
    assert defect.file == "Task/episode/metadata.json"
    with pytest.raises(json.JSONDecodeError):
        json.loads((folder / "metadata.json").read_text())


def test_a_jpeg_is_cut_to_60_percent(broken: Broken, short_episode: Path) -> None:
    folder, defect = broken("truncated_jpeg")
    path = defect.file.removeprefix("Task/episode/")
    whole, cut = (short_episode / path).read_bytes(), (folder / path).read_bytes()
    assert whole.startswith(cut)
    assert len(cut) == pytest.approx(0.6 * len(whole), abs=1)


def test_a_jpeg_is_empty(broken: Broken) -> None:
    folder, defect = broken("empty_jpeg")
    assert (folder.parents[1] / defect.file).read_bytes() == b""


def test_a_web_page_is_named_jpg(broken: Broken) -> None:
    folder, defect = broken("not_a_jpeg")
    assert defect.file.endswith(".jpg")
    assert (folder.parents[1] / defect.file).read_bytes().startswith(b"<!DOCTYPE html>")


def test_an_images_name_is_no_time(broken: Broken, short_episode: Path) -> None:
    folder, defect = broken("bad_image_name")
    assert defect.file == "Task/episode/images/View1/frame_abc.jpg"
    assert (folder.parents[1] / defect.file).is_file()
    assert len(_bytes(folder)) == len(_bytes(short_episode))


def test_a_view_is_missing(broken: Broken) -> None:
    folder, defect = broken("missing_camera")
    assert defect.file == "Task/episode/images/View2"
    assert [path.name for path in (folder / "images").iterdir()] == ["View1"]


def test_there_are_no_images(broken: Broken) -> None:
    folder, defect = broken("no_images")
    assert defect.file == "Task/episode/images"
    assert list((folder / "images").iterdir()) == []


def test_the_sensors_clock_runs_2_percent_fast(broken: Broken, short_episode: Path) -> None:
    folder, defect = broken("sensor_clock_drift")
    with np.load(folder / NPZ) as after, np.load(short_episode / NPZ) as before:
        spans = [np.ptp(archive["timestamps"]) for archive in (after, before)]
        assert spans[0] == pytest.approx(1.02 * spans[1], rel=1e-6)
        assert after["timestamps"][0] == before["timestamps"][0]
    assert defect.column == "timestamps"


def test_rows_are_lost_before_the_line_given(broken: Broken, short_episode: Path) -> None:
    folder, defect = broken("robot_gap")
    before, after = _lines(short_episode), _lines(folder)
    assert defect.line is not None
    at = defect.line - 1
    assert after == before[:at] + before[at + 60 :]


def test_a_camera_repeats_one_image_and_loses_none(broken: Broken, short_episode: Path) -> None:
    folder, _ = broken("camera_frozen")
    images = [path.read_bytes() for path in sorted((folder / "images" / "View1").iterdir())]
    whole = [path.read_bytes() for path in sorted((short_episode / "images" / "View1").iterdir())]
    different = [i for i in range(len(whole)) if images[i] != whole[i]]
    assert len(images) == len(whole)
    assert different == [*range(different[0], different[0] + int(0.4 * len(whole)) - 1)]
    assert {images[i] for i in different} == {whole[different[0] - 1]}


def test_one_force_is_repeated(broken: Broken, short_episode: Path) -> None:
    folder, defect = broken("sensor_stuck")
    with np.load(folder / NPZ) as after, np.load(short_episode / NPZ) as before:
        different = np.flatnonzero(after["forces"] != before["forces"])
        assert len(set(after["forces"][different[0] - 1 : different[-1] + 1])) == 1
        assert f"{int(0.3 * len(before['forces']))} rows from row {different[0] - 1} " in defect.description
    assert defect.column == "forces"

"""Which files are a recording, which lead, where images have their times, and what is asked about files left unread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import make_jpeg
from inferring import infer_and_ingest
from numpy.typing import NDArray

from vlapipe import open_dataset
from vlapipe.pipeline.infer.infer import infer_schema
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.schema import Schema

RANDOM = np.random.default_rng(5)
START_S = 1_700_000_000.0


def walk(rows: int, width: int) -> NDArray[np.float64]:
    return np.cumsum(RANDOM.normal(0, 0.02, (rows, width)), axis=0)


def write_table(path: Path, rows: int = 40, start_s: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.column_stack([start_s + np.arange(rows) * 0.02, walk(rows, 6)])
    header = "timestamp," + ",".join(f"joint_{i}" for i in range(1, 7))
    lines = [f"{row[0]:.3f}," + ",".join(f"{value:.5f}" for value in row[1:]) for row in cells]
    path.write_text("\n".join([header, *lines, ""]))


def write_images(folder: Path, numbers: Sequence[int]) -> None:
    folder.mkdir(parents=True)
    for number in numbers:
        (folder / f"{number}.jpg").write_bytes(make_jpeg(number % 200))


def inferred(root: Path) -> tuple[Schema, tuple[str, ...]]:
    found = infer_schema(root)
    assert found.faults == ()
    return parse_schema(found.toml, "inferred"), found.questions


def make_lab(root: Path, num: int = 2) -> list[Path]:
    folders = [root / f"episode_{i}" for i in range(num)]
    for i, folder in enumerate(folders):
        write_table(folder / "robot.csv", start_s=START_S + 100 * i)
    return folders


@pytest.mark.parametrize(
    "names",
    [
        ["left_arm.csv", "right_arm.csv"],
        ["ep_0/arm_1.csv", "ep_0/arm_2.csv", "ep_1/arm_1.csv", "ep_1/arm_2.csv"],
        ["ep_0/left/data.csv", "ep_0/right/data.csv", "ep_1/left/data.csv", "ep_1/right/data.csv"],
    ],
)
def test_two_arms_are_one_recording(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        write_table(tmp_path / "lab" / name)
    schema, questions = inferred(tmp_path / "lab")
    assert (schema.episodes.per_file, len(schema.streams), questions) == (False, 2, ())
    assert len(schema.action.of) == len(schema.sample.state) == 2


def test_two_arms_in_parquet_are_one_recording(tmp_path: Path) -> None:
    for i in range(2):
        for side in ("left", "right"):
            path = tmp_path / "lab" / f"ep_{i}" / f"{side}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            columns = {f"joint_{j}": column for j, column in enumerate(walk(40, 6).T)}
            pq.write_table(pa.table({"timestamp": START_S + np.arange(40) * 0.02, **columns}), path)
    schema, questions = inferred(tmp_path / "lab")
    assert ([stream.files for stream in schema.streams], questions) == ([("left.parquet",), ("right.parquet",)], ())


@pytest.mark.parametrize(("rows", "asked"), [((40, 40), True), ((40, 70), False)])
def test_files_of_other_names_are_recordings_and_asked_if_nothing_tells(
    tmp_path: Path, rows: tuple[int, int], asked: bool
) -> None:
    write_table(tmp_path / "lab" / "cold.csv", rows[0])
    write_table(tmp_path / "lab" / "warm.csv", rows[1])
    schema, questions = inferred(tmp_path / "lab")
    assert schema.episodes.per_file
    assert [question.startswith("episodes: layout: each file is a recording") for question in questions] == [
        True
    ] * asked


def test_a_table_of_episodes_does_not_lead_containers(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    root.mkdir()
    (root / "episodes.csv").write_text("index,length,success\n" + "".join(f"{i},40,{i % 2}\n" for i in range(30)))
    for i in range(3):
        with h5py.File(root / f"episode_{i}.hdf5", "w") as file:
            file["action"], file["observations/qpos"], file.attrs["fps"] = walk(40, 7), walk(40, 7), 50
    schema, questions = inferred(root)
    assert (schema.anchor_stream.files, questions) == (("episode_*.hdf5",), ())


def test_a_container_beside_a_table_is_a_stream_of_its_own(tmp_path: Path) -> None:
    for i, folder in enumerate(make_lab(tmp_path / "lab")):
        with h5py.File(folder / "tactile.h5", "w") as file:
            file["time"], file["pressure"] = START_S + 100 * i + np.arange(160) * 0.005, walk(160, 16)
    _, report = infer_and_ingest(tmp_path / "lab", tmp_path / "out")
    with h5py.File(tmp_path / "lab" / "episode_1" / "tactile.h5") as file:
        stored = open_dataset(tmp_path / "out").episode(1)["tactile/pressure"]
        np.testing.assert_array_equal(stored, file["pressure"][:])
    assert report.num_episodes == 2


def test_arrays_of_another_length_with_a_clock_are_a_stream_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    wrench, pixels = walk(400, 6), RANDOM.integers(0, 255, (30, 24, 32, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "lab" / "run.h5", "w") as file:
        file["robot/timestamp"], file["robot/q"] = START_S + np.arange(100) * 0.01, walk(100, 7)
        file["force/timestamp"], file["force/wrench"] = START_S + np.arange(400) * 0.0025, wrench
        file["camera/timestamp"], file["camera/rgb"] = START_S + np.arange(30) / 30, pixels
        file["calibration/k"] = np.eye(3)
    found, _ = infer_and_ingest(tmp_path / "lab", tmp_path / "out")
    assert found.questions == ()
    episode = open_dataset(tmp_path / "out").episode(0)
    np.testing.assert_array_equal(episode["force/wrench"], wrench)
    np.testing.assert_array_equal(episode["rgb/pixels"], pixels)
    np.testing.assert_allclose(episode["rgb/timestamp"], START_S + np.arange(30) / 30)


def test_numbered_images_of_which_some_are_lost_belong_to_their_rows(tmp_path: Path) -> None:
    kept = [i for i in range(40) if i not in (7, 8, 20)]
    for folder in make_lab(tmp_path / "lab"):
        write_images(folder / "rgb", kept)
    found, _ = infer_and_ingest(tmp_path / "lab", tmp_path / "out")
    assert found.questions == ()
    episode = open_dataset(tmp_path / "out").episode(0)
    np.testing.assert_array_equal(episode["camera/timestamp"], episode["robot/timestamp"][kept])


def test_numbers_that_last_as_long_as_the_robot_are_times(tmp_path: Path) -> None:
    write_table(tmp_path / "lab" / "robot.csv", rows=100)
    write_images(tmp_path / "lab" / "rgb", [round(i * 1000 / 30) for i in range(60)])
    schema, questions = inferred(tmp_path / "lab")
    assert (schema.streams[1].time.unit, schema.streams[1].time.index_rate_hz, questions) == ("ms", None, ())


def test_a_rate_of_images_that_is_only_supposed_is_asked(tmp_path: Path) -> None:
    for folder in make_lab(tmp_path / "lab"):
        write_images(folder / "rgb", range(15))
    _, questions = inferred(tmp_path / "lab")
    assert [question.partition(" (")[0] for question in questions] == [
        "camera: how many images a second, which nothing states: 18.75"
    ]


def test_plots_and_other_papers_are_no_cameras_and_no_questions(tmp_path: Path) -> None:
    for folder in make_lab(tmp_path / "lab"):
        write_images(folder / "plots", [1])
        (folder / "config.json").write_text("{}")
    np.savez(tmp_path / "lab" / "calibration.npz", k=np.eye(3), d=np.zeros(5))
    (tmp_path / "lab" / "calibration.csv").write_text("a,b\n1,2\n3,4\n")
    schema, questions = inferred(tmp_path / "lab")
    assert (len(schema.streams), questions) == (1, ())


@pytest.mark.parametrize("suffix", [".mat", ".bag", ".svo", ".tfrecord"])
def test_recordings_that_no_stream_reads_are_asked_about(tmp_path: Path, suffix: str) -> None:
    for folder in make_lab(tmp_path / "lab"):
        (folder / f"log{suffix}").write_bytes(b"x")
    _, questions = inferred(tmp_path / "lab")
    assert [question.startswith(f"files: 2 {suffix} files, such as ") for question in questions] == [True]


def test_an_array_a_moment_is_no_recording_and_asked_about(tmp_path: Path) -> None:
    for folder in make_lab(tmp_path / "lab"):
        (folder / "depth").mkdir()
        for i in range(40):
            np.save(folder / "depth" / f"{i:05d}.npy", np.zeros((24, 32), np.uint16))
    schema, questions = inferred(tmp_path / "lab")
    assert len(schema.streams) == 1
    assert [question.startswith("files: 80 .npy files") for question in questions] == [True]


def test_files_are_looked_into_once_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many episodes the heads of three files are read, whatever else is tried."""
    make_lab(tmp_path / "lab", num=30)
    opened: list[Path] = []
    from vlapipe.pipeline.infer.files import heads

    real = heads.look_at_table
    monkeypatch.setattr(heads, "look_at_table", lambda path, label: opened.append(path) or real(path, label))
    inferred(tmp_path / "lab")
    assert len(opened) == len(set(opened)) <= 4

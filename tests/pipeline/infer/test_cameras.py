"""Guesses which number in an image's name is its stamp, and which images of one folder belong to one camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import make_jpeg
from inferring import ROWS, WAVE, infer_and_ingest, text_of

from vlapipe import open_dataset
from vlapipe.pipeline.infer.files.image_names import number_pattern
from vlapipe.pipeline.infer.infer import infer_schema
from vlapipe.schemas.parse import parse_schema

START_S = 1_700_000_000
STEPS = np.arange(ROWS) * 0.1


def recording(root: Path, names: list[str], folder: str = "img") -> Path:
    """A log with an epoch clock beside one folder of images."""
    rows = [[f"{START_S + i * 0.1:.3f}", *map(float, WAVE[i, :3])] for i in range(ROWS)]
    (root / folder).mkdir(parents=True)
    (root / "state.csv").write_text("timestamp,x,y,z\n" + text_of(rows))
    for i, name in enumerate(names):
        (root / folder / name).write_bytes(make_jpeg(i))
    return root


@pytest.mark.parametrize(
    "name",
    [
        "{s:.3f}_{i:06d}.jpg",
        "{i:06d}_{s:.3f}.jpg",
        "frame{i}_{ns}.jpg",
        "{ns}.jpg",
        "cam0_{ns}.jpg",
        "{ns}_cam0.jpg",
    ],
)
def test_stamp_is_the_number_that_counts_from_1970(name: str, tmp_path: Path) -> None:
    stamps = [(i, START_S + i * 0.1) for i in range(ROWS)]
    names = [name.format(i=i, s=s, ns=START_S * 10**9 + i * 10**8) for i, s in stamps]
    infer_and_ingest(recording(tmp_path / "lab", names), tmp_path / "out")
    clock = open_dataset(tmp_path / "out").episode(0)["camera/timestamp"]
    seconds = clock / 1e9 if clock.dtype == np.int64 else clock
    np.testing.assert_allclose(seconds, START_S + STEPS, atol=1e-5)


@pytest.mark.parametrize("name", ["frame{k}_{n:06d}.jpg", "{n:06d}_cam0.jpg", "run3_{n:06d}_v2.jpg"])
def test_number_is_the_one_that_tells_images_apart(name: str, tmp_path: Path) -> None:
    names = [name.format(k=i, n=100 * i) for i in range(ROWS)]
    infer_and_ingest(recording(tmp_path / "lab", names), tmp_path / "out")
    np.testing.assert_array_equal(open_dataset(tmp_path / "out").episode(0)["align/camera"], np.arange(ROWS))


def test_cameras_of_one_folder_by_what_stands_before_the_time(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    (root / "IMG").mkdir(parents=True)
    lines = []
    for i in range(ROWS):
        stamp = f"2016_12_01_13_30_{48 + i // 10:02d}_{i % 10 * 100:03d}"
        cameras = [f"IMG/{camera}_{stamp}.jpg" for camera in ("center", "left", "right")]
        lines.append(", ".join([*cameras, f"{WAVE[i, 0]:.6f}", f"{WAVE[i, 1]:.6f}", "0", "22.14829"]))
        for camera in cameras:
            (root / camera).write_bytes(make_jpeg(i))
    (root / "driving_log.csv").write_text("\n".join(lines) + "\n")
    inferred, _ = infer_and_ingest(root, tmp_path / "out")
    assert [s.name for s in parse_schema(inferred.toml, "inferred").streams] == ["robot", "center", "left", "right"]
    episode = open_dataset(tmp_path / "out").episode(0)
    for camera in ("center", "left", "right"):
        np.testing.assert_array_equal(np.diff(episode[f"{camera}/timestamp"]), 100_000_000)
        np.testing.assert_array_equal(episode[f"{camera}/timestamp"], episode["robot/timestamp"])


def test_time_amid_names_that_differ_around_it(tmp_path: Path) -> None:
    names = [f"f{i}_20231114_2213{20 + i // 10:02d}_{i % 10}00.jpg" for i in range(ROWS)]
    infer_and_ingest(recording(tmp_path / "lab", names), tmp_path / "out")
    clock = open_dataset(tmp_path / "out").episode(0)["camera/timestamp"]
    np.testing.assert_array_equal(clock, START_S * 10**9 + np.arange(ROWS) * 10**8)


def test_stamps_that_are_nearly_all_one_do_not_fit(tmp_path: Path) -> None:
    names = [f"{START_S + i // 20}_{i % 20 * 50_000_000:09d}.jpg" for i in range(ROWS)]
    inferred = infer_schema(recording(tmp_path / "lab", names))
    assert any("images share one stamp" in fault for fault in inferred.faults)


def test_no_pattern_where_a_name_has_no_such_number() -> None:
    assert number_pattern(["a1_1.2.3.jpg", "b2_1.2.4.jpg"], 0) == r"(\d+)\D*$"
    assert number_pattern(["a1.jpg", "b.jpg"], 0) is None

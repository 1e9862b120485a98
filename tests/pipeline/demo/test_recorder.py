from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from vlapipe.pipeline.demo import DemoReport
from vlapipe.pipeline.demo.kinematics import tip_pose

HEADER = (
    "recv_timestamp,origin_timestamp,send_timestamp,force_placeholder,"
    "joint_1,joint_2,joint_3,joint_4,joint_5,joint_6,pose_x,pose_y,pose_z,pose_a,pose_b,pose_r"
)


@pytest.fixture
def episode(demo: DemoReport) -> Path:
    return min(demo.directory.glob("*/episode_*"))


@pytest.fixture
def cells(episode: Path) -> list[list[str]]:
    return [line.split(",") for line in (episode / "robot_states.csv").read_text().splitlines()[1:]]


@pytest.fixture
def values(cells: list[list[str]]) -> np.ndarray:
    return np.array(cells, dtype=np.float64)


def test_the_csv_has_the_recorders_header_and_ends_with_a_newline(episode: Path) -> None:
    data = (episode / "robot_states.csv").read_bytes()
    assert data.startswith(HEADER.encode() + b"\n")
    assert data.endswith(b"\n")
    assert b"\r" not in data


def test_values_are_float32_printed_in_full(cells: list[list[str]]) -> None:
    for row in cells:
        assert row[3] == "0.0"
        for text in row[4:]:
            assert repr(float(np.float32(text))) == text
    assert max(len(text.lstrip("-").replace(".", "")) for row in cells for text in row[4:]) >= 16


def test_stamps_are_printed_as_python_prints_time(cells: list[list[str]]) -> None:
    assert all(repr(float(text)) == text for row in cells for text in row[:3])


def test_joints_lie_on_encoder_ticks_and_the_pose_follows_from_them(values: np.ndarray) -> None:
    joints, pose = values[:, 4:10], values[:, 10:]
    assert np.abs(joints / 0.0005 - np.rint(joints / 0.0005)).max() < 0.02  # float32 of a tick
    assert np.abs(tip_pose(joints) - pose).max() < 2e-5


def test_the_robot_ticks_at_100_hz_with_jitter_and_now_and_then_a_late_row(values: np.ndarray) -> None:
    received, origin, sent = values[:, :3].T
    steps = np.diff(origin)
    assert len(values) == pytest.approx((origin[-1] - origin[0]) * 100 + 1, abs=2)
    quarter, three_quarters = np.percentile(steps, [25, 75])
    assert 0.0002 < three_quarters - quarter < 0.0006  # 0.38 ms, from 0.2 ms of jitter at both ends
    assert (steps > 0).all()
    assert 0.0115 < steps.max() < 0.02
    assert (np.diff(received) > 0).all()
    assert np.median(sent - origin) == pytest.approx(0.0002, abs=0.00005)
    assert np.median(received - sent) == pytest.approx(0.001, abs=0.0003)
    assert (received > sent).all()


def test_the_sensor_file_opens_without_pickle(episode: Path, values: np.ndarray) -> None:
    with np.load(episode / "sensor_data.npz", allow_pickle=False) as archive:
        assert archive.files == ["timestamps", "send_timestamps", "forces", "alines"]
        stamps, sent, forces, alines = (archive[name] for name in archive.files)
    assert (stamps.dtype, sent.dtype, forces.dtype, alines.dtype) == ("f8", "f8", "f4", "f4")
    assert stamps.shape == sent.shape == forces.shape
    assert alines.shape == (len(stamps), 1025)
    assert (np.diff(stamps) > 0).all()
    assert np.diff(stamps).std() > 1e-5
    assert (len(stamps) - 1) / (stamps[-1] - stamps[0]) == pytest.approx(650, rel=0.005)
    assert stamps[0] < values[0, 1]  # there is a sensor row before the first robot row


def test_the_views_have_their_own_clocks_near_15_hz(episode: Path, values: np.ndarray) -> None:
    clocks = []
    for camera in ("View1", "View2"):
        files = sorted((episode / "images" / camera).iterdir())
        assert all(len(file.stem.partition(".")[2]) == 6 and file.suffix == ".jpg" for file in files)
        stamps = np.array([float(file.stem) for file in files])
        assert (np.diff(stamps) > 0).all()
        assert (len(stamps) - 1) / (stamps[-1] - stamps[0]) == pytest.approx(15, rel=0.03)
        assert stamps[0] < values[0, 1] < stamps[1] + 0.07
        assert simplejpeg.decode_jpeg(files[0].read_bytes()).shape == (480, 640, 3)
        clocks.append(stamps)
    assert not set(clocks[0]) & set(clocks[1])


def test_metadata_names_the_colour_that_the_task_folder_names(demo: DemoReport) -> None:
    for folder in demo.directory.glob("*/episode_*"):
        metadata = json.loads((folder / "metadata.json").read_text())
        colour = folder.parent.name.split("_")[2]
        assert metadata == {
            "robot_hz": 100,
            "sensor_hz": 650,
            "camera_views": ["View1", "View2"],
            "instruction": f"insert the needle into the {colour} target",
            "task": folder.parent.name,
        }

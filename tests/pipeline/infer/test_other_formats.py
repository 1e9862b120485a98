"""Recordings that hold more than tables and JPEG files: what ``infer`` writes for them, or says about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_writing import WAYS, robot, store_of
from inferring import ROWS, WAVE, asked, infer_and_ingest, text_of
from numpy.typing import NDArray
from PIL import Image
from videos import make_video, picture

from vlapipe import open_dataset
from vlapipe.pipeline.infer.infer import infer_schema
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.schema import ImageStream

START_S = 1_700_000_000.0
RANDOM = np.random.default_rng(3)


def table(step_s: float = 0.05) -> str:
    rows = [[f"{START_S + i * step_s:.6f}", *map(float, WAVE[i, :2])] for i in range(ROWS)]
    return f"timestamp,joint_1,joint_2\n{text_of(rows)}"


def make_lab(root: Path, num: int = 2) -> list[Path]:
    """The folders of episodes, each with a table."""
    folders = [root / f"episode_{i}" for i in range(num)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "robot.csv").write_text(table())
    return folders


def save_images(folder: Path, images: NDArray[Any], suffix: str) -> None:
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:04d}{suffix}")


def cameras_of(toml: str) -> dict[str, ImageStream]:
    return {stream.name: stream for stream in parse_schema(toml, "x").streams if isinstance(stream, ImageStream)}


def test_colour_and_depth_png_become_cameras_and_the_unit_is_asked_for(tmp_path: Path) -> None:
    colour = RANDOM.integers(0, 255, (20, 16, 24, 3), dtype=np.uint8)
    depth = RANDOM.integers(0, 5000, (20, 16, 24)).astype(np.uint16)
    for folder in make_lab(tmp_path / "lab"):
        save_images(folder / "rgb", colour, ".png")
        save_images(folder / "depth", depth, ".png")
    inferred, _ = infer_and_ingest(tmp_path / "lab", tmp_path / "out")
    cameras = cameras_of(inferred.toml)
    assert {name: (camera.files, camera.unit) for name, camera in cameras.items()} == {
        "rgb": (("rgb/*.png",), None),
        "depth": (("depth/*.png",), "mm"),
    }
    assert 'unit = "mm"  # correct this' in inferred.toml
    assert asked(inferred, "a depth of 1") == {"depth"}
    assert not [reason for reason in inferred.reasons if reason.startswith("not read")]
    stored = open_dataset(tmp_path / "out").episode(0)
    decoded = np.asarray(Image.open(tmp_path / "lab/episode_0/rgb/0003.png"))
    np.testing.assert_array_equal(decoded, colour[3])
    assert stored.image_file("rgb", 3) == (tmp_path / "lab/episode_0/rgb/0003.png").read_bytes()


@pytest.mark.parametrize("suffix", [".webp", ".bmp", ".tif", ".TIFF"])
def test_other_images_are_cameras_that_are_turned_into_png(tmp_path: Path, suffix: str) -> None:
    images = RANDOM.integers(0, 255, (20, 16, 24, 3), dtype=np.uint8)
    for folder in make_lab(tmp_path / "lab"):
        save_images(folder / "view", images, suffix)
    inferred, report = infer_and_ingest(tmp_path / "lab", tmp_path / "out")
    (camera,) = cameras_of(inferred.toml).values()
    assert (camera.files, camera.convert) == ((f"view/*{suffix}",), "png")
    assert report.num_episodes == 2


def test_videos_become_cameras_that_start_with_the_robot(tmp_path: Path) -> None:
    for folder in make_lab(tmp_path / "lab"):
        for name in ("front", "wrist"):
            make_video(folder / "videos" / f"{name}.mp4", [picture(i) for i in range(12)])
    inferred, _ = infer_and_ingest(tmp_path / "lab", tmp_path / "out")
    (camera,) = cameras_of(inferred.toml).values()
    assert (camera.kind, camera.files) == ("video", ("videos/{camera}.mp4",))
    assert camera.time.starts_with == "robot"
    assert open_dataset(tmp_path / "out").cameras == ["front", "wrist"]


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_frame_a_row_has_the_times_of_the_rows_even_if_the_video_plays_at_another_rate(
    tmp_path: Path, lacking: int
) -> None:
    for number, folder in enumerate(make_lab(tmp_path / "lab")):
        frames = [picture(i) for i in range(ROWS - lacking * (number == 0))]
        make_video(folder / "front.mp4", frames, rate=60)
    inferred, report = infer_and_ingest(tmp_path / "lab", tmp_path / "out")
    (camera,) = cameras_of(inferred.toml).values()
    assert camera.time.rows_of == "robot"
    assert report.num_episodes == 2
    episode = open_dataset(tmp_path / "out").episode(0)
    assert np.array_equal(episode["front/timestamp"], episode["robot/timestamp"][: ROWS - lacking])


def test_a_json_of_stamps_beside_each_video_is_its_clock(tmp_path: Path) -> None:
    for folder in make_lab(tmp_path / "lab"):
        for name in ("1234", "5678"):
            make_video(folder / "MP4" / f"{name}.mp4", [picture(i) for i in range(12)])
            stamps = [START_S + i * 0.1 for i in range(12)]
            (folder / "MP4" / f"{name}_timestamps.json").write_text(json.dumps(stamps))
    inferred, _ = infer_and_ingest(tmp_path / "lab", tmp_path / "out")
    (camera,) = cameras_of(inferred.toml).values()
    assert (camera.files, camera.time.file) == (("MP4/{camera}.mp4",), "MP4/{camera}_timestamps.json")
    stamps_read = open_dataset(tmp_path / "out").episode(0)["1234/timestamp"]
    np.testing.assert_array_equal(stamps_read, [START_S + i * 0.1 for i in range(12)])


def test_a_table_with_a_stamp_a_frame_is_the_clock_of_the_video_whatever_its_name(tmp_path: Path) -> None:
    for folder in make_lab(tmp_path / "lab"):
        make_video(folder / "front.mp4", [picture(i) for i in range(12)])
        lines = "".join(f"{i},{START_S + i * 0.13:.3f}\n" for i in range(12))
        (folder / "frames.csv").write_text(f"frame,timestamp\n{lines}")
    inferred, _ = infer_and_ingest(tmp_path / "lab", tmp_path / "out")
    (camera,) = cameras_of(inferred.toml).values()
    assert camera.time.file == "frames.csv"
    stamps_read = open_dataset(tmp_path / "out").episode(0)["front/timestamp"]
    np.testing.assert_allclose(stamps_read, [START_S + i * 0.13 for i in range(12)], atol=1e-3)


def test_stamps_that_are_called_after_a_video_are_its_clock_in_a_flat_folder_too(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    root.mkdir()
    for i in range(3):
        (root / f"run_{i}.csv").write_text(table())
        make_video(root / f"run_{i}.mp4", [picture(j) for j in range(12)])
        (root / f"run_{i}_timestamps.json").write_text(json.dumps([START_S + j * 0.13 for j in range(12)]))
    inferred, report = infer_and_ingest(root, tmp_path / "out")
    (camera,) = cameras_of(inferred.toml).values()
    assert camera.time.file == "{stem}_timestamps.json"
    assert report.num_episodes == 3


def test_two_files_with_a_stamp_a_frame_are_asked_about(tmp_path: Path) -> None:
    for folder in make_lab(tmp_path / "lab"):
        make_video(folder / "front.mp4", [picture(i) for i in range(12)])
        for name, step in (("shown", 0.13), ("sent", 0.12)):
            lines = "".join(f"{i},{START_S + i * step:.3f}\n" for i in range(12))
            (folder / f"{name}.csv").write_text(f"frame,timestamp\n{lines}")
    assert any("front: clock" in question for question in infer_schema(tmp_path / "lab").questions)


def test_numbers_of_frames_in_the_table_are_asked_about(tmp_path: Path) -> None:
    for folder in make_lab(tmp_path / "lab"):
        make_video(folder / "front.mp4", [picture(i) for i in range(ROWS // 2)])
        head, *rows = table().splitlines()
        numbered = [f"{row},{i // 2}" for i, row in enumerate(rows)]
        (folder / "robot.csv").write_text("\n".join([f"{head},frame_index", *numbered, ""]))
    asked_of = infer_schema(tmp_path / "lab").questions
    assert any("frame_index" in question and "front: clock" in question for question in asked_of), asked_of


def test_one_video_an_episode_in_a_flat_folder(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    root.mkdir()
    for i in range(3):
        (root / f"run_{i}.csv").write_text(table())
        make_video(root / f"run_{i}.mp4", [picture(j) for j in range(12)])
    inferred, report = infer_and_ingest(root, tmp_path / "out")
    (camera,) = cameras_of(inferred.toml).values()
    assert camera.files == ("{stem}.mp4",)
    assert report.num_episodes == 3


def test_an_array_of_images_is_a_camera_and_no_state(tmp_path: Path) -> None:
    images = RANDOM.integers(0, 255, (ROWS, 32, 32, 3), dtype=np.uint8)
    for i in range(2):
        (tmp_path / "lab" / f"episode_{i}").mkdir(parents=True)
        np.savez(
            tmp_path / "lab" / f"episode_{i}" / "trajectory.npz",
            t=np.arange(ROWS) * 0.1,
            state=WAVE[:, :9].astype(np.float32),
            actions=WAVE[:, :4].astype(np.float32),
            rgb=images,
        )
    inferred, _ = infer_and_ingest(tmp_path / "lab", tmp_path / "out")
    schema = parse_schema(inferred.toml, "x")
    assert schema.sample.state == ("robot/state",)
    assert schema.action.of == ("robot/actions",)
    np.testing.assert_array_equal(open_dataset(tmp_path / "out").episode(0)["rgb/pixels"], images)


def make_steps(folder: Path, num: int = 30) -> None:
    folder.mkdir(parents=True)
    for i in range(num):
        np.savez(
            folder / f"step_{i:07d}.npz",
            actions=WAVE[i % ROWS, :7],
            robot_obs=WAVE[i % ROWS, :15],
            rgb_static=np.full((16, 16, 3), i, dtype=np.uint8),
        )


def test_one_npz_a_time_step_is_joined(tmp_path: Path) -> None:
    make_steps(tmp_path / "lab" / "a")
    inferred, report = infer_and_ingest(tmp_path / "lab", tmp_path / "out")
    assert "one_row_a_file = true" in inferred.toml
    assert asked(inferred, "rows a second") == {"robot"}
    assert report.num_episodes == 1
    episode = open_dataset(tmp_path / "out").episode(0)
    np.testing.assert_array_equal(episode["robot/actions"], WAVE[:30, :7])
    np.testing.assert_array_equal(episode["rgb_static/pixels"][:, 0, 0, 0], np.arange(30))


def test_npy_files_without_a_table_are_read_as_one_npz_would_be(tmp_path: Path) -> None:
    folder = tmp_path / "lab" / "ep"
    folder.mkdir(parents=True)
    t = np.arange(200) * 0.01
    value = np.c_[np.sin(t), np.cos(t), t]
    np.save(folder / "t.npy", t)
    np.save(folder / "value.npy", value)
    infer_and_ingest(tmp_path / "lab", tmp_path / "out")
    episode = open_dataset(tmp_path / "out").episode(0)
    np.testing.assert_array_equal(episode["robot/value"], value)
    np.testing.assert_array_equal(episode["robot/timestamp"], t)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"meta/info.json": '{"codebase_version": "v2.1"}', "data/chunk-000/episode_000000.parquet": ""}, "lerobot"),
        ({"training/ep_start_end_ids.npy": "", "training/episode_0.npz": ""}, "calvin"),
        ({"success/a/trajectory.h5": "", "success/a/recordings/MP4/123.mp4": ""}, "droid"),
        ({"traj0/obs_dict.pkl": "", "traj0/images0/im_0.jpg": ""}, "bridge_raw"),
    ],
)
def test_a_dataset_that_describes_itself_is_answered_with_the_command_that_reads_it(
    tmp_path: Path, files: dict[str, str], said: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=f"--schema {said} --out"):
        infer_schema(tmp_path)


def test_files_that_no_stream_reads_are_named_with_what_reads_them(tmp_path: Path) -> None:
    for folder in make_lab(tmp_path / "lab"):
        (folder / "log.mcap").write_bytes(b"x")
        (folder / "log.mat").write_bytes(b"x")
    inferred, report = infer_and_ingest(tmp_path / "lab", tmp_path / "out")
    told = [reason for reason in inferred.reasons if reason.startswith("not read")]
    assert any("2 .mcap files" in each and "kind = 'bag'" in each for each in told)
    assert any("2 .mat files" in each and "which is not read" in each for each in told)
    left = [finding for finding in report.findings if finding["code"].endswith("not_read")]
    assert {(f["column"], f["severity"]) for f in left} == {(".mcap", "warning"), (".mat", "note")}


@pytest.mark.parametrize("way", ["ros1 lz4", "ros2 db3", "ros2 mcap zstd"])
def test_bags_alone_become_a_stream_a_topic(tmp_path: Path, way: str) -> None:
    ros, _, write = WAYS[way]
    store = store_of(ros)
    for number in range(2):
        write(tmp_path / "logs" / f"run_{number}", list(robot(store, seed=number, num_rows=40)), store)
    inferred, report = infer_and_ingest(tmp_path / "logs", tmp_path / "out")
    assert not inferred.questions
    assert not report.rejects
    schema = parse_schema(inferred.toml, "inferred")
    assert schema.action.of == ("command/data",)
    assert {stream.name for stream in schema.streams} == {
        "robot",
        "tool",
        "command",
        "cam_color_compressed",
        "cam_depth",
    }


def test_a_bag_that_cannot_be_opened_is_answered_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "x.mcap").write_bytes(b"x")
    with pytest.raises(UsageError, match=r'1 bags, such as x\.mcap .*kind = "bag"'):
        infer_schema(tmp_path)

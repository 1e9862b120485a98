"""Tests of schemas guessed for HDF5 and Zarr files: what is ingested equals what the file's own library reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import simplejpeg
import zarr
from image_lab import encoded
from inferring import asked
from numpy.typing import NDArray
from videos import frames_of, make_video

import vlapipe
from vlapipe.pipeline.infer.infer import Inferred, infer_schema
from vlapipe.pipeline.ingest import IngestConfig, ingest

RANDOM = np.random.default_rng(0)


def walk(rows: int, *shape: int) -> NDArray[np.float32]:
    return np.cumsum(RANDOM.normal(0, 0.02, (rows, *shape)), axis=0).astype(np.float32)


def pixels(rows: int, height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    return RANDOM.integers(0, 255, (rows, height, width, 3), dtype=np.uint8)


def ingested(root: Path, out: Path) -> tuple[Inferred, vlapipe.Dataset]:
    found = infer_schema(root)
    assert found.faults == ()
    schema = out.with_suffix(".toml")
    schema.write_text(found.toml)
    report = ingest(IngestConfig(source=root, schema=str(schema), out=out))
    assert not report.rejects
    return found, vlapipe.open_dataset(out)


def test_a_file_an_episode_with_cameras(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for i in range(3):
        with h5py.File(raw / f"episode_{i}.hdf5", "w") as file:
            file["action"], file["observations/qpos"] = walk(40, 14), walk(40, 14)
            file["observations/images/cam_high"] = pixels(40)
    found, dataset = ingested(raw, tmp_path / "data")
    assert asked(found, "rows a second") == set()
    assert any("50 rows a second, as the built-in schema 'aloha' says" in reason for reason in found.reasons)
    assert dataset.schema.sample.state == ("robot/qpos",)
    assert dataset.schema.action.of == ("robot/action",)
    with h5py.File(raw / "episode_1.hdf5") as file:
        episode = dataset.episode(1)
        assert np.array_equal(episode["robot/qpos"], file["observations/qpos"][:])
        assert np.array_equal(episode["robot/action"], file["action"][:])
        assert np.array_equal(episode["cam_high/pixels"], file["observations/images/cam_high"][:])


def test_groups_of_one_file_and_actions_between_observations(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    with h5py.File(raw / "demos.h5", "w") as file:
        for i in range(12):
            file[f"traj_{i}/actions"], file[f"traj_{i}/success"] = walk(20 + i, 8), np.zeros(20 + i, bool)
            file[f"traj_{i}/obs/agent/qpos"] = walk(21 + i, 9)
            file[f"traj_{i}/obs/tcp_pose"] = walk(21 + i, 7)
    _, dataset = ingested(raw, tmp_path / "data")
    assert len(dataset) == 12
    with h5py.File(raw / "demos.h5") as file:
        for name in ("traj_2", "traj_10"):
            episode = next(dataset.episode(i) for i in range(12) if dataset.episode(i).id.endswith(f"/{name}"))
            assert np.array_equal(episode["robot/qpos"], file[f"{name}/obs/agent/qpos"][:])
            assert np.array_equal(episode["between/actions"], file[f"{name}/actions"][:])


def test_replay_buffer_with_the_ends_of_episodes(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    root = zarr.open_group(raw / "pusht.zarr", mode="w", zarr_format=2)
    arrays: dict[str, Any] = {"action": walk(60, 2), "state": walk(60, 5), "img": pixels(60).astype(np.float32)}
    for name, values in arrays.items():
        root.create_array(f"data/{name}", data=values)
    root.create_array("meta/episode_ends", data=np.array([20, 35, 60]))
    _, dataset = ingested(raw, tmp_path / "data")
    assert [dataset.episode(i)["robot/state"].shape[0] for i in range(3)] == [20, 15, 25]
    assert np.array_equal(dataset.episode(1)["robot/action"], arrays["action"][20:35])
    assert np.array_equal(dataset.episode(2)["img/pixels"], arrays["img"][35:])


def test_two_arms_are_no_episodes(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    with h5py.File(raw / "log.h5", "w") as file:
        for arm in ("robot0", "robot1"):
            file[f"{arm}/joint_pos"], file[f"{arm}/joint_vel"] = walk(30, 7), walk(30, 7)
    _, dataset = ingested(raw, tmp_path / "data")
    assert len(dataset) == 1
    assert len(dataset.schema.sample.state) == 4


def test_simulator_states_rewards_and_next_observations_are_no_state(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    with h5py.File(raw / "low_dim.hdf5", "w") as file:
        for i in range(2):
            demo = f"data/demo_{i}"
            file[f"{demo}/actions"], file[f"{demo}/states"] = walk(30, 7), walk(30, 71)
            file[f"{demo}/rewards"], file[f"{demo}/dones"] = np.zeros(30), np.zeros(30, int)
            file[f"{demo}/obs/eef_pos"], file[f"{demo}/next_obs/eef_pos"] = walk(30, 3), walk(30, 3)
    _, dataset = ingested(raw, tmp_path / "data")
    assert dataset.schema.sample.state == ("robot/eef_pos",)


@pytest.mark.parametrize("name", ["depth", "depth_image"])
def test_depth_in_metres_becomes_a_depth_camera(tmp_path: Path, name: str) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    metres = RANDOM.integers(200, 4000, (20, 24, 32)).astype(np.float32) / 1000
    with h5py.File(raw / "log.h5", "w") as file:
        file["q"], file[name] = walk(20, 7), metres
    _, dataset = ingested(raw, tmp_path / "data")
    millimetres = np.rint(metres.astype(np.float64) * 1000).astype(np.uint16)
    assert np.array_equal(dataset.episode(0)[f"{name}/pixels"][..., 0], millimetres)


def parquet(path: Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def test_wide_parquet_with_images_words_and_a_task_in_each_row(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    joints, commands = walk(90, 6), walk(90, 6)
    files = [simplejpeg.encode_jpeg(frame) for frame in pixels(90)]
    for i in range(3):
        rows = slice(30 * i, 30 * i + 30)
        columns: dict[str, Any] = {f"joint_{j}": joints[rows, j] for j in range(6)}
        columns |= {f"action_{j}": commands[rows, j] for j in range(6)}
        columns |= {"gripper": ["open", "closed"] * 15, "image": files[rows], "task": ["pick it up"] * 30}
        parquet(raw / f"episode_{i}.parquet", {"t": np.arange(30) / 20 + 1.7e9, **columns})
    found, dataset = ingested(raw, tmp_path / "data")
    assert not [reason for reason in found.reasons if reason.startswith("not read")]
    assert (dataset.schema.action.kind, dataset.schema.action.of) == ("column", ("robot/action",))
    episode = dataset.episode(1)
    assert np.array_equal(episode["robot/joint_position"], joints[30:60])
    assert np.array_equal(episode["robot/action"], commands[30:60])
    assert np.array_equal(episode["robot/gripper"].ravel(), [1, 0] * 15)
    assert [bytes(episode.image_file("image", i)) for i in range(30)] == files[30:60]
    assert dataset.schema.instruction.column == "robot/task"
    assert episode.text("robot/task")[0] == "pick it up"


def test_one_table_whose_clock_begins_anew_with_each_episode(tmp_path: Path) -> None:
    rows = {"episode_index": np.repeat([0, 1], 40), "timestamp": np.tile(np.arange(40) / 20, 2)}
    parquet(tmp_path / "raw" / "all.parquet", {**rows, "state": list(walk(80, 3)), "action": list(walk(80, 3))})
    found, dataset = ingested(tmp_path / "raw", tmp_path / "data")
    assert (len(dataset), asked(found, "rows a second")) == (2, set())
    assert np.allclose(dataset.episode(1)["robot/timestamp"], np.arange(40) / 20)
    assert dataset.schema.sample.state == ("robot/state",)


def test_commands_lie_in_a_group_and_empty_arrays_are_told(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for i in range(2):
        (raw / "327" / f"64{i}").mkdir(parents=True)
        with h5py.File(raw / "327" / f"64{i}" / "proprio.h5", "w") as file:
            file["timestamp"] = 1_730_000_000_000_000_000 + np.arange(30) * 33_000_000
            for side in ("state", "action"):
                file[f"{side}/joint/position"], file[f"{side}/effector/position"] = walk(30, 14), walk(30, 2)
            file["action/robot/velocity"], file["state/robot/velocity"] = walk(30, 2), np.zeros((30, 0))
    found, dataset = ingested(raw, tmp_path / "data")
    assert dataset.schema.action.of == ("robot/action_effector_position", "robot/action_joint_position")
    assert dataset.schema.sample.state == ("robot/state_effector_position", "robot/state_joint_position")
    assert any("state/robot/velocity" in reason and "empty" in reason for reason in found.reasons)
    assert dataset.episodes.column("task").to_pylist() == ["327", "327"]  # and not a task for each episode


def test_an_array_of_all_commands_stands_for_its_parts(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    parts = {"left_arm": walk(30, 6), "left_gripper": walk(30), "right_arm": walk(30, 6), "right_gripper": walk(30)}
    with h5py.File(tmp_path / "raw" / "episode0.hdf5", "w") as file:
        for name, values in parts.items():
            file[f"joint_action/{name}"] = values
        file["joint_action/vector"] = np.hstack([each.reshape(30, -1) for each in parts.values()])
        file["endpose/left"] = walk(30, 7)
    _, dataset = ingested(tmp_path / "raw", tmp_path / "data")
    assert dataset.schema.action.of == ("robot/vector",)


@pytest.mark.parametrize("folders", [True, False])
def test_videos_beside_containers_are_cameras(tmp_path: Path, folders: bool) -> None:
    raw = tmp_path / "raw"
    for i in range(3):
        path = raw / (f"run_{i}/main.hdf5" if folders else f"data/run_{i}.hdf5")
        video = raw / (f"run_{i}/front.mp4" if folders else f"videos/run_{i}.mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        video.parent.mkdir(parents=True, exist_ok=True)
        make_video(video, frames_of(30))
        with h5py.File(path, "w") as file:
            file["time"], file["measured_joint_pos"] = np.arange(30) / 50, walk(30, 7)
            file["command_joint_pos"], file["command_gripper_pos"] = walk(30, 7), walk(30, 1)
    _, dataset = ingested(raw, tmp_path / "data")
    (camera,) = dataset.cameras
    assert np.array_equal(dataset.episode(0)[f"{camera}/timestamp"], np.arange(30) / 50)
    assert dataset.schema.action.of == ("robot/command_gripper_pos", "robot/command_joint_pos")


def test_depth_of_16_bits_is_known_by_its_png_and_by_its_name(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    depth = RANDOM.integers(400, 4000, (20, 24, 32)).astype(np.int16)
    with h5py.File(raw / "log.h5", "w") as file:
        file["q"], file["sensor/cam/depth"] = walk(20, 7), depth[..., None]
        file["sensor/cam/segmentation"] = depth // 1000
        files = file.create_dataset("depth_images/top", (20,), dtype=h5py.vlen_dtype(np.uint8))
        for i, image in enumerate(depth):
            files[i] = np.frombuffer(encoded(image.astype(np.uint16)), np.uint8)
    found, dataset = ingested(raw, tmp_path / "data")
    assert np.array_equal(dataset.episode(0)["depth/pixels"][..., 0], depth)
    assert asked(found, "a depth of 1") == {"depth", "top"}
    assert any("segmentation" in reason and "not read" in reason for reason in found.reasons)


def test_attributes_state_the_rate_and_the_instruction(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    with h5py.File(raw / "open_the_drawer.hdf5", "w") as file:
        for i in range(2):
            file[f"data/demo_{i}/actions"], file[f"data/demo_{i}/obs/ee_pos"] = walk(30, 7), walk(30, 3)
        file["data"].attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": 25}})
        file["data"].attrs["problem_info"] = json.dumps({"language_instruction": "open the drawer"})
    found, dataset = ingested(raw, tmp_path / "data")
    assert asked(found, "rows a second") == set()
    assert dataset.episode(0)["robot/timestamp"][1] == 40_000_000
    assert dataset.episode(0).instruction == "open the drawer"
    assert not any("built-in" in reason for reason in found.reasons)  # robomimic's needs a gripper


def test_commands_and_depth_of_an_npz(tmp_path: Path) -> None:
    metres = RANDOM.integers(200, 4000, (30, 24, 32)) / 1000
    for i in range(2):
        (tmp_path / "raw" / f"run_{i}").mkdir(parents=True)
        arrays: dict[str, Any] = {
            "time": np.arange(30) / 50,
            "measured_joint_pos": walk(30, 7),
            "command_joint_pos": walk(30, 7),
        }
        np.savez(tmp_path / "raw" / f"run_{i}" / "log.npz", front_depth=metres.astype(np.float32), **arrays)
    _, dataset = ingested(tmp_path / "raw", tmp_path / "data")
    assert dataset.schema.action.of == ("robot/command_joint_pos",)
    assert dataset.schema.sample.state == ("robot/measured_joint_pos",)
    assert np.array_equal(dataset.episode(0)["front_depth/pixels"][..., 0], np.rint(metres * 1000).astype(np.uint16))


@pytest.mark.parametrize("shape", [(), (1,)])
def test_an_array_that_is_a_single_text_is_the_instruction(tmp_path: Path, shape: tuple[int, ...]) -> None:
    for i in range(2):
        (tmp_path / "raw" / f"run_{i}").mkdir(parents=True)
        with h5py.File(tmp_path / "raw" / f"run_{i}" / "trajectory.hdf5", "w") as file:
            file["puppet/joint_position"], file["master/joint_position"] = walk(30, 7), walk(30, 7)
            file.create_dataset("language_raw", shape, h5py.string_dtype())[...] = f"put bread {i} in the basket"
            file["success"], file["camera_names"] = True, h5py.Empty("f")
    found, dataset = ingested(tmp_path / "raw", tmp_path / "data")
    assert dataset.episode(1).instruction == "put bread 1 in the basket"
    assert dataset.episodes.column("metadata/success").to_pylist() == [True, True]
    assert dataset.schema.action.of == ("robot/master_joint_position",)
    assert not [reason for reason in found.reasons if "language_raw" in reason]

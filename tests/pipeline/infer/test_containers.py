"""Tests of schemas guessed for HDF5 and Zarr files: what is ingested equals what the file's own library reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

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
    assert found.assumed == ("robot",)  # nothing states the rate
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
    assert dataset.schema.sample.state == ("robot/obs_eef_pos",)


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

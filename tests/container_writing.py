"""Writes small recordings as other projects' own code writes them: ALOHA, robomimic, ReplayBuffers, CALVIN."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import simplejpeg
import zarr
from numpy.typing import NDArray

ALOHA_CAMERAS = ("cam_high", "cam_low", "cam_left_wrist")


def smooth(rng: np.random.Generator, *shape: int) -> NDArray[np.float64]:
    """Numbers that change a little from row to row."""
    return np.cumsum(rng.normal(0, 0.05, shape), axis=0)


def pictures(rng: np.random.Generator, count: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Frames of coarse squares, ``(count, height, width, 3)``."""
    coarse = rng.integers(0, 256, (count, height // 4, width // 4, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(4, axis=1).repeat(4, axis=2))


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """One frame as a JPEG file."""
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90)
    return data


def write_aloha(
    folder: Path,
    *,
    index: int,
    rows: int = 30,
    compress: bool = True,
    real: bool = True,
    size: tuple[int, int] = (48, 64),
) -> Path:
    """One file as ``record_episodes.py`` of ALOHA writes it; with ``real = False`` as ``record_sim_episodes.py``."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(index)
    images = {camera: pictures(rng, rows, *size) for camera in (ALOHA_CAMERAS if real else ("top",))}
    path = folder / f"episode_{index}.hdf5"
    with h5py.File(path, "w", rdcc_nbytes=1024**2 * 2) as root:
        root.attrs["sim"] = not real
        if real:
            root.attrs["compress"] = compress
        obs = root.create_group("observations")
        image = obs.create_group("images")
        lengths = []
        packed = {
            camera: [np.frombuffer(jpeg(frame), np.uint8) for frame in frames] if compress else []
            for camera, frames in images.items()
        }
        padded = max((len(file) for files in packed.values() for file in files), default=0)
        for camera, frames in images.items():
            if not compress:
                made = image.create_dataset(camera, frames.shape, dtype="uint8", chunks=(1, *frames.shape[1:]))
                made[...] = frames
                continue
            made = image.create_dataset(camera, (rows, padded), dtype="uint8", chunks=(1, padded))
            lengths.append([len(file) for file in packed[camera]])
            for row, file in enumerate(packed[camera]):
                made[row] = np.pad(file, (0, padded - len(file)))
        for name in ("qpos", "qvel", *(("effort",) if real else ())):
            obs.create_dataset(name, (rows, 14), dtype="f4")[...] = smooth(rng, rows, 14)
        root.create_dataset("action", (rows, 14), dtype="f4")[...] = smooth(rng, rows, 14)
        if compress:
            root.create_dataset("compress_len", (len(images), rows), dtype="f4")[...] = lengths
    return path


def write_robomimic(
    path: Path,
    *,
    demos: int = 3,
    images: bool = True,
    compress: bool = False,
    rows: int = 25,
    size: tuple[int, int] = (48, 64),
    next_obs: bool = True,
) -> Path:
    """One file as ``dataset_states_to_obs.py`` of robomimic writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packing: dict[str, Any] = {"compression": "gzip"} if compress else {}
    total = 0
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for i in range(demos):
            rng = np.random.default_rng(i)
            num_rows = rows + 5 * i
            demo = data.create_group(f"demo_{i}")
            obs: dict[str, NDArray[Any]] = {
                "robot0_eef_pos": smooth(rng, num_rows, 3),
                "robot0_eef_quat": unit(smooth(rng, num_rows, 4) + 1),
                "robot0_gripper_qpos": smooth(rng, num_rows, 2),
                "robot0_joint_pos": smooth(rng, num_rows, 7),
                "object": smooth(rng, num_rows, 10),
            }
            if images:
                obs |= {
                    f"{camera}_image": pictures(rng, num_rows, *size) for camera in ("agentview", "robot0_eye_in_hand")
                }
            demo.create_dataset("actions", data=np.clip(smooth(rng, num_rows, 7), -1, 1))
            demo.create_dataset("states", data=smooth(rng, num_rows, 32))
            demo.create_dataset("rewards", data=np.zeros(num_rows))
            demo.create_dataset("dones", data=np.zeros(num_rows, dtype=np.int64))
            for name, values in obs.items():
                demo.create_dataset(f"obs/{name}", data=values, **packing)
                if next_obs:
                    demo.create_dataset(f"next_obs/{name}", data=values, **packing)
            demo.attrs["model_file"] = "<mujoco>" + " " * 30_000 + "</mujoco>"
            demo.attrs["num_samples"] = num_rows
            total += num_rows
        data.attrs["total"] = total
        data.attrs["env_args"] = json.dumps(
            {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}}, indent=4
        )
        file.create_dataset("mask/train", data=np.array([f"demo_{i}".encode() for i in range(demos)]))
    return path


def unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quaternions of length 1."""
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def write_libero(path: Path, instruction: str, *, demos: int = 2, rows: int = 25) -> Path:
    """One file of LIBERO: a task, with its words in the attributes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for i in range(demos):
            rng = np.random.default_rng(i)
            demo = data.create_group(f"demo_{i}")
            demo["actions"], demo["states"] = np.clip(smooth(rng, rows, 7), -1, 1), smooth(rng, rows, 77)
            demo["dones"] = demo["rewards"] = (np.arange(rows) == rows - 1).astype(np.uint8)
            demo["robot_states"], position, turn = smooth(rng, rows, 9), smooth(rng, rows, 3), smooth(rng, rows, 3)
            demo["obs/ee_pos"], demo["obs/ee_ori"], demo["obs/ee_states"] = position, turn, np.hstack([position, turn])
            demo["obs/gripper_states"], demo["obs/joint_states"] = smooth(rng, rows, 2), smooth(rng, rows, 7)
            demo["obs/agentview_rgb"], demo["obs/eye_in_hand_rgb"] = pictures(rng, rows), pictures(rng, rows)
            demo.attrs["init_state"], demo.attrs["num_samples"] = smooth(rng, 77), rows
        problem = {"domain_name": "robosuite", "language_instruction": instruction}
        data.attrs["problem_info"], data.attrs["macros_image_convention"] = json.dumps(problem), "opengl"
        data.attrs["env_args"] = json.dumps({"type": 1, "env_kwargs": {"control_freq": 20}})
    return path


def write_replay_buffer(
    path: Path, data: dict[str, NDArray[Any]], ends: list[int], *, compressor: Any = "default", image_codec: Any = None
) -> Path:
    """A store as diffusion_policy's ``ReplayBuffer.save_to_path`` writes it, of Zarr format 2."""
    import numcodecs

    blosc = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=numcodecs.Blosc.NOSHUFFLE)
    path.parent.mkdir(parents=True, exist_ok=True)
    is_zip = path.suffix == ".zip"
    store: Any = zarr.storage.ZipStore(path, mode="w") if is_zip else zarr.storage.LocalStore(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = zarr.create_group(store, zarr_format=2)
        meta, group = root.create_group("meta"), root.create_group("data")
        _put(meta, "episode_ends", np.array(ends, dtype=np.int64), chunks=(len(ends),), compressors=None)
        for name, values in data.items():
            is_image = values.ndim == 4
            packing = (
                image_codec
                if is_image and image_codec is not None
                else blosc
                if compressor == "default"
                else compressor
            )
            chunks = (1 if is_image else min(161, len(values)), *values.shape[1:])
            _put(group, name, values, chunks=chunks, compressors=packing)
    if is_zip:
        store.close()
    return path


def _put(group: Any, name: str, values: NDArray[Any], *, chunks: tuple[int, ...], compressors: Any) -> None:
    config = {"write_empty_chunks": True}  # as zarr-python 2 does, which these projects use
    made = group.create_array(
        name, shape=values.shape, dtype=values.dtype, chunks=chunks, compressors=compressors, config=config
    )
    made[...] = values


def push_t(seed: int = 0, ends: tuple[int, ...] = (30, 55, 95)) -> tuple[dict[str, NDArray[Any]], list[int]]:
    """The arrays of Push-T: positions in pixels, and frames as float32 from 0 to 255."""
    rng = np.random.default_rng(seed)
    rows = ends[-1]
    return {
        "action": (256 + 40 * smooth(rng, rows, 2)).astype(np.float32),
        "img": pictures(rng, rows).astype(np.float32),
        "keypoint": (256 + smooth(rng, rows, 9, 2)).astype(np.float32),
        "n_contacts": np.ones((rows, 1), dtype=np.float32),
        "state": (256 + 40 * smooth(rng, rows, 5)).astype(np.float32),
    }, list(ends)


def umi(seed: int = 0, ends: tuple[int, ...] = (20, 50)) -> tuple[dict[str, NDArray[Any]], list[int]]:
    """The arrays of UMI's ``07_generate_replay_buffer.py``."""
    rng = np.random.default_rng(seed)
    rows = ends[-1]
    return {
        "robot0_eef_pos": smooth(rng, rows, 3).astype(np.float32),
        "robot0_eef_rot_axis_angle": smooth(rng, rows, 3).astype(np.float32),
        "robot0_gripper_width": (0.04 + 0.01 * np.sin(np.arange(rows) / 5))[:, None].astype(np.float32),
        "robot0_demo_start_pose": np.repeat(smooth(rng, 1, 6), rows, axis=0),
        "robot0_demo_end_pose": np.repeat(smooth(rng, 1, 6), rows, axis=0),
        "camera0_rgb": pictures(rng, rows),
    }, list(ends)


def write_calvin(folder: Path, ranges: list[tuple[int, int]], *, seed: int = 0) -> dict[str, NDArray[Any]]:
    """A split as CALVIN's ``datarenderer.py`` writes it. Returns the arrays, one row a file."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = ranges[-1][1] + 1
    actions = np.clip(smooth(rng, rows, 7), -1, 1)
    actions[:, 6] = np.where(actions[:, 6] > 0, 1, -1)
    arrays: dict[str, NDArray[Any]] = {
        "actions": actions,
        "rel_actions": np.clip(smooth(rng, rows, 7), -1, 1),
        "robot_obs": smooth(rng, rows, 15),
        "scene_obs": smooth(rng, rows, 24),
        "rgb_static": pictures(rng, rows),
        "rgb_gripper": pictures(rng, rows, 16, 16),
        "depth_static": (1 + 0.1 * rng.random((rows, 48, 64))).astype(np.float32),
    }
    for row in range(rows):
        np.savez_compressed(folder / f"episode_{row:07d}.npz", **{name: values[row] for name, values in arrays.items()})
    np.save(folder / "ep_start_end_ids.npy", ranges)
    return arrays

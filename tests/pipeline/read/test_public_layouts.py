"""Public layouts of arrays go in by built-in schemas: every value equals an independent reading, and policies train."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from container_writing import (
    ALOHA_CAMERAS,
    push_t,
    umi,
    write_aloha,
    write_calvin,
    write_libero,
    write_replay_buffer,
    write_robomimic,
)
from numpy.typing import NDArray

import vlapipe
from vlapipe.pipeline.infer.infer import infer_schema
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest


def take_in(raw: Path, schema: str, out: Path) -> tuple[vlapipe.Dataset, IngestReport]:
    report = ingest(IngestConfig(source=raw, schema=schema, out=out))
    assert not report.rejects, [reason["message"] for reject in report.rejects for reason in reject["reasons"]]
    return vlapipe.open_dataset(out), report


def episode(dataset: vlapipe.Dataset, name: str) -> Any:
    return dataset.episode(dataset.episodes.column("id").to_pylist().index(name))


def same(stored: NDArray[Any], recorded: NDArray[Any]) -> None:
    recorded = np.asarray(recorded)
    assert np.array_equal(np.asarray(stored).reshape(recorded.shape), recorded)


def trains(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlapipe.train.config import TrainConfig
    from vlapipe.train.loop import train

    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "train")
    options = {"data": data, "out": out, "max_steps": 10, "batch_size": 4}
    options |= {"policy": "tiny_policy:TinyPolicy"}
    train(TrainConfig.from_sources(None, options))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines][-1] == 10


def images_of(episode: Any, camera: str) -> list[bytes]:
    data, offset = episode[f"{camera}/bytes"], episode[f"{camera}/offset"]
    return [bytes(data[a:b]) for a, b in pairwise(offset)]


@pytest.mark.parametrize("compress", [True, False])
def test_aloha(tmp_path: Path, compress: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write_aloha(tmp_path / "raw" / "open_cup", index=i, rows=30 + i, compress=compress) for i in range(3)]
    dataset, report = take_in(tmp_path / "raw", "aloha", tmp_path / "data")
    assert {finding["code"] for finding in report.findings} <= {"npz.absent", "stream.absent", "episode.idle"}
    for path in paths:
        ours = episode(dataset, f"open_cup/{path.stem}")
        with h5py.File(path) as file:
            for field, name in (("qpos", "observations/qpos"), ("qvel", "observations/qvel"), ("action", "action")):
                same(ours[f"robot/{field}"], file[name][:])
            same(ours["robot/effort"], file["observations/effort"][:])
            assert ours["robot/base_action_is_missing"].all()
            for camera in ALOHA_CAMERAS:
                frames = file[f"observations/images/{camera}"][:]
                if not compress:
                    same(ours[f"{camera}/pixels"], frames)
                    continue
                lengths = file["compress_len"][ALOHA_CAMERAS.index(camera)].astype(int)
                wanted = [row[:length].tobytes() for row, length in zip(frames, lengths, strict=True)]
                assert images_of(ours, camera) == wanted
        assert np.array_equal(ours["robot/timestamp"], np.arange(ours["robot/qpos"].shape[0]) * 20_000_000)
        assert np.array_equal(ours["align/cam_high"], np.arange(ours["robot/qpos"].shape[0]))
    table = dataset.episodes
    assert table.column("task").to_pylist() == ["open_cup"] * 3
    assert table.column("metadata/compress").to_pylist() == [compress] * 3
    trains(tmp_path / "data", tmp_path / "run", monkeypatch)


def test_aloha_of_a_simulation_has_neither_effort_nor_compression(tmp_path: Path) -> None:
    path = write_aloha(tmp_path / "raw" / "sim_transfer", index=0, compress=False, real=False)
    dataset, _ = take_in(tmp_path / "raw", "aloha", tmp_path / "data")
    ours = dataset.episode(0)
    assert ours["robot/effort_is_missing"].all()
    with h5py.File(path) as file:
        same(ours["top/pixels"], file["observations/images/top"][:])


@pytest.mark.parametrize("compress", [True, False])
def test_robomimic(tmp_path: Path, compress: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_robomimic(tmp_path / "raw" / "lift" / "image.hdf5", compress=compress)
    dataset, _ = take_in(tmp_path / "raw", "robomimic", tmp_path / "data")
    names = dataset.episodes.column("id").to_pylist()
    assert names == ["lift/image/demo_0", "lift/image/demo_1", "lift/image/demo_2"]
    with h5py.File(path) as file:
        for i, name in enumerate(names):
            ours, demo = episode(dataset, name), file[f"data/demo_{i}"]
            for field in ("eef_pos", "eef_quat", "gripper_qpos", "joint_pos"):
                same(ours[f"robot/{field}"], demo[f"obs/robot0_{field}"][:])
            same(ours["robot/actions"], demo["actions"][:])
            for camera in ("agentview", "robot0_eye_in_hand"):
                same(ours[f"{camera}/pixels"], demo[f"obs/{camera}_image"][:])
    assert dataset.episodes.column("metadata/num_samples").to_pylist() == [25, 30, 35]
    assert dataset.episodes.column("metadata/env_args.env_name").to_pylist() == ["Lift"] * 3
    trains(tmp_path / "data", tmp_path / "run", monkeypatch)


def test_robomimic_without_images_and_chosen_by_an_attribute(tmp_path: Path) -> None:
    write_robomimic(tmp_path / "raw" / "low_dim_v15.hdf5", images=False)
    config = IngestConfig(
        source=tmp_path / "raw", schema="robomimic", out=tmp_path / "data", where="metadata.num_samples >= 30"
    )
    assert ingest(config).num_episodes == 2
    names = vlapipe.open_dataset(tmp_path / "data").episodes.column("id").to_pylist()
    assert names == ["low_dim_v15/demo_1", "low_dim_v15/demo_2"]


@pytest.mark.parametrize("name", ["pusht_cchi_v7_replay.zarr", "pusht_cchi_v7_replay.zarr.zip"])
def test_diffusion_policy(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, ends = push_t()
    path = write_replay_buffer(tmp_path / "raw" / name, data, ends)
    dataset, report = take_in(tmp_path / "raw", "diffusion_policy", tmp_path / "data")
    store: Any = zarr.storage.ZipStore(path, mode="r") if path.suffix == ".zip" else path
    recorded = zarr.open_group(store, mode="r")
    starts = [0, *ends[:-1]]
    ids = dataset.episodes.column("id").to_pylist()
    assert ids == [f"pusht_cchi_v7_replay/part_{i:04d}" for i in range(3)]
    for name_of, start, stop in zip(ids, starts, ends, strict=True):
        ours = episode(dataset, name_of)
        for field in ("state", "action", "keypoint"):
            same(ours[f"robot/{field}"], np.asarray(recorded[f"data/{field}"][start:stop]))
        same(ours["img/pixels"], np.asarray(recorded["data/img"][start:stop]))
    assert not [finding for finding in report.findings if finding["code"].startswith(("image.rounded", "npz."))]
    trains(tmp_path / "data", tmp_path / "run", monkeypatch)


def test_umi_with_plain_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, ends = umi()
    write_replay_buffer(tmp_path / "raw" / "cup.zarr.zip", data, ends, compressor=None)
    check_umi(tmp_path, data, ends)
    trains(tmp_path / "data", tmp_path / "run", monkeypatch)


def test_umi_with_frames_as_jpeg_xl(tmp_path: Path) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    path, data, ends = jpeg_xl_store(tmp_path, imagecodecs.jpegxl_encode)
    # Read by another decoder call than ours: without an array to fill.
    import zipfile

    with zipfile.ZipFile(path) as archive:
        chunks = [archive.read(f"data/camera0_rgb/{row}.0.0.0") for row in range(ends[-1])]
    data["camera0_rgb"] = np.stack([imagecodecs.jpegxl_decode(chunk) for chunk in chunks])
    check_umi(tmp_path, data, ends)


def test_a_codec_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    jpeg_xl_store(tmp_path, lambda pixels, **_: pixels.tobytes())
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    report = ingest(IngestConfig(source=tmp_path / "raw", schema="umi", out=tmp_path / "data"))
    assert report.num_episodes == 0
    message = report.rejects[0]["reasons"][0]["message"]
    assert "cup.zarr.zip" in message
    assert "codec 'imagecodecs_jpegxl': pip install imagecodecs" in message


def jpeg_xl_store(tmp_path: Path, encode: Any) -> tuple[Path, dict[str, NDArray[Any]], list[int]]:
    """UMI's own store: a JPEG XL file a chunk. Its codec lives in UMI's repository, so the chunks are written here."""
    import zipfile

    data, ends = umi()
    frames = data.pop("camera0_rgb")
    path = write_replay_buffer(tmp_path / "raw" / "cup.zarr.zip", data, ends, compressor=None)
    described = {
        "zarr_format": 2,
        "shape": list(frames.shape),
        "chunks": [1, *frames.shape[1:]],
        "dtype": "|u1",
        "fill_value": 0,
        "order": "C",
        "filters": None,
        "compressor": {"id": "imagecodecs_jpegxl", "level": 99, "numthreads": 1, "effort": None, "distance": None},
    }
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("data/camera0_rgb/.zarray", json.dumps(described))
        for row, frame in enumerate(frames):
            archive.writestr(f"data/camera0_rgb/{row}.0.0.0", bytes(encode(frame, level=99)))
    data["camera0_rgb"] = frames
    return path, data, ends


def check_umi(tmp_path: Path, data: dict[str, NDArray[Any]], ends: list[int]) -> None:
    dataset, _ = take_in(tmp_path / "raw", "umi", tmp_path / "data")
    for i, (start, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        ours = episode(dataset, f"cup/part_{i:04d}")
        fields = ("eef_pos", "eef_rot_axis_angle", "gripper_width", "demo_start_pose", "demo_end_pose")
        for field in fields:
            same(ours[f"robot/{field}"], data[f"robot0_{field}"][start:stop])
        same(ours["camera0/pixels"], data["camera0_rgb"][start:stop])


def test_calvin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = [(0, 19), (20, 44), (45, 64)]
    arrays = write_calvin(tmp_path / "raw" / "training", ranges)
    (tmp_path / "raw" / "training" / "lang_annotations").mkdir()
    np.save(tmp_path / "raw/training/lang_annotations/auto_lang_ann.npy", {"language": {}}, allow_pickle=True)  # type: ignore[arg-type]
    dataset, report = take_in(tmp_path / "raw", "calvin", tmp_path / "data")
    parts = {
        "tcp_pos": (0, 3),
        "tcp_orn": (3, 6),
        "gripper_width": (6, 7),
        "joints": (7, 14),
        "gripper_action": (14, 15),
    }
    for i, (first, last) in enumerate(ranges):
        ours, rows = episode(dataset, f"training/part_{i:04d}"), slice(first, last + 1)
        for name in ("actions", "rel_actions", "scene_obs"):
            same(ours[f"robot/{name}"], arrays[name][rows])
        for field, (start, stop) in parts.items():
            same(ours[f"robot/{field}"], arrays["robot_obs"][rows, start:stop])
        for camera in ("static", "gripper"):
            same(ours[f"{camera}/pixels"], arrays[f"rgb_{camera}"][rows])
    assert "lang_annotations/auto_lang_ann.npy" in str([f for f in report.findings if f["code"] == "file.not_read"])
    trains(tmp_path / "data", tmp_path / "run", monkeypatch)


def test_libero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "turn on the stove and put the moka pot on it"
    path = write_libero(tmp_path / "raw" / f"KITCHEN_SCENE3_{words.replace(' ', '_')}_demo.hdf5", words)
    dataset, report = take_in(tmp_path / "raw", "libero", tmp_path / "data")
    assert {finding["code"] for finding in report.findings} <= {"metadata.not_kept", "episode.idle"}
    with h5py.File(path) as file:
        for demo in ("demo_0", "demo_1"):
            ours, obs = episode(dataset, f"{path.stem}/{demo}"), file[f"data/{demo}/obs"]
            for name in ("ee_pos", "ee_ori", "gripper_states", "joint_states"):
                same(ours[f"robot/{name}"], obs[name][:])
            same(ours["robot/actions"], file[f"data/{demo}/actions"][:])
            same(ours["agentview/pixels"], obs["agentview_rgb"][:])
            same(ours["eye_in_hand/pixels"], obs["eye_in_hand_rgb"][:])
            assert ours.instruction == words
    found = infer_schema(tmp_path / "raw")
    assert "'libero' knows these arrays" in found.reasons[0]
    trains(tmp_path / "data", tmp_path / "run", monkeypatch)

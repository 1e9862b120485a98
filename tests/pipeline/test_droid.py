"""DROID's raw folders go in with no line written: every value is that of h5py, every frame that of PyAV."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
from launching import SMALL
from videos import frames_of, make_video, shown_by_av

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, IngestReport, ingest
from vlapipe.train.config import TrainConfig
from vlapipe.train.loop import train

STEPS = 30
SERIALS = {"wrist": "18026681", "ext1": "22008760", "ext2": "24400334"}


def record(root: Path, where: str, *, lacking: int = 0, serials: dict[str, str] = SERIALS) -> Path:
    folder = root / where
    (folder / "recordings/MP4").mkdir(parents=True)
    rng = np.random.default_rng(len(where))
    stamps = 1_688_748_000_000 + np.round(np.arange(STEPS) * 1000 / 15).astype(np.int64)
    with h5py.File(folder / "trajectory.h5", "w") as file:
        for side, names in (
            ("observation/robot_state", {"joint_positions": 7, "cartesian_position": 6, "gripper_position": 0}),
            ("action", {"joint_position": 7, "cartesian_position": 6, "gripper_position": 0, "joint_velocity": 7}),
        ):
            for name, columns in names.items():
                shape = (STEPS, columns) if columns else (STEPS,)
                file[f"{side}/{name}"] = np.cumsum(rng.normal(0, 0.01, shape), axis=0)
        file["observation/timestamp/control/step_start"] = stamps
        file["observation/timestamp/robot_state/read_start"] = stamps + 1
        file["observation/timestamp/skip_action"] = np.zeros(STEPS, dtype=bool)
        for serial in serials.values():
            file[f"observation/timestamp/cameras/{serial}_estimated_capture"] = stamps - 40
            file[f"observation/camera_extrinsics/{serial}_left"] = rng.normal(size=(STEPS, 6))
    told = {f"{name}_cam_serial": serial for name, serial in serials.items()}
    told |= {"current_task": "Put the marker in the cup", "success": "failure" not in where, "lab": "AUTOLab"}
    (folder / "metadata_AUTOLab+5d05c5aa.json").write_text(json.dumps(told))
    for shift, serial in enumerate(serials.values()):
        frames = frames_of(STEPS + 20 * shift, 96, 56)[20 * shift :]
        make_video(folder / f"recordings/MP4/{serial}.mp4", frames[: STEPS - lacking], rate=60, options={"g": "10"})
    make_video(folder / f"recordings/MP4/{serials['ext1']}-stereo.mp4", frames_of(3, 192, 56), rate=60)
    return folder


def run(raw: Path, out: Path, **options: str) -> IngestReport:
    return ingest(IngestConfig(source=raw, out=out, schema="droid", workers=1, **options))  # type: ignore[arg-type]


def test_droid_episodes_train_with_no_line_written(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    first = record(raw, "AUTOLab/success/2023-07-07/Fri_Jul__7_09:42:23_2023")
    others = {"wrist": "13062452", "ext1": "20521388", "ext2": "29838012"}
    record(raw, "CLVR/success/2023-05-14/Sun_May_14_16:55:33_2023", lacking=1, serials=others)
    record(raw, "AUTOLab/failure/2023-07-07/Fri_Jul__7_09:43:39_2023")
    report = run(raw, tmp_path / "out", image_storage="raw")
    assert not report.rejects
    assert report.left_out == {"exclude */failure/*": ["AUTOLab/failure/2023-07-07/Fri_Jul__7_09:43:39_2023"]}
    dataset = vlapipe.open_dataset(tmp_path / "out")
    assert (len(dataset), sorted(dataset.cameras)) == (2, ["ext1", "ext2", "wrist"])
    episode = dataset.episode(0)
    with h5py.File(first / "trajectory.h5") as file:
        for name, path in (
            ("joint_position", "observation/robot_state/joint_positions"),
            ("gripper_position", "observation/robot_state/gripper_position"),
            ("action_cartesian_position", "action/cartesian_position"),
        ):
            assert np.array_equal(episode[f"robot/{name}"], file[path][()])
        stamps = file["observation/timestamp/control/step_start"][()] * 1_000_000
    assert np.array_equal(episode["robot/timestamp"], stamps)
    assert episode.instruction == "Put the marker in the cup"
    for name, serial in SERIALS.items():
        assert np.array_equal(episode[f"{name}/pixels"], shown_by_av(first / f"recordings/MP4/{serial}.mp4")[0])
        assert np.array_equal(episode[f"{name}/timestamp"], stamps)
    shorter = dataset.episode(1)
    assert np.array_equal(shorter["wrist/timestamp"], shorter["robot/timestamp"][:-1])
    assert "clock.fewer_rows" in {finding["code"] for finding in report.findings}


def test_ten_steps_of_training_and_the_cameras_of_a_recording_without_metadata(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = record(tmp_path / "raw", f"success/2023-07-07/{name}")
        (folder / "metadata_AUTOLab+5d05c5aa.json").unlink()
        (folder / f"recordings/MP4/{SERIALS['ext1']}-stereo.mp4").unlink()
    assert not run(tmp_path / "raw", tmp_path / "out").rejects
    dataset = vlapipe.open_dataset(tmp_path / "out")
    assert sorted(dataset.cameras) == sorted(SERIALS.values())
    options = {"data": tmp_path / "out", "out": tmp_path / "run", "batch_size": 4, "max_steps": 10, "precision": "fp32"}
    small = {"wandb": "disabled", "eval_batches": 0, "num_workers": 1, "policy_args": SMALL}
    assert train(TrainConfig.from_sources(None, {**options, **small})).step == 10

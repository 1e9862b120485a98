"""BridgeData's raw folders go in with no line written; every value is that of plain Python."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_jpeg
from launching import SMALL

import vlapipe
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.train.config import TrainConfig
from vlapipe.train.loop import train

STEPS = 12


def record(root: Path, number: int, *, lang: str | None = "put the pot on the stove\nconfidence: 1.0\n") -> Path:
    group = root / "bridge_data_v2/datacol1_toykitchen1/many_skills/00/2023-03-15_14-35-28/raw/traj_group0"
    folder = group / f"traj{number}"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(number)
    state = np.cumsum(rng.normal(0, 0.01, (STEPS + 1, 7)), axis=0)
    obs: dict[str, Any] = {
        "state": state.astype(np.float32),
        "full_state": state,
        "time_stamp": 1.67e9 + np.arange(STEPS + 1) / 5 + number * 100,
        "joint_effort": rng.normal(size=(STEPS + 1, 6)),
        "eef_transform": rng.normal(size=(STEPS + 1, 4, 4)),
        "env_done": [False] * (STEPS + 1),
    }
    policy = [
        {"actions": rng.normal(0, 0.02, 7), "delta_robot_transform": np.eye(4), "policy_type": "VRTeleopPolicy"}
        for _ in range(STEPS)
    ]
    (folder / "obs_dict.pkl").write_bytes(pickle.dumps(obs))
    (folder / "policy_out.pkl").write_bytes(pickle.dumps(policy))
    (folder / "agent_data.pkl").write_bytes(pickle.dumps({"traj_ok": True, "camera_info": {"images0": "blue"}}))
    if lang is not None:
        (folder / "lang.txt").write_text(lang)
    for camera in ("images0", "images1"):
        (folder / camera).mkdir()
        for step in range(STEPS + 1):
            (folder / camera / f"im_{step}.jpg").write_bytes(make_jpeg(1000 * number + step))
    return folder


def test_bridge_trajectories_train_with_no_line_written(tmp_path: Path) -> None:
    folders = [record(tmp_path / "raw", number) for number in (0, 1, 10)]
    report = ingest(IngestConfig(source=tmp_path / "raw", out=tmp_path / "out", schema="bridge_raw", workers=1))
    assert not report.rejects
    assert {f["code"] for f in report.findings if f["severity"] != "note"} == set()
    dataset = vlapipe.open_dataset(tmp_path / "out")
    assert len(dataset) == 3
    for index, folder in enumerate(folders):
        episode = dataset.episode(index)
        assert episode.id.endswith(f"traj_group0/{folder.name}")
        obs = pickle.loads((folder / "obs_dict.pkl").read_bytes())  # noqa: S301
        steps = pickle.loads((folder / "policy_out.pkl").read_bytes())  # noqa: S301
        actions = np.stack([step["actions"] for step in steps])
        assert np.array_equal(episode["robot/state"], obs["full_state"])
        assert np.array_equal(episode["robot/timestamp"], obs["time_stamp"])
        assert np.array_equal(episode["policy/actions"], actions)
        assert (episode.row["num_frames"], episode.instruction) == (STEPS, "put the pot on the stove")
        for step in range(STEPS + 1):
            assert episode.jpeg("images1", step) == (folder / f"images1/im_{step}.jpg").read_bytes()
        assert np.array_equal(episode["align/images0"], np.arange(STEPS + 1))
    batch = next(iter(vlapipe.Loader(dataset, batch_size=4, seed=0)))
    assert batch["action"].shape[-1] == 7
    options = {"data": tmp_path / "out", "out": tmp_path / "run", "batch_size": 4, "max_steps": 10, "precision": "fp32"}
    small = {"wandb": "disabled", "eval_batches": 0, "num_workers": 1, "policy_args": SMALL}
    assert train(TrainConfig.from_sources(None, {**options, **small})).step == 10


@pytest.mark.parametrize(
    ("lang", "first", "others"),
    [
        (None, "", 0),
        ("open the drawer\nconfidence: 0.5", "open the drawer", 0),
        ("open the drawer\npull the drawer out\nconfidence: 1\n", "open the drawer", 1),
    ],
)
def test_annotations_are_paraphrases_and_their_confidence_is_no_instruction(
    tmp_path: Path, lang: str | None, first: str, others: int
) -> None:
    record(tmp_path / "raw", 0, lang=lang)
    ingest(IngestConfig(source=tmp_path / "raw", out=tmp_path / "out", schema="bridge_raw", workers=1))
    dataset = vlapipe.open_dataset(tmp_path / "out")
    assert dataset.episode(0).instruction == first
    if others:
        assert len(dataset.episode_column("instructions")[0].as_py()) == 1 + others


class Hostile:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("hostile_was_here"),)


def test_a_pickle_that_would_run_code_sets_its_trajectory_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record(tmp_path / "raw", 0)
    (record(tmp_path / "raw", 1) / "policy_out.pkl").write_bytes(pickle.dumps([{"actions": Hostile()}]))
    report = ingest(IngestConfig(source=tmp_path / "raw", out=tmp_path / "out", schema="bridge_raw", workers=1))
    (reject,) = report.rejects
    reason = next(each for each in reject["reasons"] if each["severity"] == "error")
    assert (reason["code"], reason["file"].rpartition("/")[2]) == ("npz.pickle", "policy_out.pkl")
    assert not Path("hostile_was_here").exists()

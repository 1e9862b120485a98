"""State and action from several files, end to end: ingest, samples equal to the files, and a policy that learns."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

import vlapipe
from vlapipe import Loader
from vlapipe.pipeline.ingest import IngestConfig, ingest
from vlapipe.train.config import TrainConfig
from vlapipe.train.loop import train

HEAD = "[streams.{0}]\nkind = 'csv'\nfiles = ['{0}.csv']\ntime = {{ column = 't' }}\n"
JOINTS = "fields = {{ {0} = {{ columns = ['j_{{1..{1}}}'] }} }}\n"
WINDOW = "state_rows = 3\naction_rows = 8\n"
FOLLOWER = HEAD.format("follower") + JOINTS.format("position", 6)
LEADER = FOLLOWER + HEAD.format("leader") + JOINTS.format("position", 6)
LEADER += "[action]\nkind = 'column'\nof = ['leader/position']\n"
ARMS = HEAD.format("left") + JOINTS.format("q", 7) + HEAD.format("right") + JOINTS.format("q", 7)
ARMS += f"[action]\nkind = 'next'\nof = ['left/q', 'right/q']\n[sample]\nstate = ['left/q', 'right/q']\n{WINDOW}"
GRIPPER = HEAD.format("robot") + JOINTS.format("q", 6) + HEAD.format("gripper")
GRIPPER += "fields = { width = { columns = ['width'] } }\n[action]\nkind = 'next'\nof = ['robot/q', 'gripper/width']\n"
GRIPPER += f"[sample]\nstate = ['robot/q', 'gripper/width']\n{WINDOW}"


def write(path: Path, times: np.ndarray, names: list[str], values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["t", *names])
        rows.writerows(
            [f"{t:.6f}", *map(repr, map(float, row))] for t, row in zip(times, np.float32(values), strict=True)
        )


def table(path: Path) -> tuple[list[float], list[list[np.float32]]]:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [float(row[0]) for row in rows], [[np.float32(float(cell)) for cell in row[1:]] for row in rows]


def motion(times: np.ndarray, count: int, seed: int) -> np.ndarray:
    phase = np.random.default_rng(seed).uniform(0, 6, count)
    return np.sin(times[:, None] * (0.7 + 0.1 * np.arange(count)) + phase)


def ingested(folder: Path, schema: str) -> vlapipe.Dataset:
    (folder / "lab.toml").write_text(schema)
    lines = [line for line in schema.splitlines() if "columns" not in line]
    assert len(lines) <= 8 + 2 * 4 + 4
    ingest(IngestConfig(source=folder / "raw", out=folder / "data", schema=str(folder / "lab.toml")))
    return vlapipe.open_dataset(folder / "data")


def test_leader_and_follower_in_two_files(tmp_path: Path) -> None:
    for seed in range(6):
        begin, folder = 1000.0 * seed, tmp_path / "raw" / "task" / f"e{seed}"
        t = begin + np.arange(150) / 50
        write(folder / "follower.csv", t, [f"j_{i}" for i in range(1, 7)], motion(t - 0.1, 6, seed))
        write(folder / "leader.csv", t + 0.004, [f"j_{i}" for i in range(1, 7)], motion(t + 0.004, 6, seed))
    dataset = ingested(tmp_path, LEADER)
    assert dataset.schema.sample.state == ("follower/position",)
    num_checked = 0
    for batch in Loader(dataset, shuffle=False, split=None):
        for k in range(len(batch["task"])):
            folder = tmp_path / "raw" / dataset.episode(int(batch["episode_index"][k])).id
            (clock, state), (theirs, action) = table(folder / "follower.csv"), table(folder / "leader.csv")
            row = int(batch["frame_index"][k])
            first = next(i for i, when in enumerate(theirs) if when >= clock[row])  # never before the state
            assert batch["observation.state"][k, 0].tolist() == state[row]
            assert batch["action"][k, 0].tolist() == action[first]
            num_checked += 1
    assert num_checked > 800


def _two_arms(folder: Path) -> None:
    for seed in range(8):
        begin = 1000.0 * seed
        for name, offset in (("left", 0.0), ("right", -0.004)):
            t = begin + offset + np.arange(200) / 50
            write(folder / "raw" / "task" / f"e{seed}" / f"{name}.csv", t, [f"j_{i}" for i in range(1, 8)],
                  motion(t - begin, 7, len(name)))  # fmt: skip


def _robot_and_gripper(folder: Path) -> None:
    for seed in range(8):
        begin = 1000.0 * seed
        t = begin + np.arange(200) / 50
        write(
            folder / "raw" / "task" / f"e{seed}" / "robot.csv",
            t,
            [f"j_{i}" for i in range(1, 7)],
            motion(t - begin, 6, 3),
        )
        t = begin - 0.05 + np.arange(60) / 14
        width = 0.04 + 0.04 * np.sin(t - begin)[:, None]
        write(folder / "raw" / "task" / f"e{seed}" / "gripper.csv", t, ["width"], width)


@pytest.mark.parametrize(("make", "schema", "other", "size"), [
    (_two_arms, ARMS, "right", 14), (_robot_and_gripper, GRIPPER, "gripper", 7),
], ids=["two arms", "robot and gripper"])  # fmt: skip
def test_two_tables_are_read_as_one_and_learnt(
    tmp_path: Path, make: object, schema: str, other: str, size: int
) -> None:
    make(tmp_path)  # type: ignore[operator]
    dataset = ingested(tmp_path, schema)
    loader = Loader(dataset, shuffle=False, split=None, batch_size=97)
    assert (loader.spec.state, loader.spec.action) == ((3, size), (8, size))
    anchor = dataset.schema.anchor
    for batch in loader:
        for k in range(0, len(batch["task"]), 5):
            folder = tmp_path / "raw" / dataset.episode(int(batch["episode_index"][k])).id
            (clock, ours), (theirs, values) = table(folder / f"{anchor}.csv"), table(folder / f"{other}.csv")
            row = int(batch["frame_index"][k])
            for back in range(min(3, row + 1)):
                last = max(i for i, when in enumerate(theirs) if when <= clock[row - back])
                assert batch["observation.state"][k, 2 - back].tolist() == [*ours[row - back], *values[last]]
            ahead = next((i for i, when in enumerate(theirs) if row + 1 < len(clock) and when >= clock[row + 1]), None)
            if ahead is not None and not batch["action_is_pad"][k, 0]:
                assert batch["action"][k, 0].tolist() == [*ours[row + 1], *values[ahead]]
    result = train(TrainConfig.of(
        data=tmp_path / "data", out=tmp_path / "run", max_steps=200, batch_size=32, num_workers=0, wandb="disabled",
        policy_args={"dim": 32, "depth": 1}, learning_rate=2e-3, precision="fp32",
    ))  # fmt: skip
    policy = vlapipe.load_policy(tmp_path / "run")
    actions, mean = [], dataset.stats["action/value"].mean
    for batch in Loader(dataset, split="val", shuffle=False):
        known = ~batch["action_is_pad"]
        error = (policy.act(batch) - batch["action"]).abs()[known].mean()
        actions.append((float(error), float((batch["action"][known] - mean).abs().mean())))
    ours_error, mean_error = np.mean(actions, axis=0)
    assert ours_error < mean_error / 2, result
    assert math.isfinite(ours_error)

"""The demo's task in closed loop: the operator's own actions succeed, and everything else is named for what it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vlapipe.pipeline.demo.environment import DemoEnv
from vlapipe.pipeline.demo.episode import simulate
from vlapipe.pipeline.demo.motion import Motion
from vlapipe.pipeline.demo.wordings import PARAPHRASES
from vlapipe.schemas.errors import UsageError


def run(env: DemoEnv, seed: int, *, detour: tuple[float, ...] = (0.0,) * 6) -> tuple[list[Any], dict[str, Any]]:
    """Act as the operator does, with ``detour`` added to each action; returns the observations and the last info."""
    observation, info = env.reset(seed=seed)
    seen = [observation]
    ended = False
    while not ended:
        observation, _, is_over, is_late, info = env.step(env.expert_action()[:6] + np.array(detour))
        seen.append(observation)
        ended = is_over or is_late
    return seen, info


def test_the_operators_plan_succeeds_in_every_episode() -> None:
    env = DemoEnv(images="blank")
    outcomes = [run(env, seed)[1]["outcome"] for seed in range(24)]
    assert outcomes == ["success"] * 24


def test_four_seeds_in_a_row_name_every_colour() -> None:
    env = DemoEnv(images="blank")
    named = [env.reset(seed=seed)[1]["named"] for seed in range(8)]
    assert len(set(named[:4])) == len(set(named[4:])) == 4


def test_observations_look_like_the_recording() -> None:
    """The same kind of rows as a recorded demo has: sizes, rates, ranges, and a force that rises in the pad."""
    seen, _ = run(DemoEnv(), 5)
    recorded = simulate(0, 0, max_duration_s=0.3)
    joints = np.concatenate([each["state"]["robot/joint_position"] for each in seen])
    force = np.concatenate([each["sensors"]["force"] for each in seen])
    assert len(joints) == 1 + 10 * (len(seen) - 1)
    assert len(force) == 1 + 65 * (len(seen) - 1)
    assert np.abs(force[:65]).max() < 0.05 < 0.2 < force[-10:].mean()
    assert seen[1]["sensors"]["aline"].shape == (65, *recorded.aline.shape[1:])
    assert all(each.dtype == np.float32 for each in (joints, force, seen[1]["sensors"]["aline"]))
    change = np.abs(np.diff(joints, axis=0)).max()
    assert 0.01 < change < 3  # moves, and never jumps
    assert {name: image.shape for name, image in seen[0]["images"].items()} == {
        "View1": (480, 640, 3),
        "View2": (480, 640, 3),
    }
    assert not np.array_equal(seen[0]["images"]["View1"], seen[-1]["images"]["View1"])


def test_the_same_seed_gives_the_same_episode() -> None:
    first, second = run(DemoEnv(), 3)[0][6], run(DemoEnv(), 3)[0][6]
    assert np.array_equal(first["sensors"]["aline"], second["sensors"]["aline"])
    assert np.array_equal(first["images"]["View2"], second["images"]["View2"])


def test_the_needle_in_another_pad_or_in_the_table_is_a_failure_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    env = DemoEnv(images="blank")
    env.reset(seed=0)
    other = (env.scene.named + 1) % 3
    away = env.scene.centres_mm[other] - env.scene.centres_mm[env.scene.named]
    plan = Motion.tip_mm
    monkeypatch.setattr(Motion, "tip_mm", lambda self, time_s: plan(self, time_s) + np.append(away, 0.0))
    _, info = run(env, 0)
    assert info["outcome"] == f"the needle entered the {env.scene.colours[other]} pad"
    assert not info["is_success"]
    assert info["entered"] == env.scene.colours[other]
    monkeypatch.setattr(Motion, "tip_mm", lambda self, time_s: plan(self, time_s) + np.array([0.0, 60.0, -15.0]))
    assert "hit the" in run(env, 0)[1]["outcome"]


def test_an_arm_that_stays_where_it_is_runs_out_of_time() -> None:
    env = DemoEnv(images="blank", time_limit_s=0.5)
    env.reset(seed=0)
    ends = [env.step(np.zeros(7)) for _ in range(5)]
    assert [end[3] for end in ends] == [False] * 4 + [True]
    assert ends[-1][4]["outcome"] == "the time is up"
    with pytest.raises(UsageError, match="call reset"):
        env.step(np.zeros(7))


def test_wild_actions_are_slowed_down_and_never_leave_the_arms_reach() -> None:
    env = DemoEnv(images="blank", time_limit_s=3)
    first, _ = env.reset(seed=1)
    second = env.step(np.array([0.0, 0, 1e6, 0, 0, 0]))[0]
    start, after = (each["state"]["robot/tcp_pose"][-1] for each in (first, second))
    assert np.linalg.norm(after[:3] - start[:3]) == pytest.approx(30, abs=0.1)
    for _ in range(20):
        observation = env.step(np.array([0.0, 0, 1e6, 0, 0, 0]))[0]
    assert np.isfinite(observation["state"]["robot/tcp_pose"]).all()
    with pytest.raises(UsageError, match="6 or 7 finite numbers, found 3 numbers"):
        env.step(np.zeros(3))
    with pytest.raises(UsageError, match="found NaN"):
        env.step(np.full(7, np.nan))


def test_images_are_blanked_and_instructions_changed_where_asked() -> None:
    blank, _ = DemoEnv(images="blank").reset(seed=2)
    assert not any(image.any() for image in blank["images"].values())
    own, info = DemoEnv().reset(seed=2)
    assert info["named"] == info["told"]
    assert own["task"] == f"insert the needle into the {info['named']} target"
    env = DemoEnv(instructions="swapped")
    swapped, info = env.reset(seed=2)
    assert info["told"] != info["named"]
    assert info["told"] in env.scene.colours
    assert swapped["task"] == f"insert the needle into the {info['told']} target"
    others = [DemoEnv(instructions="paraphrased", images="blank").reset(seed=seed) for seed in range(20)]
    assert len({other["task"].replace(info["told"], "") for other, info in others}) == len(PARAPHRASES) == 20
    assert not {other["task"] for other, _ in others} & {own["task"]}
    with pytest.raises(UsageError, match=r"images .blnk.: unknown.*blank"):
        DemoEnv(images="blnk")

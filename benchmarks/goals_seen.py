"""Measures how often one exact pixel tells a goal of Meta-World near enough: one JSON line a task and error.

pip install metaworld
python benchmarks/goals_seen.py

What ``bench_policies.py --suite camera`` can reach at best, for the tasks whose goal is a small sphere in the air. The
place of 3,000 goals is guessed from where the camera has them: the mean of the 40 goals that lie nearest in the
picture. ``within`` is the share of guesses that are nearer than a success needs, 5 cm (7 cm where a puck is carried).
``pixels_off`` is the standard deviation of an error of sight that is added, in pixels of a picture of 96x96.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import Any

import numpy as np
from bench_policies import EXAMPLE
from machine import machine, rounded

sys.path.insert(0, str(EXAMPLE))
NEAR_M = {"reach-v3": 0.05, "push-v3": 0.05, "pick-place-v3": 0.07}
GOALS, NEAREST = 3000, 40


def seen(task: str) -> tuple[Any, Any]:
    """Return the goals of a task (3000, 3) in metres, and where the camera has them (3000, 2) in pixels."""
    import mt10
    import mujoco

    env = mt10.task_env(task, draws=True)
    goals = np.array([mt10.begin(env, seed)[mt10.GOAL] for seed in range(GOALS)])
    camera = mujoco.mj_name2id(env.model, mujoco.mjtObj.mjOBJ_CAMERA, mt10.CAMERA)
    focal = mt10.SIDE / 2 / np.tan(np.radians(env.model.cam_fovy[camera]) / 2)
    local = (goals - env.data.cam_xpos[camera]) @ env.data.cam_xmat[camera].reshape(3, 3)
    env.close()
    return goals, local[:, :2] / -local[:, 2:] * focal


def main() -> None:
    if importlib.util.find_spec("metaworld") is None:
        sys.stderr.write("metaworld: not installed, left out\n")
        return
    for task, near in NEAR_M.items():
        goals, places = seen(task)
        for pixels_off in (0, 1, 2, 4):
            looked = places + np.random.default_rng(0).normal(size=places.shape) * pixels_off
            apart = ((looked[:, None] - places[None]) ** 2).sum(2)
            np.fill_diagonal(apart, np.inf)
            guess = goals[np.argsort(apart, axis=1)[:, :NEAREST]].mean(1)
            off = np.linalg.norm(guess - goals, axis=1)
            line = {"bench": "goals_seen", "task": task, "near_m": near, "pixels_off": pixels_off}
            line |= {"within": rounded(float((off < near).mean())), "median_m": rounded(float(np.median(off)))}
            print(json.dumps(line | machine()), flush=True)


if __name__ == "__main__":
    main()

"""Meta-World's MT10: ten manipulation tasks in one policy. Scripted experts record CSV, and ``make_env`` is for eval.

pip install metaworld
python examples/metaworld/mt10.py OUT --episodes 50 [--camera]

With ``--camera``, each row of the CSV has a picture too, and ``mt10_camera.toml`` reads those and the place of the hand
alone: where the objects and the goal are is then to be seen. With ``--state robot/state --state robot/goal`` in
training and ``--env-arg goal=true`` in eval the goal is told, and only the objects are to be seen.
``MUJOCO_GL=osmesa`` draws without a screen.

An episode is a function of its seed. An episode of ``make_env`` has the task of its seed's last digit, so ten seeds in
a row are the ten tasks, and no seed below a million is a recorded one.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import metaworld
import numpy as np
import simplejpeg
from metaworld import policies

STEP_S = 0.0125
LAST_STEP = 200  # an expert needs 40 to 150
CAMERA, SIDE = "corner4", 96  # the simulation's own name of it, and the pixels of a picture's side
FIRST_RECORDED = 500_000  # seed; vlapipe eval counts from a million times its own
TASKS = {
    "reach-v3": "reach the target",
    "push-v3": "push the puck to the goal",
    "pick-place-v3": "pick up the puck and place it at the goal",
    "door-open-v3": "open the door",
    "drawer-open-v3": "open the drawer",
    "drawer-close-v3": "close the drawer",
    "button-press-topdown-v3": "press the button from above",
    "peg-insert-side-v3": "insert the peg sideways",
    "window-open-v3": "open the window",
    "window-close-v3": "close the window",
}
HAND, GOAL = slice(0, 18), slice(36, 39)  # of an observation: hand, gripper and objects; the goal
STATES = ["hand_x", "hand_y", "hand_z", "gripper", *(f"obj{i}" for i in range(14)), "goal_x", "goal_y", "goal_z"]
ACTIONS = ["act_x", "act_y", "act_z", "act_grip"]


def task_env(task: str, *, draws: bool = False) -> Any:
    """Return the environment of one task. ``draws`` gives it a camera."""
    of = metaworld.MT1(task, seed=0)
    camera = {"render_mode": "rgb_array", "camera_name": CAMERA, "width": SIDE, "height": SIDE} if draws else {}
    env = of.train_classes[task](**camera)
    env.set_task(of.train_tasks[0])  # shows the goal in the observation
    env._freeze_rand_vec, env.seeded_rand_vec = False, True  # else there are 50 places of goal and objects, or one
    if draws:
        env.model.vis.quality.shadowsize = env.model.vis.quality.offsamples = 0  # of a tenth of the time
        env.model.vis.global_.offwidth = env.model.vis.global_.offheight = SIDE
    return env


def begin(env: Any, seed: int) -> Any:
    """Begin the episode of a seed, which places goal and objects, and return its first observation."""
    env.seed(seed)
    return env.reset()[0]


def picture_of(env: Any) -> Any:
    """Return what the camera sees, (96, 96, 3) uint8. Meta-World hangs it upside down."""
    return np.ascontiguousarray(env.render()[::-1, ::-1])


def expert_of(task: str) -> Any:
    """Return Meta-World's own script for a task."""
    words = task.removesuffix("-v3").replace("peg-insert", "peg-insertion").split("-")
    return getattr(policies, f"Sawyer{''.join(word.capitalize() for word in words)}V3Policy")()


def state_of(seen: Any) -> Any:
    """Return the state (21,) of an observation (39,)."""
    return np.concatenate([seen[HAND], seen[GOAL]])


class TenTasks:
    """What ``vlapipe eval`` needs: an observation as a dict, and at the end whether the task is done."""

    action_hz = 1 / STEP_S

    def __init__(self, *, camera: bool = False, goal: bool = False) -> None:
        self.envs, self.camera = [task_env(task, draws=camera) for task in TASKS], camera
        self.told = [*range(4), *range(18, 21)] if goal else [*range(4)]  # of a state, beside a camera

    def reset(self, *, seed: int = 0, **_: Any) -> tuple[Any, dict[str, Any]]:
        """Begin the episode of a seed."""
        self.env, self.task, self.steps = self.envs[seed % 10], [*TASKS.values()][seed % 10], 0
        if self.camera:  # a simulation draws into the window of the one that was made last, unless its own is asked for
            self.env.mujoco_renderer._get_viewer("rgb_array").make_context_current()
        return self._seen(begin(self.env, seed)), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Act once. The episode ends with the first success."""
        seen, reward, _, _, info = self.env.step(np.clip(action, -1, 1).astype(np.float32))
        self.steps += 1
        done = bool(info["success"])
        return self._seen(seen), reward, done, self.steps == LAST_STEP, {"is_success": done}

    def close(self) -> None:
        """End the simulations."""
        for env in self.envs:
            env.close()

    def _seen(self, seen: Any) -> dict[str, Any]:
        state = state_of(seen).astype(np.float32)
        if self.camera:
            return {"state": state[self.told], "images": {"corner": picture_of(self.env)}, "task": self.task}
        return {"state": state, "task": self.task}


def make_env(*, camera: bool = False, goal: bool = False) -> TenTasks:
    """For ``vlapipe eval RUN --env mt10:make_env [--env-arg camera=true [--env-arg goal=true]]``."""
    return TenTasks(camera=camera, goal=goal)


def record(env: Any, expert: Any, seed: int, folder: Path, *, draws: bool) -> bool:
    """Write the episode of a seed into a folder, if the expert succeeds in it."""
    seen, rows, pictures, successes = begin(env, seed), [], [], 0
    while len(rows) < LAST_STEP and successes < 10:
        action = np.clip(expert.get_action(seen), -1, 1)
        rows.append([f"{len(rows) * STEP_S:.4f}", *(f"{value:.6f}" for value in (*state_of(seen), *action))])
        if draws:
            pictures.append(simplejpeg.encode_jpeg(picture_of(env), quality=95))
        seen, _, _, _, info = env.step(action.astype(np.float32))
        successes += bool(info["success"])
    if not successes:
        return False
    folder.mkdir(parents=True)
    with (folder / "robot.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["t", *STATES, *ACTIONS], *rows])
    if draws:
        (folder / "corner").mkdir()
    for number, picture in enumerate(pictures):
        (folder / "corner" / f"{number:04}.jpg").write_bytes(picture)
    return True


def main() -> None:
    """Record the successes of the experts, each a folder with its CSV."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--episodes", type=int, default=50, help="of each task")
    parser.add_argument("--camera", action="store_true", help="and a picture of each row")
    options = parser.parse_args()
    for task, instruction in TASKS.items():
        env, expert, done, seed = task_env(task, draws=options.camera), expert_of(task), 0, FIRST_RECORDED
        while done < options.episodes:
            folder = options.out / f"{task}_{done:03}"
            if record(env, expert, seed, folder, draws=options.camera):
                (folder / "metadata.json").write_text(json.dumps({"task": instruction}))
                done += 1
            seed += 1
        env.close()
        print(f"{task}: {done} episodes, of {seed - FIRST_RECORDED}", flush=True)


if __name__ == "__main__":
    main()

"""Meta-World's MT10: ten manipulation tasks in one policy. Scripted experts record CSV, and ``make_env`` is for eval.

pip install metaworld
python examples/metaworld/mt10.py OUT --episodes 50

An episode of ``make_env`` has the task of its seed, so ten seeds in a row are the ten tasks. Its goal and objects lie
elsewhere than in any recorded one.
"""

from __future__ import annotations

import argparse
import csv
import json
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import metaworld  # noqa: F401 - registers the environments
import numpy as np
from metaworld import policies

STEP_S = 0.0125
LAST_STEP = 200  # an expert needs 40 to 150
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


def task_env(task: str, seed: int) -> Any:
    """Return the environment of one task. ``seed`` places its goals and objects."""
    return gymnasium.make("Meta-World/MT1", env_name=task, seed=seed, task_select="pseudorandom")


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

    def __init__(self) -> None:
        self.envs = [task_env(task, 9000 + number) for number, task in enumerate(TASKS)]

    def reset(self, *, seed: int = 0, **_: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode of the task that the seed names."""
        self.env, self.task, self.steps = self.envs[seed % 10], [*TASKS.values()][seed % 10], 0
        return self._seen(self.env.reset()[0]), {}

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
        return {"state": state_of(seen).astype(np.float32), "task": self.task}


def make_env() -> TenTasks:
    """For ``vlapipe eval RUN --env mt10:make_env``."""
    warnings.simplefilter("ignore")  # Gymnasium's, about the bounds that Meta-World declares
    return TenTasks()


def main() -> None:
    """Record the successes of the experts, each a folder with its CSV."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--episodes", type=int, default=50, help="of each task")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for number, (task, instruction) in enumerate(TASKS.items()):
        env, expert, done = task_env(task, 1000 + number), expert_of(task), 0
        while done < options.episodes:
            seen, rows, successes = env.reset()[0], [], 0
            while len(rows) < LAST_STEP and successes < 10:
                action = np.clip(expert.get_action(seen), -1, 1)
                rows.append([f"{len(rows) * STEP_S:.4f}", *(f"{value:.6f}" for value in (*state_of(seen), *action))])
                seen, _, _, _, info = env.step(action.astype(np.float32))
                successes += bool(info["success"])
            if successes:
                folder = options.out / f"{task}_{done:03}"
                folder.mkdir(parents=True)
                (folder / "metadata.json").write_text(json.dumps({"task": instruction}))
                with (folder / "robot.csv").open("w", newline="") as file:
                    csv.writer(file).writerows([["t", *STATES, *ACTIONS], *rows])
                done += 1
        print(f"{task}: {done} episodes", flush=True)


if __name__ == "__main__":
    main()

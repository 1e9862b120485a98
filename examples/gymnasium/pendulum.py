"""Gymnasium's Pendulum-v1: a scripted expert records episodes as CSV, and ``make_env`` lets a trained policy act.

python examples/gymnasium/pendulum.py OUT --episodes 50
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

STEP_S = 0.05
TASK = "swing the pendulum up and hold it"
COLUMNS = ("time", "cos_angle", "sin_angle", "velocity", "torque")


class PendulumForPolicies(gymnasium.Wrapper[Any, Any, Any, Any]):
    """What ``vlapipe eval`` needs: an observation as a dict, and at the end whether the task is done."""

    action_hz = 1 / STEP_S

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        state, info = self.env.reset(**options)
        self.upright = list[float]()
        return {"state": state, "task": TASK}, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Act for 0.05 s. The task is done if the pendulum stands upright in the last 50 of its 200 steps."""
        state, reward, terminated, truncated, info = self.env.step(np.clip(action, -2, 2))
        self.upright.append(float(state[0]))
        info["is_success"] = min(self.upright[-50:]) > 0.95
        return {"state": state, "task": TASK}, reward, terminated, truncated, info


def make_env() -> gymnasium.Env[Any, Any]:
    """For ``vlapipe eval RUN --env pendulum:make_env``."""
    return PendulumForPolicies(gymnasium.make("Pendulum-v1", render_mode="rgb_array"))


def expert(state: Any) -> float:
    """Pump energy into the swing until it is enough to stand, then balance."""
    cosine, sine, velocity = (float(value) for value in state)
    if cosine > 0.9:
        return float(np.clip(-12 * sine - 3 * velocity, -2, 2))
    missing = 15 * (1 - cosine) - velocity**2 / 2  # of the energy of standing upright
    return float(np.clip(missing * np.sign(velocity or 1.0), -2, 2))


def main() -> None:
    """Record episodes, each a folder with its CSV.

    The torque that acts is the expert's and noise, and what is recorded is the expert's alone: otherwise nearly all
    frames stand still, and none shows how to come back.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--noise", type=float, default=1.5, help="standard deviation of the noise, in N m")
    options = parser.parse_args()
    env, rewards = gymnasium.make("Pendulum-v1"), []
    for episode in range(options.episodes):
        state, _ = env.reset(seed=episode)
        noise = np.random.default_rng(episode).normal(0, options.noise, 1000)
        rows, total, ended = [], 0.0, False
        while not ended:
            torque = expert(state)
            rows.append((f"{len(rows) * STEP_S:.2f}", *(repr(float(value)) for value in (*state, torque))))
            acts = np.array([torque + noise[len(rows)]], dtype=np.float32).clip(-2, 2)
            state, reward, terminated, truncated, _ = env.step(acts)
            total, ended = total + float(reward), terminated or truncated
        rewards.append(total)
        folder = options.out / "swing_up" / f"episode_{episode:03}"
        folder.mkdir(parents=True)
        (folder / "metadata.json").write_text(json.dumps({"instruction": TASK, "reward": total}))
        with (folder / "states.csv").open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
    print(f"{len(rewards)} episodes, mean reward {np.mean(rewards):.1f}, worst {min(rewards):.1f}")


if __name__ == "__main__":
    main()

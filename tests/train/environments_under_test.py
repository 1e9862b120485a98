"""Small environments for tests, with the methods of Gymnasium."""

from __future__ import annotations

from typing import Any

import numpy as np


class Steps:
    """Ends after five steps, with success in every second episode. Its observations fit ``tiny_lab``'s datasets."""

    def __init__(self, *, action_hz: float = 10.0, task: str = "insert the needle") -> None:
        self.action_hz, self.task = action_hz, task
        self.seen = list[Any]()

    def reset(self, *, seed: int) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self.seed, self.step_number = seed, 0
        return self._observe(), {"task": f"task {seed % 2}"}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Count."""
        self.seen.append(action)
        self.step_number += 1
        ended = self.step_number == 5
        info = {"is_success": ended and self.seed % 2 == 0, "outcome": "missed" if ended else "", "task": self.task}
        return self._observe(), 1.0, ended, False, info | {"task": f"task {self.seed % 2}"}

    def render(self) -> Any:
        """A picture that tells the step."""
        return np.full((30, 40, 3), 40 * self.step_number, dtype=np.uint8)

    def _observe(self) -> dict[str, Any]:
        image = np.full((48, 64, 3), 7, dtype=np.uint8)
        return {
            "state": {
                "robot/joint_position": np.full((10, 6), 1.0, np.float32),
                "robot/tcp_pose": np.full(6, 2.0, np.float32)[None].repeat(10, 0),
                "robot/unread": np.zeros((10, 2)),
            },
            "images": dict.fromkeys(("View1", "View2", "Unread"), image),
            "sensors": {"force": np.zeros(65, np.float32), "aline": np.zeros((65, 1025), np.float32)},
            "task": self.task,
        }


class Breaks(Steps):
    """Fails in its second step."""

    def step(self, action: Any) -> Any:
        """Divide by zero."""
        return super().step(action) if self.step_number < 1 else 1 / 0


class SaysNothing(Steps):
    """Does not say whether an episode succeeded."""

    def step(self, action: Any) -> Any:
        """Leave info empty."""
        return (*super().step(action)[:4], {})


def no_environment() -> str:
    """What is no environment."""
    return "no environment"


def fails() -> None:
    """Cannot be made."""
    raise RuntimeError("no simulator here")


class SucceedsInTheMiddle(Steps):
    """Succeeds more often in the second evaluation of a run than in the others; an evaluation has two episodes."""

    num_episodes = 0

    def step(self, action: Any) -> Any:
        """Count the episodes."""
        observation, reward, ended, late, info = super().step(action)
        if ended:
            info["is_success"] = self.num_episodes in (0, 2, 3, 4)
            self.num_episodes += 1
        return observation, reward, ended, late, info

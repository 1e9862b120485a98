"""Counts the successes of episodes in closed loop, by task, each share with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["ClosedLoopEpisode", "Share", "by_task", "share_of", "wilson"]

_Z = 1.959964  # of 95 %


@dataclass(frozen=True, kw_only=True)
class ClosedLoopEpisode:
    """What became of one episode. ``outcome`` is the environment's own word for its end, if it has one."""

    seed: int
    task: str
    instruction: str
    is_success: bool
    num_steps: int
    total_reward: float
    outcome: str = ""
    info: dict[str, Any] | None = None  # what else the environment's last info says, if JSON can hold it

    def to_json(self) -> dict[str, Any]:
        """Returns the episode as JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Share:
    """``successes`` of ``num_episodes``, and the 95 % interval of the share by Wilson."""

    successes: int
    num_episodes: int

    @property
    def share(self) -> float:
        """The share of successes; NaN without an episode."""
        return self.successes / self.num_episodes if self.num_episodes else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the 95 % interval."""
        return wilson(self.successes, self.num_episodes)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.successes} of {self.num_episodes}, {self.share:.0%} (95 %: {low:.0%} to {high:.0%})"

    def to_json(self) -> dict[str, Any]:
        """Returns counts, share and interval as JSON values."""
        low, high = self.interval
        counts = {"successes": self.successes, "num_episodes": self.num_episodes}
        return {**counts, "share": self.share, "low": low, "high": high}


def wilson(successes: int, num_episodes: int) -> tuple[float, float]:
    """Returns the 95 % score interval of a share (Wilson 1927); (0, 1) without an episode."""
    n = num_episodes
    if not n:
        return 0.0, 1.0
    share = successes / n
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def share_of(episodes: Sequence[ClosedLoopEpisode]) -> Share:
    """Returns how many of the episodes succeeded."""
    return Share(successes=sum(episode.is_success for episode in episodes), num_episodes=len(episodes))


def by_task(episodes: Sequence[ClosedLoopEpisode]) -> dict[str, Share]:
    """Returns the share of each task, the worst task first."""
    tasks = dict.fromkeys(episode.task for episode in episodes)
    shares = {task: share_of([episode for episode in episodes if episode.task == task]) for task in tasks}
    return dict(sorted(shares.items(), key=lambda item: (item[1].share, item[0])))

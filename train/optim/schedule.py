"""The learning rate of each step: a pure function of the step, so that a resume needs no scheduler."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Schedule"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate: linear warm-up, then half a cosine down to ``min_ratio * learning_rate``.

    The ``decay_steps``-th step is the first one with the minimum.
    """

    learning_rate: float
    warmup_steps: int
    decay_steps: int
    min_ratio: float

    def at(self, step: int) -> float:
        """Returns the learning rate of ``step`` (from 0). The rate stays at its minimum after ``decay_steps`` steps."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        span = max(1, self.decay_steps - 1 - self.warmup_steps)
        done = min(1.0, (step - self.warmup_steps) / span)
        return self.learning_rate * (self.min_ratio + (1 - self.min_ratio) * 0.5 * (1 + math.cos(math.pi * done)))

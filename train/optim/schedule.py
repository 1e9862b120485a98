"""The learning rate of each step: a pure function of the step, so that a resume needs no scheduler."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Schedule"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Linear warm-up, then half a cosine down to ``min_ratio`` of the highest rate in step ``decay_steps``."""

    learning_rate: float
    warmup_steps: int
    decay_steps: int
    min_ratio: float

    def at(self, step: int) -> float:
        """The learning rate of step 0, 1, ...; past ``decay_steps`` it stays at its lowest."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        span = max(1, self.decay_steps - 1 - self.warmup_steps)
        done = min(1.0, (step - self.warmup_steps) / span)
        return self.learning_rate * (self.min_ratio + (1 - self.min_ratio) * 0.5 * (1 + math.cos(math.pi * done)))

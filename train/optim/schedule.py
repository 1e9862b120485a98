"""The learning rate of each step: a pure function of the step, so that a resume needs no scheduler."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["SCHEDULES", "Schedule"]

SCHEDULES = ("warmup-cosine", "constant", "linear", "wsd")
_WSD_DECAY = 5  # wsd decays over this part of the steps (a fifth), if stable_steps is None


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The learning rate: a linear warm-up to ``learning_rate``, and then what ``kind`` says.

    - ``warmup-cosine``: half a cosine down to ``min_ratio * learning_rate``.
    - ``linear``: a line down to it.
    - ``wsd`` (warm-up, stable, decay): the highest rate for ``stable_steps`` steps, then a line down.
    - ``constant``: the highest rate for ever.

    The ``decay_steps``-th step is the first one with the minimum. The rate then stays there.
    """

    learning_rate: float
    warmup_steps: int
    decay_steps: int
    min_ratio: float
    kind: str = "warmup-cosine"
    stable_steps: int | None = None  # of wsd, counted from the end of the warm-up; None: until a fifth is left

    def at(self, step: int) -> float:
        """Returns the learning rate of ``step`` (from 0)."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.kind == "constant":
            return self.learning_rate
        first = self.warmup_steps + self._stable_steps
        done = max(0.0, min(1.0, (step - first) / max(1, self.decay_steps - 1 - first)))
        falls = 0.5 * (1 + math.cos(math.pi * done)) if self.kind == "warmup-cosine" else 1 - done
        return self.learning_rate * (self.min_ratio + (1 - self.min_ratio) * falls)

    @property
    def _stable_steps(self) -> int:
        if self.kind != "wsd":
            return 0
        if self.stable_steps is not None:
            return self.stable_steps
        return max(0, self.decay_steps - max(2, self.decay_steps // _WSD_DECAY) - self.warmup_steps)

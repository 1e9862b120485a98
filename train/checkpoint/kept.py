"""Decides which checkpoints of a run are kept: the last ones, the best ones by a metric, and some at fixed steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlapipe.schemas.errors import DamageError, NewerFormatError
from vlapipe.train.checkpoint.commit import remove
from vlapipe.train.checkpoint.files import all_checkpoints, open_checkpoint, step_of

__all__ = ["KeepRules", "best_first", "metrics_of", "remove_old"]


@dataclass(frozen=True, kw_only=True)
class KeepRules:
    """A checkpoint that no rule keeps is removed after the next one was written."""

    last: int = 2  # number of newest checkpoints that are kept; at least 1
    best: int = 0  # number of best checkpoints that are kept
    metric: str = "val/loss"
    lowest_is_best: bool = True
    every: int | None = None  # a checkpoint is kept if its step is a multiple of this number

    def kept(self, metrics_of: Mapping[int, Mapping[str, Any]]) -> set[int]:
        """Returns the steps of the checkpoints that are kept, of those in ``metrics_of`` (the metrics by step)."""
        steps = sorted(metrics_of)
        best = best_first(metrics_of, self.metric, lowest=self.lowest_is_best)[: self.best]
        at_steps = [step for step in steps if self.every and step % self.every == 0]
        return {*steps[-self.last :], *best, *at_steps}


def best_first(metrics_of: Mapping[int, Mapping[str, Any]], metric: str, *, lowest: bool) -> Sequence[int]:
    """Returns the steps whose metrics have a finite ``metric``, the best one first; of equals the newest first."""
    measured = {step: float(m[metric]) for step, m in metrics_of.items() if _is_finite(m.get(metric))}
    sign = 1 if lowest else -1
    return sorted(measured, key=lambda step: (sign * measured[step], -step))


def remove_old(out: Path, rules: KeepRules) -> None:
    """Remove the checkpoints of the run in ``out`` that no rule keeps."""
    found = {step_of(path): path for path in all_checkpoints(out)}
    kept = rules.kept({step: metrics_of(path) for step, path in found.items()})
    for step, path in found.items():
        if step not in kept:
            remove(path)


def metrics_of(path: Path) -> Mapping[str, Any]:
    """Returns the metrics that a checkpoint was saved with; none if its state is damaged."""
    try:
        metrics = open_checkpoint(path).state.get("metrics")
    except (DamageError, NewerFormatError):
        return {}
    return metrics if isinstance(metrics, dict) else {}


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)

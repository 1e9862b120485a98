"""Adds up the absolute error of actions: by task, by step of the chunk and by dimension, in the units of the data.

Shape letters: B batch, H action horizon, A action size, K tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlapipe.train.data.batch_layout import Batch
from vlapipe.train.data.sample_spec import SampleSpec

__all__ = ["ActionErrors", "Dimensions", "Figures", "recorded_actions"]

OTHERS = "other instructions"
MEAN = "mean"  # the yardstick that relative errors are measured against
_MOST_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """Name, unit and period of each dimension of an action; a period of 0 does not repeat."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    periods: tuple[float, ...]

    @classmethod
    def of(cls, spec: SampleSpec) -> Dimensions:
        """Returns those of recorded actions. Dimensions whose names are unknown are numbered."""
        size = spec.recorded_action_size
        fields = spec.description.fields_of("action")
        periods = tuple(p for field in fields for p in field.period or (0.0,) * field.num_columns)
        return cls(
            names=spec.description.names_of("action", size),
            units=spec.description.units_of("action", size),
            periods=periods if len(periods) == size else (0.0,) * size,
        )


def recorded_actions(spec: SampleSpec, batch: Batch) -> tuple[Tensor, Tensor]:
    """Returns a batch's actions as they were recorded, (B, H, A), and which of them count, bool (B, H, A)."""
    actions, counts = batch["action"], ~batch["action_is_pad"].unsqueeze(2)
    if "action_dim_is_pad" in batch:
        counts = counts & ~batch["action_dim_is_pad"].unsqueeze(1)
    counts = counts & actions.isfinite().all(2, keepdim=True) if spec.action_form else counts & actions.isfinite()
    if spec.action_form is not None:
        actions = spec.action_form.decode(actions, batch["observation.state"][:, spec.newest])
    return actions, counts.expand_as(actions)


class ActionErrors:
    """Sums of one predictor's errors on the device, and how many actions they are of, each (K + 1, H, A) float64."""

    def __init__(self, tasks: Sequence[str], periods: Sequence[float]) -> None:
        """Begin with no error. Instructions that are not in ``tasks`` are counted together."""
        self.tasks = [*tasks, OTHERS]
        self._number = {task: i for i, task in enumerate(tasks)}
        self._periods = torch.tensor(periods, dtype=torch.float64)
        self.sums: Tensor | None = None  # (2, K + 1, H, A): errors, counts

    def add(self, predicted: Tensor, recorded: Tensor, counts: Tensor, tasks: Sequence[str]) -> None:
        """Add the errors of ``predicted`` (B, H, A) where ``counts``. ``tasks`` are the B instructions."""
        error = predicted.double() - recorded.double()
        periods = self._periods.to(error.device)
        turns = torch.where(periods > 0, periods, 1.0)
        error = torch.where(periods > 0, error - turns * (error / turns).round(), error).abs()
        error = torch.where(counts, error, 0.0)
        number = torch.tensor([self._number.get(task, len(self.tasks) - 1) for task in tasks], device=error.device)
        if self.sums is None:
            self.sums = error.new_zeros((2, len(self.tasks), *error.shape[1:]))
        self.sums[0].index_add_(0, number, error)
        self.sums[1].index_add_(0, number, counts.double())


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Mean absolute errors of the policy and of yardsticks, on the same frames.

    A relative error is the mean over dimensions of the error as a share of the ``mean`` yardstick's: 1 is no better
    than always answering the mean action. Dimensions that never change have no share.
    """

    dimensions: Dimensions
    tasks: Sequence[str]
    sums: Mapping[str, NDArray[np.float64]]  # by predictor, "policy" first: (2, K, H, A) of errors and counts

    def by_dimension(self, who: str) -> NDArray[np.float64]:
        """Returns the error of each dimension (A,), in its unit."""
        return _mean(self.sums[who].sum(axis=(1, 2)))

    def by_step(self, who: str) -> NDArray[np.float64]:
        """Returns the error of each step and dimension (H, A), in the dimension's unit."""
        return _mean(self.sums[who].sum(axis=1))

    def relative(self, who: str = "policy", task: int | None = None) -> float:
        """Returns the relative error, of one task or of all frames; NaN if no dimension changes."""
        of_task = slice(None) if task is None else slice(task, task + 1)
        return self._share(_mean(self.sums[who][:, of_task].sum(axis=(1, 2))), _mean(self.sums[MEAN].sum(axis=(1, 2))))

    def relative_by_step(self, who: str = "policy") -> list[float]:
        """Returns the relative error of each step of the chunk."""
        scale = _mean(self.sums[MEAN].sum(axis=(1, 2)))
        return [self._share(error, scale) for error in self.by_step(who)]

    @staticmethod
    def _share(error: NDArray[np.float64], scale: NDArray[np.float64]) -> float:
        varies = np.isfinite(error) & (scale > 1e-6 * max(1e-12, float(np.nanmax(scale, initial=0.0))))
        return float((error[varies] / scale[varies]).mean()) if varies.any() else math.nan

    def worst_tasks(self) -> list[tuple[str, float, int]]:
        """Returns each task with its relative error and its number of counted actions, the worst first."""
        counts = self.sums["policy"][1].max(axis=(1, 2))
        found = [(task, self.relative(task=i), int(counts[i])) for i, task in enumerate(self.tasks) if counts[i]]
        return sorted(found, key=lambda item: (-item[1] if math.isfinite(item[1]) else 0.0, item[0]))

    def metrics(self, prefix: str) -> dict[str, float]:
        """Returns the figures to log: relative errors, the policy's by step, and errors by dimension in their units.

        What has no recorded action, such as a step that no chunk of the split reaches, is left out.
        """
        found = {f"{prefix}/action_error": self.relative()}
        found |= {
            f"{prefix}/action_error_of_{who}": self.relative(who) for who in self.sums if who not in ("policy", MEAN)
        }
        steps = self.relative_by_step()
        found |= {f"{prefix}/action_error/step_{i + 1}": steps[i] for i in _spread(len(steps))}
        errors = self.by_dimension("policy").tolist()
        found |= {f"{prefix}/action_error/{n}": e for n, e in zip(self.dimensions.names, errors, strict=True)}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def sentences(self) -> list[str]:
        """Returns two lines for a log: how far from the yardsticks, and the errors and tasks in a few words."""
        others = ", ".join(f"{who} {self.relative(who):.2f}" for who in self.sums if who not in ("policy", MEAN))
        first = f"action error {self.relative():.2f} of that of answering the mean action ({others})"
        errors = self.by_dimension("policy")
        shown = [
            f"{name} {error:.3g}{f' {unit}' if unit else ''}"
            for name, unit, error in zip(self.dimensions.names, self.dimensions.units, errors, strict=True)
        ]
        more = f" and {len(shown) - _MOST_SHOWN} more" if len(shown) > _MOST_SHOWN else ""
        tasks = self.worst_tasks()
        worst = f"; worst task {tasks[0][0]!r:.60} {tasks[0][1]:.2f}" if len(tasks) > 1 else ""
        return [first, ", ".join(shown[:_MOST_SHOWN]) + more + worst]

    def lines(self) -> list[str]:
        """Returns the report: a row a dimension with every yardstick, the steps of the chunk, tasks the worst first."""
        who = [*self.sums]
        width = max(len("dimension"), *(len(label) for label in self._labels()))
        found = [f"{'dimension':<{width}}" + "".join(f"{name:>10}" for name in who)]
        errors = {name: self.by_dimension(name) for name in who}
        for i, label in enumerate(self._labels()):
            found.append(f"{label:<{width}}" + "".join(f"{errors[name][i]:>10.4g}" for name in who))
        found.append(f"{'relative':<{width}}" + "".join(f"{self.relative(name):>10.2f}" for name in who))
        steps = self.relative_by_step()
        shown = [f"{i + 1}: {steps[i]:.2f}" for i in _spread(len(steps))]
        found += ["", f"relative error by step of the chunk   {'   '.join(shown)}", ""]
        tasks = self.worst_tasks()
        wide = max((len(task) for task, _, _ in tasks), default=0)
        found += [f"{task:<{wide}}  {error:.2f}" for task, error, _ in tasks]
        return found

    def _labels(self) -> list[str]:
        pairs = zip(self.dimensions.names, self.dimensions.units, strict=True)
        return [f"{name} ({unit})" if unit else name for name, unit in pairs]

    def to_json(self) -> dict[str, Any]:
        """Returns every figure as JSON values; what is not known is None."""
        return {
            "dimensions": list(self.dimensions.names),
            "units": list(self.dimensions.units),
            "predictors": {
                who: {
                    "relative": _number(self.relative(who)),
                    "by_dimension": _numbers(self.by_dimension(who)),
                    "by_step": [_numbers(row) for row in self.by_step(who)],
                    "relative_by_step": [_number(share) for share in self.relative_by_step(who)],
                }
                for who in self.sums
            },
            "tasks": [
                {"task": task, "relative": _number(error), "num_actions": count}
                for task, error, count in self.worst_tasks()
            ],
        }


def _mean(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns errors divided by counts, of ``(2, ...)``; NaN where nothing was counted."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = sums[0] / sums[1]
    return found


def _spread(count: int, most: int = 8) -> list[int]:
    """Returns up to ``most`` numbers below ``count``, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most)).tolist()})


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    return [_number(value) for value in values.tolist()]

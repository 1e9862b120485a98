"""Puts the facts of several runs side by side: the options that differ, and the figures that matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["compare_runs"]

_NOT_COMPARED = {"out", "resume"}
# Figures that every run may have: name, path in the facts.
_FIGURES = (
    ("step", ("step",)),
    ("parameters", ("num_parameters",)),
    ("train loss, last 5 %", ("loss", "last")),
    ("validation loss", ("loss", "validation")),
    ("lowest validation loss", ("loss", "best_validation")),
    ("at step", ("loss", "best_step")),
    ("action error", ("summary", "val/action_error", "last")),
    ("success in training", ("summary", "env/success", "last")),
    ("samples/s, median", ("summary", "train/samples_per_s", "median")),
    ("ms a step", ("time", "step_ms")),
    ("ms of it waiting for data", ("time", "parts_ms", "data")),
    ("GPU memory, GB", ("summary", "system/gpu_mem_GB", "max")),
)


def compare_runs(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the comparison that ``vlapipe inspect RUN --compare RUN2 --json`` prints.

    ``options`` and ``figures`` have one value for each run, in the order of ``runs``; None where a run has none.
    """
    names = dict.fromkeys(name for run in runs for name in run["options"])
    options = [(name, [run["options"].get(name) for run in runs]) for name in names if name not in _NOT_COMPARED]
    figures = [(name, [_at(run, path) for run in runs]) for name, path in _FIGURES]
    figures += _evaluated(runs, "recorded", "action error of", ("predictors", "policy", "relative"))
    figures += _evaluated(runs, "closed_loop", "success of", ("success", "share"))
    return {
        "runs": [dict(run) for run in runs],
        "options": [
            {"option": name, "values": values} for name, values in options if any(v != values[0] for v in values)
        ],
        # A figure that is 0 or unknown in each run says nothing.
        "figures": [{"figure": name, "values": values} for name, values in figures if any(values)],
    }


def _at(values: Any, path: Sequence[str]) -> Any:
    for key in path:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _evaluated(
    runs: Sequence[Mapping[str, Any]], kind: str, label: str, path: Sequence[str]
) -> list[tuple[str, list[Any]]]:
    """Return a figure for each evaluation that ``vlapipe eval`` made of any of the runs."""
    by_run = [{found["name"]: _at(found, path) for found in run[kind]} for run in runs]
    names = dict.fromkeys(name for found in by_run for name in found)
    return [(f"{label} {name}", [found.get(name) for found in by_run]) for name in names]

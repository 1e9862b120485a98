"""How the values of each field are spread, which columns deserve a look, and where the robot has been."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.report.plain_numbers import significant
from vlapipe.pipeline.report.recorded import RecordedEpisode
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.show.column_names import action_names, column_names
from vlapipe.schemas.schema import FieldSpec
from vlapipe.schemas.units import conversion_factor

__all__ = ["coverage_facts", "field_facts"]

_BINS = 40
_WIDE = 64
_MOST_ROWS = 2_000  # of an episode, for distributions
_MOST_WIDE_ROWS = 64  # of an episode, for fields with many columns
_MOST_POINTS = 600  # of a task, in a scatter plot
_MOST_TASKS = 8
_CELLS = 32
_NEAR_SINGULAR_DEG = 2.0
_FAR = 20.0


def field_facts(dataset: Dataset, episodes: Sequence[RecordedEpisode]) -> list[dict[str, Any]]:
    """Returns each field with its columns: statistics of the train split, a histogram of sampled rows, and flags."""
    paths = list(dict.fromkeys(path for episode in episodes for path in episode.fields))
    facts = []
    for path in paths:
        spec = dataset.recorded.field(path)
        most = _MOST_ROWS if spec.num_columns <= _WIDE else _MOST_WIDE_ROWS
        parts = [episode.field(path, most_rows=most) for episode in episodes if path in episode.fields]
        values = np.concatenate(parts).astype(np.float64) if parts else np.empty((0, spec.num_columns))
        facts.append(_field(dataset, path, spec, column_names(path, spec), values))
    actions = [episode.actions() for episode in episodes]
    if actions:
        values = np.concatenate(actions).astype(np.float64)
        facts.append(_field(dataset, "action/value", None, action_names(dataset.schema), values))
    return facts


def _field(
    dataset: Dataset, path: str, spec: FieldSpec | None, names: list[str], values: NDArray[np.float64]
) -> dict[str, Any]:
    is_wide = values.shape[1] > _WIDE
    if is_wide:
        values, names = values.reshape(-1, 1), [path.partition("/")[2]]
    statistics = dataset.manifest.statistics.get(path)
    columns = []
    for i in range(values.shape[1]):
        name = names[i] if i < len(names) else f"{path}[{i}]"
        columns.append(_column(spec, i, name, values[:, i], statistics, is_wide=is_wide))
    rows = int(np.isfinite(values).any(axis=1).sum()) if len(values) else 0
    stored = dataset.manifest.streams.get(path.partition("/")[0], {}).get("fields", {}).get(path.partition("/")[2], {})
    return {
        "path": path,
        "dtype": stored.get("dtype", "float32"),
        "num_columns": spec.num_columns if spec is not None else len(names),
        "is_wide": is_wide,
        "sampled_rows": rows,
        "columns": columns,
    }


def _column(
    spec: FieldSpec | None,
    i: int,
    name: str,
    values: NDArray[np.float64],
    statistics: dict[str, Any] | None,
    *,
    is_wide: bool,
) -> dict[str, Any]:
    known = values[np.isfinite(values)]
    counts, edges = np.histogram(known, _BINS) if len(known) else (np.empty(0), np.empty(0))
    about: dict[str, Any] = {}
    for key in ("mean", "std", "min", "q01", "q50", "q99", "max"):
        listed = statistics.get(key) if statistics is not None else None
        about[key] = float(listed[i]) if listed is not None and i < len(listed) else None
    unit = spec.unit[i % len(spec.unit)] if spec is not None and spec.unit else ""
    limits = _range(spec, i)
    return {
        "name": name,
        "unit": unit,
        **about,
        "range": limits,
        "missing": significant(1 - len(known) / len(values), 3) if len(values) else None,
        "counts": counts.astype(int).tolist(),
        "edges": significant(edges.tolist()),
        "flags": [] if is_wide else _flags(spec, i, unit, known, about, limits),
    }


def _is_middle_angle(spec: FieldSpec, i: int) -> bool:
    """Returns whether a column is the middle one of three Euler angles, or of three last columns that come round."""
    periods = [spec.period[k % len(spec.period)] if spec.period else 0.0 for k in range(spec.num_columns)]
    is_pose = spec.num_columns in (3, 6) and all(periods[-3:]) and not any(periods[:-3])
    return i == spec.num_columns - 2 and (bool(spec.euler) or is_pose)


def _range(spec: FieldSpec | None, i: int) -> list[float] | None:
    """Returns the range that the schema allows, in the stored unit."""
    if spec is None or spec.range is None:
        return None
    factor = spec.scale[i % len(spec.scale)] if spec.scale else 1.0
    return significant(sorted(limit * factor for limit in spec.range))  # type: ignore[no-any-return]


def _flags(
    spec: FieldSpec | None,
    i: int,
    unit: str,
    known: NDArray[np.float64],
    about: dict[str, Any],
    limits: list[float] | None,
) -> list[str]:
    """Returns what deserves a look in a column, in words."""
    if not len(known):
        return ["no value in the sample"]
    flags = []
    low, high = float(known.min()), float(known.max())
    if low == high:
        flags.append("constant")
    if spec is not None and _is_middle_angle(spec, i):
        degrees = known * conversion_factor(unit or "deg", "deg")
        is_proper = spec.euler is not None and spec.euler[0] == spec.euler[2]
        turned = degrees + (90.0 if is_proper else 0.0)
        near = np.abs(np.abs((turned + 180) % 360 - 180) - 90) < _NEAR_SINGULAR_DEG
        if near.any():
            what = "the middle Euler angle" if spec.euler else "if these are Euler angles, the middle one"
            flags.append(f"singular: {what} is near +-90 degrees in {near.mean():.0%} of the sampled rows")
    period = spec.period[i % len(spec.period)] if spec is not None and spec.period else 0.0
    if period and high - low > 0.9 * period:
        flags.append("comes round: values lie on both sides of the wrap")
    if limits is not None and high > low and (low <= limits[0] or high >= limits[1]):
        flags.append("reaches the end of its range")
    if None not in (about["q01"], about["q99"], about["q50"]) and about["q99"] > about["q01"]:
        reach = max(about["max"] - about["q50"], about["q50"] - about["min"])
        if reach > _FAR * (about["q99"] - about["q01"]):
            flags.append("spikes: its extremes lie far outside its 1 % and 99 % quantiles")
    return flags


def coverage_facts(dataset: Dataset, episodes: Sequence[RecordedEpisode]) -> dict[str, Any] | None:
    """Returns where the robot has been, by task: two columns of its place, or two principal directions of its state."""
    chosen = _places(dataset, episodes)
    if chosen is None:
        return None
    labels, path, points = chosen
    tasks: dict[str, list[NDArray[np.float64]]] = {}
    for episode, each in zip(episodes, points, strict=True):
        tasks.setdefault(str(episode.row["task"]), []).append(each)
    everything = np.concatenate(points)
    edges = [np.linspace(*_limits(everything[:, i]), _CELLS + 1) for i in range(2)]
    found = []
    for task, parts in sorted(tasks.items(), key=lambda item: -len(item[1]))[:_MOST_TASKS]:
        here = np.concatenate(parts)
        counts, _, _ = np.histogram2d(here[:, 0], here[:, 1], bins=edges)
        step = max(1, len(here) // _MOST_POINTS)
        found.append(
            {
                "task": task,
                "episodes": len(parts),
                "rows": len(here),
                "cells_visited": int((counts > 0).sum()),
                "counts": counts.astype(int).tolist(),
                "x": significant(here[::step, 0].tolist(), 5),
                "y": significant(here[::step, 1].tolist(), 5),
            }
        )
    return {
        "field": path,
        "x_label": labels[0],
        "y_label": labels[1],
        "cells": _CELLS * _CELLS,
        "x_edges": significant(edges[0].tolist()),
        "y_edges": significant(edges[1].tolist()),
        "num_tasks": len(tasks),
        "tasks": found,
    }


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (low - 0.5, high + 0.5) if low == high else (low, high)


def _places(
    dataset: Dataset, episodes: Sequence[RecordedEpisode]
) -> tuple[list[str], str, list[NDArray[np.float64]]] | None:
    """Returns names of two axes, the field, and points ``(rows, 2)`` of each episode."""
    candidates = [path for path in dataset.recorded.sample.state if not dataset.recorded.field(path).text]
    candidates += [path for path in dict.fromkeys(p for e in episodes for p in e.fields) if path not in candidates]
    candidates = [path for path in candidates if all(path in episode.fields for episode in episodes)]
    poses = [path for path in candidates if _is_pose(dataset.recorded.field(path))]
    state = [path for path in candidates if 2 <= dataset.recorded.field(path).num_columns <= _WIDE]
    if not episodes or not (poses or state):
        return None
    path = (poses or state)[0]
    spec = dataset.recorded.field(path)
    rows = [episode.field(path, most_rows=_MOST_ROWS).astype(np.float64) for episode in episodes]
    rows = [each[np.isfinite(each).all(axis=1)] for each in rows]
    if sum(map(len, rows)) < 2:
        return None
    if poses or spec.num_columns == 2:
        names, units = column_names(path, spec), spec.unit or ("",)
        labels = [f"{names[i]}, {units[i % len(units)]}".rstrip(", ") for i in range(2)]
        return labels, path, [each[:, :2] for each in rows]
    everything = np.concatenate(rows)
    middle, spread = everything.mean(axis=0), everything.std(axis=0)
    spread[spread == 0] = 1
    _, _, axes = np.linalg.svd((everything - middle) / spread, full_matrices=False)
    labels = [f"principal direction {i} of {path}" for i in (1, 2)]
    return labels, path, [((each - middle) / spread) @ axes[:2].T for each in rows]


def _is_pose(spec: FieldSpec) -> bool:
    """Returns whether a field begins with a position: three lengths, or three columns before a rotation."""
    if spec.quaternion or spec.euler:
        return spec.num_columns >= (7 if spec.quaternion else 6)
    return spec.num_columns >= 2 and len(spec.unit) >= 2 and all(unit in ("mm", "cm", "m") for unit in spec.unit[:2])

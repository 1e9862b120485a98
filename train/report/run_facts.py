"""Reads what a training run left in its folder, as plain data: options, curves, figures, verdict. Needs no torch.

A run may be going on, may have been killed, and may have been made by an older vlapipe: what is missing is None.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlapipe.pipeline.shards.manifest.manifest import MANIFEST
from vlapipe.schemas.errors import UsageError
from vlapipe.train.report.metrics import metric_columns
from vlapipe.train.report.verdict import PHASES, Setting, TimeSpent, judge
from vlapipe.train.run_files import CONFIG_FILE, EVAL_FOLDER, METRICS_FILE, RESULT_FILE, VALIDATION_FILE

__all__ = ["is_run", "run_facts"]

MOST_POINTS = 300  # of a curve; each is then the mean of equally many logged steps
_MOST_BYTES = 64 << 20  # of a JSON file
_LOG_NAMES = {"data": "data_wait", "ranks": "ranks_wait"}
_OF_METRICS = "metrics.jsonl, which has no time of validations and checkpoints"


def is_run(folder: Path) -> bool:
    """Whether this is the folder of a training run."""
    return (folder / CONFIG_FILE).is_file() and not (folder / MANIFEST).exists()


def run_facts(folder: Path) -> dict[str, Any]:
    """Return the report of ``vlapipe inspect RUN``, which ``--json`` prints. docs/runs.md describes each entry.

    Raises:
        UsageError: the options of the run cannot be read.
    """
    config = _read(folder / CONFIG_FILE)
    if not isinstance(config, dict) or "policy" not in config:
        problem = f"{folder / CONFIG_FILE}: not the options of a vlapipe run"
        raise UsageError(problem, "give the --out folder of vlapipe train")
    found = metric_columns(folder / METRICS_FILE)
    columns = {name: (list(steps), list(values)) for name, (steps, values) in found.items()}
    skipped: list[str] = []
    result = _table(folder / RESULT_FILE, skipped) or {}
    step = max((steps[-1] for steps, _ in columns.values()), default=0)
    options = dict(_flat(config))
    max_steps = result.get("max_steps", options.get("max_steps"))
    return {
        "path": str(folder),
        "policy": config["policy"],
        "data": [str(path) for path in _get(config, "data", "paths") or []],
        "step": step,
        "max_steps": max_steps,
        "is_finished": isinstance(max_steps, int) and step >= max_steps,
        "num_parameters": result.get("num_parameters"),
        "device": result.get("device"),
        "precision": result.get("precision"),
        "loss": _loss(columns),
        "summary": {name: _summary(*column) for name, column in columns.items()},
        "curves": {name: _curve(*column) for name, column in columns.items()},
        "time": _time(columns, result, step, options),
        "validation": _table(folder / VALIDATION_FILE, skipped, _has_figures),
        "recorded": [*_recorded(folder, skipped)],
        "closed_loop": [*_closed_loop(folder)],
        "options": options,
        "skipped": skipped,
    }


def _read(path: Path) -> Any:
    """Returns what a JSON file holds; None if there is no such file.

    Raises:
        UsageError: the file cannot be read, or is no JSON.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path}: larger than {_MOST_BYTES:,} bytes", "remove it, or make it again")
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read: {error}", "remove it, or make it again") from None


def _table(
    path: Path, skipped: list[str], is_good: Callable[[dict[str, Any]], bool] = lambda _: True
) -> dict[str, Any] | None:
    """Returns a JSON object that ``is_good``; None, and a line for the user, if the file has something else."""
    try:
        found = _read(path)
    except UsageError as error:
        skipped.append(str(error.problem))
        return None
    if found is None:
        return None
    if not isinstance(found, dict) or not is_good(found):
        skipped.append(f"{path}: not what vlapipe writes there")
        return None
    return found


def _get(values: Any, *keys: str) -> Any:
    for key in keys:
        values = values.get(key) if isinstance(values, Mapping) else None
    return values


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields options by their names in ``--config`` files, ``data.batch_size``."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


_Columns = Mapping[str, tuple[Sequence[int], Sequence[float]]]


def _loss(columns: _Columns) -> dict[str, Any]:
    """Returns medians of the first and last 5 % of the training losses, and the newest and lowest validation loss."""
    _, losses = _finite(*columns.get("train/loss", ([], [])))
    count = math.ceil(len(losses) * 0.05)
    val_steps, val = _finite(*columns.get("val/loss", ([], [])))
    best = min(range(len(val)), key=val.__getitem__) if val else None
    return {
        "first": statistics.median(losses[:count]) if losses else None,
        "last": statistics.median(losses[-count:]) if losses else None,
        "validation": val[-1] if val else None,
        "best_validation": None if best is None else val[best],
        "best_step": None if best is None else val_steps[best],
    }


def _finite(steps: Sequence[int], values: Sequence[float]) -> tuple[list[int], list[float]]:
    kept = [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
    return [step for step, _ in kept], [value for _, value in kept]


def _summary(steps: Sequence[int], values: Sequence[float]) -> dict[str, Any]:
    """Returns the newest, lowest, highest and middle value; None if no value is finite."""
    _, known = _finite(steps, values)
    if not known:
        return {"count": len(values), "last": None, "min": None, "max": None, "median": None}
    return {
        "count": len(values),
        "last": known[-1],
        "min": min(known),
        "max": max(known),
        "median": statistics.median(known),
    }


def _curve(steps: Sequence[int], values: Sequence[float]) -> dict[str, list[Any]]:
    """Returns at most ``MOST_POINTS`` points: the last step of each part, and the mean of its finite values."""
    count = min(len(steps), MOST_POINTS)
    ends = [((i + 1) * len(steps)) // count for i in range(count)]
    points = []
    for start, end in zip([0, *ends], ends, strict=False):
        known = [value for value in values[start:end] if math.isfinite(value)]
        points.append((steps[end - 1], sum(known) / len(known) if known else None))
    return {"steps": [step for step, _ in points], "values": [value for _, value in points]}


def _time(columns: _Columns, result: Mapping[str, Any], step: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns where the time went: by the run itself if it ended at ``step``, else by the lines of its metrics."""
    spent = _time_spent(columns)
    parts = {name: 1e3 * seconds / spent.num_steps for name, seconds in spent.phases.items()} if spent.num_steps else {}
    found: dict[str, Any] = {
        "num_steps": spent.num_steps,
        "step_ms": 1e3 * spent.steps_s / spent.num_steps if spent.num_steps else None,
        "parts_ms": parts,
        "shares": spent.shares,
        "verdict": None,
        "from": _OF_METRICS,
    }
    own = result.get("verdict")
    if isinstance(own, dict) and result.get("step") == step and isinstance(result.get("phase_shares"), dict):
        return {**found, "shares": result["phase_shares"], "verdict": own, "from": RESULT_FILE}
    verdict = judge(spent, _setting(columns, options))
    if verdict is not None:
        found["verdict"] = {"cause": verdict.cause, "lines": [*verdict.lines], "gain": verdict.gain}
    return found


def _time_spent(columns: _Columns) -> TimeSpent:
    """Returns the time of all logged steps but the first. A line has means over the steps since the line before."""
    steps, speeds = columns.get("train/step", ([], []))
    counts = [now - before for before, now in itertools.pairwise(steps)]
    spent = TimeSpent()
    for count, speed in zip(counts, speeds[1:], strict=True):
        if count > 0 and math.isfinite(speed) and speed > 0:
            spent.num_steps += count
            spent.steps_s += count / speed
    for phase in PHASES:
        values = columns.get(f"time/{_LOG_NAMES.get(phase, phase)}_ms", ([], []))[1][1:]
        spent.phases[phase] = sum(
            count * ms / 1e3 for count, ms in zip(counts, values, strict=False) if math.isfinite(ms)
        )
    return spent


def _setting(columns: _Columns, options: Mapping[str, Any]) -> Setting:
    """Returns what the options say about the run. What its machine could do besides is not known afterwards."""

    def whole(name: str, default: int) -> int:
        value = options.get(name)
        return value if isinstance(value, int) else default

    return Setting(
        on_gpu=max(columns.get("system/gpu_mem_GB", ([], [0.0]))[1], default=0.0) > 0,
        compiles=options.get("compile") is not None,
        faster_in_bf16=False,
        num_workers=None,
        most_workers=0,
        grad_accum=whole("optim.grad_accum", 1),
        eval_every=whole("eval.eval_every", 1),
        save_every=whole("checkpoint.save_every", 1),
    )


def _evaluations(folder: Path) -> Iterator[Path]:
    """Yields the files of ``vlapipe eval``, in the order of their names."""
    yield from sorted(path for path in (folder / EVAL_FOLDER).glob("*.json") if path.is_file())


def _recorded(folder: Path, skipped: list[str]) -> Iterator[dict[str, Any]]:
    """Yields the comparisons with recorded actions, and the pictures of their worst episodes."""
    for path in _evaluations(folder):
        found = _table(path, skipped, lambda found: _has_figures(found) or _has_success(found))
        if found is not None and _has_figures(found):
            yield {**found, "name": path.stem, "pages": _pictures(path)}


def _closed_loop(folder: Path) -> Iterator[dict[str, Any]]:
    """Yields the evaluations in closed loop, without their single episodes."""
    for path in _evaluations(folder):
        found = _table(path, [], _has_success)
        if found is not None:
            kept = {key: value for key, value in found.items() if key != "episodes"}
            yield {**kept, "name": path.stem, "films": _pictures(path)}


def _has_figures(found: Mapping[str, Any]) -> bool:
    """Whether this is what ``Figures.to_json`` writes."""
    names, units, predictors = (found.get(key) for key in ("dimensions", "units", "predictors"))
    if not (_are(names, str) and _are(units, str) and isinstance(predictors, dict) and "policy" in predictors):
        return False
    size = len(names or [])
    return len(units or []) == size and all(
        isinstance(one, dict)
        and _are([one.get("relative")], int, float)
        and _are(one.get("relative_by_step"), int, float)
        and _are(one.get("by_dimension"), int, float)
        and len(one["by_dimension"]) == size
        and isinstance(one.get("by_step"), list)
        and all(_are(row, int, float) and len(row) == size for row in one["by_step"])
        for one in predictors.values()
    )


def _has_success(found: Mapping[str, Any]) -> bool:
    """Whether this is what ``ClosedLoopResult.to_json`` writes."""
    shares = [found.get("success"), *(found["tasks"].values() if isinstance(found.get("tasks"), dict) else [None])]
    counts, parts = ("successes", "num_episodes"), ("share", "low", "high")
    return (
        isinstance(found.get("environment"), str)
        and isinstance(found.get("outcomes"), dict)
        and all(
            isinstance(each, dict)
            and _are([each.get(key) for key in counts], int)
            and _are([each.get(key) for key in parts], int, float)
            for each in shares
        )
    )


def _are(values: Any, *kinds: type) -> bool:
    """Whether this is a list of such values; None is a real number that is not known."""
    missing = (type(None),) if float in kinds else ()
    return isinstance(values, list) and all(isinstance(value, (*kinds, *missing)) for value in values)


def _pictures(path: Path) -> list[str]:
    """Returns the pictures of an evaluation, relative to the run's folder."""
    folder = path.with_suffix("")
    return [f"{EVAL_FOLDER}/{folder.name}/{each.name}" for each in sorted(folder.glob("*.png")) if each.is_file()]

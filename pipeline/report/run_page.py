"""Makes the page of a training run, and of several runs side by side, from the facts of ``vlapipe inspect RUN --json``.

Every number of the page is one of the facts. The pictures are those that ``vlapipe eval`` drew.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vlapipe.pipeline.report.page import render_page
from vlapipe.pipeline.report.plots import Curve, bar_plot, line_plot
from vlapipe.pipeline.show.run_text import CURVES, OUR_NAMES, letters_of
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["comparison_page", "run_page"]

_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_PICTURES = 8  # of one evaluation
_MOST_BYTES = 3_000_000  # of a picture
_MOST_DIMENSIONS = 24
_MOST_STEPS = 8  # curves of steps of a chunk
_LOSSES = {"train/loss": "training", "val/loss": "validation"}
_ERRORS = {
    "val/action_error": "policy",
    "val/action_error_of_hold": "hold",
    "val/action_error_of_nearest": "nearest",
}
# Plots of one metric each: title, unit.
_SINGLE = {
    "train/learning_rate": ("Learning rate", ""),
    "train/grad_norm": ("Gradient norm", ""),
    "train/samples_per_s": ("Speed", "samples/s"),
    "train/mfu_%": ("Use of the GPUs' peak", "%"),
    "system/gpu_mem_GB": ("GPU memory", "GB"),
    "system/gpu_busy_%": ("GPU busy", "%"),
    "system/cpu_mem_%": ("Memory of the host", "%"),
    "env/success": ("Success in closed loop", "share"),
}
_LOG_FROM = 100.0  # a norm that varies by more than this factor is drawn on a log scale


def run_page(facts: Mapping[str, Any], folder: Path) -> str:
    """Returns the page of one run; ``folder`` is the run's, for its pictures."""
    validation: list[tuple[str, dict[str, Any], list[tuple[Markup, str]]]] = []
    if facts["validation"] is not None:
        validation.append(("Validation", facts["validation"], []))
    compared = [
        (f"Beside recorded actions: {each['name']}", each, _pictures(folder, each["pages"]))
        for each in facts["recorded"]
    ]
    return render_page(
        "run.html",
        title=f"Run {Path(facts['path']).name or facts['path']}",
        facts=facts,
        training=[*_training_plots(facts)],
        time_plots=[*_time_plots(facts)],
        times=[
            (OUR_NAMES.get(name, name), share, facts["time"]["parts_ms"].get(name))
            for name, share in sorted(facts["time"]["shares"].items(), key=lambda item: -item[1])
        ],
        evaluations=[
            (title, figures, [*_error_plots(figures)], drawn) for title, figures, drawn in validation + compared
        ],
        closed_loop=[(each, _pictures(folder, each["films"])) for each in facts["closed_loop"]],
        options=sorted(facts["options"].items()),
    )


def comparison_page(comparison: Mapping[str, Any]) -> str:
    """Returns the page of several runs side by side."""
    runs = comparison["runs"]
    letters = letters_of(len(runs))
    plots = []
    for metric, title in CURVES.items():
        curves = [
            _curve(f"{letter} {Path(run['path']).name}", run["curves"][metric])
            for letter, run in zip(letters, runs, strict=True)
            if metric in run["curves"]
        ]
        if any(run["summary"].get(metric, {}).get("max") for run in runs):
            newest = [run["summary"].get(metric, {}).get("last") for run in runs]
            pairs = zip(letters, newest, strict=True)
            said = ", ".join(f"{letter} {value:.4g}" for letter, value in pairs if value is not None)

            plots.append((_lines(curves, title, f"Newest: {said}."), title))
    return render_page("runs.html", title="Runs side by side", comparison=comparison, letters=letters, plots=plots)


def _curve(label: str, curve: Mapping[str, Sequence[Any]]) -> Curve:
    steps, values = curve["steps"], curve["values"]
    if len(steps) == 1:  # a line needs two points
        return Curve(label, [steps[0] - 0.5, steps[0] + 0.5], [values[0], values[0]])
    return Curve(label, steps, values)


def _lines(curves: Sequence[Curve], title: str, description: str, *, y_label: str = "", log_y: bool = False) -> Markup:
    return line_plot(curves, title=title, description=description, x_label="step", y_label=y_label, log_y=log_y)


def _together(
    facts: Mapping[str, Any], names: Mapping[str, str], title: str, *, log_y: bool = False
) -> Iterator[tuple[Markup, str]]:
    """Yields one plot of those of the metrics that the run has."""
    here = {metric: label for metric, label in names.items() if metric in facts["curves"]}
    if here:
        curves = [_curve(label, facts["curves"][metric]) for metric, label in here.items()]
        newest = [(label, facts["summary"][metric]["last"]) for metric, label in here.items()]
        said = ", ".join(f"{label} {value:.4g}" for label, value in newest if value is not None)
        yield _lines(curves, title, f"Newest: {said}.", log_y=log_y), f"{title}. Newest: {said}."


def _training_plots(facts: Mapping[str, Any]) -> Iterator[tuple[Markup, str]]:
    """Yields plots of all that was logged but times, each with its caption."""
    of_datasets = {m: m.removeprefix("val/loss/") for m in facts["curves"] if m.startswith("val/loss/")}
    yield from _together(facts, _LOSSES | of_datasets, "Loss")
    yield from _together(facts, _ERRORS, "Action error (1: the mean action)")
    steps = [m for m in facts["curves"] if m.startswith("val/action_error/step_")][:_MOST_STEPS]
    names = {m: f"step {m.removeprefix('val/action_error/step_')}" for m in steps}
    yield from _together(facts, names, "Action error by step of the chunk")
    for metric, (title, unit) in _SINGLE.items():
        summary = facts["summary"].get(metric)
        if summary is None or not summary["max"]:
            continue
        is_log = metric == "train/grad_norm" and summary["min"] > 0 and summary["max"] > _LOG_FROM * summary["min"]
        newest = f"{summary['last']:.4g}{f' {unit}' if unit else ''}"
        said = f"Newest {newest}, lowest {summary['min']:.4g}, highest {summary['max']:.4g}."
        curve = _curve(title, facts["curves"][metric])
        yield _lines([curve], title, said, y_label=unit, log_y=is_log), f"{title}. {said}"


def _time_plots(facts: Mapping[str, Any]) -> Iterator[tuple[Markup, str]]:
    names = [metric for metric in facts["curves"] if metric.startswith("time/")]
    parts = {name: name.removeprefix("time/").removesuffix("_ms").replace("_", " ") for name in names}
    yield from _together(facts, parts, "Milliseconds of a step by part", log_y=True)


def _error_plots(figures: Mapping[str, Any]) -> Iterator[tuple[Markup, str]]:
    """Yields the error of each dimension over the steps of the chunk, of the policy and of the yardsticks."""
    predictors = figures["predictors"]
    shares = [(who, one["relative"]) for who, one in predictors.items() if one["relative"] is not None]
    if shares:
        said = ", ".join(f"{who} {share:.2f}" for who, share in shares)
        plot = bar_plot(
            [who for who, _ in shares],
            [share for _, share in shares],
            title="Relative error",
            description=f"{said}; 1 is no better than the mean action.",
            x_label="relative error",
        )
        yield plot, f"Relative error: {said}"
    units = zip(figures["dimensions"], figures["units"], strict=True)
    for i, (name, unit) in enumerate([*units][:_MOST_DIMENSIONS]):
        rows = {who: [row[i] for row in one["by_step"]] for who, one in predictors.items()}
        known = [value for values in rows.values() for value in values if value is not None]
        if not known:
            continue
        curves = [
            _curve(who, {"steps": [*range(1, len(values) + 1)], "values": values}) for who, values in rows.items()
        ]
        own = predictors["policy"]["by_dimension"][i]
        said = f"{name}: the policy's mean error is {'not known' if own is None else f'{own:.4g} {unit}'.strip()}"
        plot = line_plot(curves, title=name, description=f"{said}.", x_label="step of the chunk", y_label=unit)
        yield plot, said


def _pictures(folder: Path, names: Sequence[str]) -> list[tuple[Markup, str]]:
    """Returns pictures as elements that hold them, each with its name. What is no PNG is left out."""
    found = []
    for name in names[:_MOST_PICTURES]:
        path = folder / name
        try:
            if path.stat().st_size > _MOST_BYTES:
                continue
            content = path.read_bytes()
        except OSError as error:
            raise_if_stopped(error, path)
            continue
        if content.startswith(_PNG):
            text = base64.b64encode(content).decode()
            label = Path(name).stem
            element = Markup('<img loading="lazy" alt="{}" src="data:image/png;base64,{}">').format(label, text)
            found.append((element, label))
    return found

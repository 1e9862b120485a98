"""Prints the facts of a training run on a terminal: curves, what held it back, and how good the policy became."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from vlapipe.pipeline.show.readable_numbers import number
from vlapipe.pipeline.show.terminal import open_console, print_list, sparkline, table
from vlapipe.schemas.errors import printable

__all__ = ["CURVES", "OUR_NAMES", "letters_of", "print_run", "print_runs"]

# Metrics whose curves are shown first, with their names for people; any other loss and action error follows.
CURVES = {
    "train/loss": "train loss",
    "val/loss": "validation loss",
    "val/action_error": "action error",
    "env/success": "success",
    "train/learning_rate": "learning rate",
    "train/grad_norm": "gradient norm",
    "train/samples_per_s": "samples/s",
    "time/data_wait_ms": "waiting for data, ms",
    "system/gpu_mem_GB": "GPU memory, GB",
    "system/gpu_busy_%": "GPU busy, %",
    "system/cpu_mem_%": "host memory, %",
}
OUR_NAMES = {
    "data": "waiting for data",
    "ranks": "waiting for ranks",
    "h2d": "copies to the device",
    "other": "the rest",
}
_BARS = 24
_MOST = 20


def print_run(facts: Mapping[str, Any]) -> None:
    """Print the facts of one run to stdout."""
    console = open_console()
    _print_head(console, facts)
    _print_curves(console, facts)
    _print_time(console, facts["time"])
    if facts["validation"] is not None:
        _print_errors(console, f"validation at step {facts['validation'].get('step', '?')}", facts["validation"])
    for found in facts["recorded"]:
        _print_errors(console, f"beside recorded actions: {found['name']}", found)
    for found in facts["closed_loop"]:
        _print_success(console, found)
    for line in facts["skipped"]:
        console.print(f"skipped: {printable(line)}", style="yellow", overflow="fold")


def print_runs(comparison: Mapping[str, Any]) -> None:
    """Print runs side by side: figures, then the options that differ, then the losses over each other."""
    console = open_console()
    runs = comparison["runs"]
    letters = letters_of(len(runs))
    for letter, run in zip(letters, runs, strict=True):
        console.print(f"{letter}: {printable(run['path'])}", style="bold", overflow="fold")
    shown = table("", *(f">{letter}" for letter in letters))
    for figure in comparison["figures"]:
        shown.add_row(printable(figure["figure"]), *(number(value) for value in figure["values"]))
    console.print(shown)
    if not comparison["options"]:
        console.print("the same options, but for the folder")
    else:
        shown = table("options that differ", *letters)
        for option in comparison["options"]:
            shown.add_row(printable(option["option"]), *(_value(value) for value in option["values"]))
        console.print(shown)
    for metric in ("train/loss", "val/loss", "val/action_error"):
        curves = {
            letter: run["curves"][metric]["values"]
            for letter, run in zip(letters, runs, strict=True)
            if metric in run["curves"]
        }
        known = [value for values in curves.values() for value in values if value is not None]
        if known:
            console.print(f"{CURVES[metric]}, from {number(min(known))} to {number(max(known))}")
            limits = min(known), max(known)
            lines = (sparkline(values, 60, limits=limits, encoding=console.encoding) for values in curves.values())
            print_list(console, [f"{letter} {line}" for letter, line in zip(curves, lines, strict=True)])


def letters_of(count: int) -> list[str]:
    """Returns short names of runs that stand side by side: A, B, C, and so on."""
    return [chr(ord("A") + i) if i < 26 else str(i + 1) for i in range(count)]


def _print_head(console: Console, facts: Mapping[str, Any]) -> None:
    console.print(f"{printable(facts['path'])}:", style="bold", soft_wrap=True)
    total = f" of {facts['max_steps']:,}" if isinstance(facts["max_steps"], int) else ""
    end = "" if facts["is_finished"] else ", not finished"
    policy = printable(str(facts["policy"]))
    console.print(f"{policy}, {facts['step']:,}{total} steps{end}", style="bold", overflow="fold")
    if isinstance(facts["num_parameters"], int):
        console.print(f"{facts['num_parameters']:,} parameters, {facts['precision']} on {facts['device']}")
    if facts["data"]:
        console.print(f"data {printable(', '.join(facts['data']))}", overflow="fold")
    loss = facts["loss"]
    if loss["last"] is not None:
        validation = "" if loss["validation"] is None else f", validation loss {loss['validation']:.3f}"
        console.print(f"train loss {loss['first']:.3f} -> {loss['last']:.3f}{validation}")
    if loss["best_step"] is not None:
        console.print(f"lowest validation loss {loss['best_validation']:.3f} at step {loss['best_step']:,}")


def _print_curves(console: Console, facts: Mapping[str, Any]) -> None:
    names = [name for name in CURVES if name in facts["curves"] and facts["summary"][name]["max"] not in (None, 0)]
    if not names:
        console.print("no step is logged yet")
        return
    shown = table("metric", "from first to newest step", ">newest", ">lowest", ">highest")
    for name in names:
        line = sparkline(facts["curves"][name]["values"], _BARS, encoding=console.encoding)
        found = facts["summary"][name]
        shown.add_row(CURVES[name], line, number(found["last"]), number(found["min"]), number(found["max"]))
    console.print(shown)


def _print_time(console: Console, time: Mapping[str, Any]) -> None:
    if not time["shares"]:
        return
    most = max(time["shares"].values()) or 1.0
    shown = table("time", ">share", "", ">ms a step")
    full = "█" if sparkline([0.0], encoding=console.encoding) == "▁" else "#"
    for name, share in sorted(time["shares"].items(), key=lambda item: -item[1]):
        bar = full * round(_BARS * share / most)
        shown.add_row(OUR_NAMES.get(name, name), f"{100 * share:.1f} %", bar, number(time["parts_ms"].get(name)))
    console.print(shown)
    if time["verdict"] is not None:
        for line in time["verdict"]["lines"]:
            console.print(printable(line), overflow="fold")
    console.print(f"(by {time['from']})", style="dim")


def _print_errors(console: Console, title: str, figures: Mapping[str, Any]) -> None:
    """Print the error of each dimension beside the yardsticks', and the relative error over the steps of the chunk."""
    who = [*figures["predictors"]]
    shown = table(title, *(f">{name}" for name in who))
    for i, (name, unit) in enumerate(zip(figures["dimensions"], figures["units"], strict=True)):
        label = printable(f"{name} ({unit})" if unit else name)
        shown.add_row(label, *(number(figures["predictors"][one]["by_dimension"][i]) for one in who))
    shown.add_row("relative", *(_share(figures["predictors"][one]["relative"]) for one in who), style="bold")
    console.print(shown)
    steps = figures["predictors"]["policy"]["relative_by_step"]
    if len(steps) > 1:
        line = sparkline(steps, 40, encoding=console.encoding)
        console.print(f"by step of the chunk, 1 to {len(steps)}: {_share(steps[0])} {line} {_share(steps[-1])}")
    tasks = [task for task in figures.get("tasks") or [] if isinstance(task, Mapping)]
    worst = [f"{_share(task.get('relative'))}  {printable(str(task.get('task')))}" for task in tasks[:_MOST]]
    if len(worst) > 1:
        console.print("by task, the worst first")
        print_list(console, worst)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _print_success(console: Console, found: Mapping[str, Any]) -> None:
    title = f"closed loop {printable(found['name'])}: success {_success(found['success'])}"
    console.print(f"\n{title}", style="bold", overflow="fold")
    tasks = list(found["tasks"].items())
    shown = [f"{_success(share)}  {printable(task)}" for task, share in tasks[:_MOST]]
    if len(tasks) > _MOST:
        shown.append(f"and {len(tasks) - _MOST:,} more")
    if len(tasks) > 1:
        print_list(console, shown)
    print_list(console, [f"{count} x {printable(str(end))}" for end, count in found["outcomes"].items()])


def _success(share: Mapping[str, Any]) -> str:
    part = "-" if share["share"] is None else f"{share['share']:.0%}"
    return f"{share['successes']} of {share['num_episodes']}, {part} (95 %: {share['low']:.0%} to {share['high']:.0%})"


def _value(value: Any) -> str:
    return "-" if value is None else printable(value if isinstance(value, str) else json.dumps(value))

"""Prints the difference of two datasets on a terminal: nothing at all where there is none, else what changed first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from vlapipe.pipeline.show.readable_numbers import counted, duration, number
from vlapipe.pipeline.show.terminal import open_console, print_list, table
from vlapipe.schemas.errors import printable

__all__ = ["print_difference"]

_MOST = 20  # entries of a list; --json has them all
_MOST_COLUMNS = 30


def print_difference(report: dict[str, Any]) -> None:
    """Print ``difference_of``'s report to stdout."""
    console = open_console()
    for sign, side in (("a", report["a"]), ("b", report["b"])):
        facts = (
            f"{counted(side['episodes'], 'episode')}, {counted(side['frames'], 'frame')}, {duration(side['seconds'])}"
        )
        aside = f", {side['rejects']:,} set aside" if side["rejects"] else ""
        console.print(f"{sign}: {printable(side['path'])}: {facts}{aside}", overflow="fold")
    if report["equal"]:
        console.print("equal: the same episodes, schema, options and statistics")
        return
    _print_episodes(console, report["episodes"])
    _print_changes(console, "schema", [*report["schema"]["streams"], *report["schema"]["fields"]])
    _print_schema_text(console, report["schema"])
    _print_changes(console, "made with", report["options"])
    for name, changes in report["counts"].items():
        _print_changes(console, name, changes)
    _print_names(console, "set aside in b alone", "+", report["rejects"]["added"])
    _print_names(console, "set aside in a alone", "-", report["rejects"]["removed"])
    _print_statistics(console, report["statistics"])


def _print_episodes(console: Console, episodes: dict[str, Any]) -> None:
    kinds = ("added", "removed", "renamed", "changed")
    counts = ", ".join(f"{len(episodes[kind]):,} {kind}" for kind in kinds if episodes[kind])
    console.print(f"\nepisodes: {episodes['same']:,} the same{f', {counts}' if counts else ''}", style="bold")
    for what, count in episodes["changed_by"].items():
        console.print(f"  {printable(what)} changed in {counted(count, 'episode')}", overflow="fold")
    _print_names(console, "", "+", episodes["added"], style="green")
    _print_names(console, "", "-", episodes["removed"], style="red")
    _print_names(console, "", ">", [f"{pair['from']} -> {pair['to']}" for pair in episodes["renamed"]])
    _print_names(
        console,
        "",
        "~",
        [f"{entry['id']}: {', '.join(entry['what'])}" for entry in episodes["changed"]],
        style="yellow",
    )


def _print_names(console: Console, title: str, sign: str, names: Sequence[str], *, style: str = "") -> None:
    if names and title:
        console.print(f"\n{title}: {counted(len(names), 'episode')}", style="bold")
    shown = [printable(name) for name in names[:_MOST]]
    if len(names) > _MOST:
        shown.append(f"and {len(names) - _MOST:,} more (--json has them all)")
    print_list(console, shown, sign=sign, style=style)


def _print_changes(console: Console, title: str, changes: Sequence[dict[str, Any]]) -> None:
    if not changes:
        return
    shown = table(title, ">a" if _are_numbers(changes) else "a", ">b" if _are_numbers(changes) else "b")
    for change in changes[:_MOST]:
        shown.add_row(printable(str(change["what"])), _value(change["a"]), _value(change["b"]))
    if len(changes) > _MOST:
        shown.add_row(f"and {len(changes) - _MOST:,} more", "", "")
    console.print(shown)


def _are_numbers(changes: Sequence[dict[str, Any]]) -> bool:
    return all(isinstance(change[side], int | float) for change in changes for side in ("a", "b"))


def _value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(value if isinstance(value, str) else json.dumps(value))


def _print_schema_text(console: Console, schema: dict[str, Any]) -> None:
    lines = schema["text"]
    if not lines:
        return
    console.print("\nschema's text", style="bold")
    for line in lines[: 2 * _MOST]:
        style = {"+": "green", "-": "red"}.get(line[:1], "")
        print_list(console, [printable(line)], style=style)
    if schema["num_lines"] > 2 * _MOST:
        console.print(f"  and {schema['num_lines'] - 2 * _MOST:,} more lines")


def _print_statistics(console: Console, statistics: dict[str, Any]) -> None:
    for side in ("a", "b"):
        if statistics[f"only_in_{side}"]:
            names = ", ".join(statistics[f"only_in_{side}"])
            console.print(f"statistics of {side} alone: {printable(names)}", overflow="fold")
    columns = statistics["columns"]
    if not columns:
        return
    shown = table("statistics (train)", ">shift", ">mean a", ">mean b", ">std a", ">std b", ">max a", ">max b")
    for column in columns[:_MOST_COLUMNS]:
        a, b = column["a"] or {}, column["b"] or {}
        shift = "-" if column["shift"] is None else f"{column['shift']:+.2f}"
        numbers = (number(side.get(name)) for name in ("mean", "std", "max") for side in (a, b))
        shown.add_row(printable(column["name"]), shift, *numbers)
    if len(columns) > _MOST_COLUMNS:
        shown.add_row(f"and {len(columns) - _MOST_COLUMNS:,} more", *[""] * 7)
    console.print(shown)
    console.print("shift: the difference of the means in standard deviations", overflow="fold")

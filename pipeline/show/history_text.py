"""Prints the history of a dataset on a terminal, the newest generation first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.manifest.generations import generations
from vlapipe.pipeline.shards.manifest.history import Entry
from vlapipe.schemas.errors import printable

__all__ = ["print_history"]

_MOST_NAMED = 3


def print_history(dataset: Dataset, entries: Sequence[Entry]) -> None:
    """Print each generation: its number, when, who and where, what changed, by which command, and its note."""
    there = generations(dataset.path) or [1]
    oldest = dataset.manifest.oldest or 1
    for entry in reversed(entries):
        is_there = entry.generation in there and entry.generation >= oldest
        by = "@".join(filter(None, (entry.user, entry.host)))
        version = f"vlapipe {entry.vlapipe_version}" if entry.vlapipe_version else ""
        gone = "" if is_there else "removed by gc"
        head = "  ".join(filter(None, (entry.when, by, version, gone)))
        click.echo(printable(f"generation {entry.generation}  {head}".rstrip()))
        changes = ", ".join(_said(name, value) for name, value in entry.changes.items() if value)
        click.echo(printable(f"    {entry.what or 'not known'}{': ' if changes else ''}{changes}"))
        if entry.note:
            click.echo(printable(f"    note: {entry.note}"))
        if entry.command:
            click.echo(printable(f"    {' '.join(entry.command)}"))


def _said(name: str, value: Any) -> str:
    if not isinstance(value, list):
        return f"{value:,} {name}" if isinstance(value, int) else f"{name} {value}"
    such = ", ".join(value[:_MOST_NAMED]) + (", ..." if len(value) > _MOST_NAMED else "")
    return f"{len(value):,} {name} ({such})"

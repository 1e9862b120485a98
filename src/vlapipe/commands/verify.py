"""``vlapipe verify`` and ``vlapipe repair``: is every byte of a dataset what was written, and how to make it so again."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import click

from vlapipe.commands.option_types import LocalPath
from vlapipe.schemas.errors import UsageError

__all__ = ["verify"]

_PATH = LocalPath()


class _Share(click.ParamType[float]):
    """A part of the shards, such as 5% or 0.05."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*(%?)", str(value).strip())
        share = float(match[1]) / (100 if match[2] else 1) if match else 0.0
        if not 0 < share <= 1:
            self.fail(f"{value!r} is no part of the shards; write for example 5%", param, ctx)
        return share


@click.command()
@click.argument("dataset", type=_PATH)
@click.option("--quick", is_flag=True, help="Read the manifest and the tables; of shards compare the sizes alone.")
@click.option("--sample", type=_Share(), metavar="SHARE", help="As --quick, and read this part of the shards: 5%.")
@click.option("--full", is_flag=True, help="Read every byte. This is the default.")
@click.option("--seed", default=0, show_default=True, help="--sample: which shards.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(dataset: Path, quick: bool, sample: float | None, full: bool, seed: int, as_json: bool) -> None:
    """Compare every file of DATASET with what was written: missing, truncated, altered, swapped, stale, unlisted.

    Each fault is one line with its kind, file and episodes, and the exit code is 1. Without a fault, one line says what
    was checked. docs/verify.md says what each depth finds.
    """
    from vlapipe.pipeline.shards.verify.verify import verify as run

    if quick + full + (sample is not None) > 1:
        raise UsageError("--quick, --sample and --full exclude each other", "give one of them")
    found = run(dataset, share=0.0 if quick else 1.0 if sample is None else sample, seed=seed)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=1))
    else:
        for line in (*found.faults, *(f"note: {note}" for note in found.notes), found.summary()):
            click.echo(line)
    if found.faults:
        sys.exit(1)

"""``vlapipe verify`` and ``vlapipe repair``: whether a dataset is what was written, and how it becomes so again."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import click

from vlapipe.commands.options import DATASET, FOLDER
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.registry import load_schema

__all__ = ["repair", "verify"]


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
@click.argument("dataset", type=DATASET)
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
        for line in found.lines():
            click.echo(line)
    if found.faults:
        sys.exit(1)


@click.command()
@click.argument("dataset", type=DATASET)
@click.option(
    "--source", type=FOLDER, help="The recordings that the dataset was made from: what is damaged is made again."
)
@click.option("--from", "copy", type=FOLDER, help="A copy of the dataset: damaged files are taken from it.")
@click.option("--schema", help="--source: name or file, if the manifest is damaged and its schema is no built-in one.")
@click.option("--remove-unlisted", is_flag=True, help="Also remove files that the dataset does not list.")
@click.option("--workers", type=click.IntRange(1), help="--source: episodes read at once. Default: one a core.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def repair(
    dataset: Path,
    source: Path | None,
    copy: Path | None,
    schema: str | None,
    remove_unlisted: bool,
    workers: int | None,
    as_json: bool,
) -> None:
    """Make the damaged files of DATASET again, bit for bit, from the recordings or from a copy.

    Each file's digest is compared with the recorded one before the file is replaced, and again afterwards. Healthy
    files are read once and not touched. The exit code is 1 if a fault is left.
    """
    from vlapipe.pipeline.repair.from_source import FromSource
    from vlapipe.pipeline.repair.origin import FromCopy
    from vlapipe.pipeline.repair.repair import repair as run

    if schema is not None:
        load_schema(schema)  # a name that is wrong is told even if the manifest turns out to be whole
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: the scratch folder is removed
    if source is not None and copy is None:
        origin: Any = FromSource(dataset, source, schema=schema, workers=workers)
    elif copy is not None and source is None:
        origin = FromCopy(dataset, copy)
    else:
        raise UsageError("give either --source DIR or --from COPY", "--source has the recordings, --from is a copy")
    done = run(dataset, origin, remove_unlisted=remove_unlisted)
    if as_json:
        click.echo(json.dumps(done.to_json(), indent=1))
    else:
        for line in done.lines():
            click.echo(line)
    if done.after.faults:
        sys.exit(1)

"""``vlapipe compact``: few full shards in place of many small ones."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import click

from vlapipe.commands.options import BYTES, DATASET

__all__ = ["compact"]


@click.command()
@click.argument("dataset", type=DATASET)
@click.option("--shard-size", type=BYTES, help="About how large a shard is. Default: as the ingest was asked for.")
@click.option("--workers", type=int, help="Threads that compress and compare. Default: one a core.")
@click.option("--note", help="A remark that vlapipe log shows.")
@click.option(
    "--dry-run", is_flag=True, help="Say what would be joined, and write nothing. Says whether there is room."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def compact(
    dataset: Path, shard_size: int | None, workers: int | None, note: str | None, dry_run: bool, as_json: bool
) -> None:
    """Join neighbouring small shards of DATASET, such as many appends make, without the recordings.

    Shards that are half full are not touched. Every episode, number, image file and statistic stays as it is; dropped
    episodes can still be restored. It is the next generation: the old shards stay until gc. If the command is killed,
    or stopped by a full disk and the like (exit code 5), the same command goes on.
    """
    from vlapipe.pipeline.change.compact import compact as run
    from vlapipe.pipeline.show.readable_numbers import counted, format_bytes

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: temporary files are removed
    done = run(dataset, shard_bytes=shard_size, workers=workers, note=note, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(vars(done), indent=1))
    elif not done.num_made:
        click.echo(f"nothing to compact: {counted(done.num_shards, 'shard')}, none with a small neighbour")
    else:
        sizes = format_bytes(done.bytes_joined)
        sizes += f" become {format_bytes(done.bytes_made)}" if done.bytes_made is not None else ""
        head = "would join" if dry_run else f"generation {done.generation} of {dataset}: joined"
        joined = f"{counted(done.num_joined, 'shard')} into {done.num_made:,} ({sizes})"
        click.echo(f"{head} {joined}; {counted(done.num_shards - done.num_joined, 'shard')} as before")
    if dry_run:
        done.require_room(dataset)

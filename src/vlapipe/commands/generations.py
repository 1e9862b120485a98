"""``vlapipe log``, ``gc``, ``edit``, ``merge``: the generations of a dataset, and changes that read no recording."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from vlapipe.commands.options import DATASET, SECONDS
from vlapipe.schemas.errors import UsageError

__all__ = ["edit", "gc", "log", "merge"]


@click.command()
@click.argument("dataset", type=DATASET)
@click.option("--json", "as_json", is_flag=True, help="Print everything that is known as JSON, with every episode.")
def log(dataset: Path, as_json: bool) -> None:
    """Say who made each generation of DATASET, when, on which host, by which command, and what changed.

    The newest generation comes first. open_dataset(path, generation=N) opens an earlier one, as long as gc has not
    removed it.
    """
    import vlapipe
    from vlapipe.pipeline.shards.manifest.history import entries
    from vlapipe.pipeline.show.history_text import print_history

    opened = vlapipe.open_dataset(dataset)
    found = [entry for entry in entries(dataset) if entry.generation <= opened.generation]
    if as_json:
        click.echo(json.dumps([vars(entry) for entry in found], indent=1))
    else:
        print_history(opened, found)


@click.command()
@click.argument("dataset", type=DATASET)
@click.option("--keep", type=int, default=10, show_default=True, help="How many generations are kept.")
@click.option(
    "--older-than",
    type=SECONDS,
    default="1d",
    show_default=True,
    metavar="TIME",
    help="Keep also what was the newest generation within this time: 12h, 1d, 2w, or 0.",
)
@click.option("--note", help="A remark that vlapipe log shows.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
def gc(dataset: Path, keep: int, older_than: float, note: str | None, dry_run: bool) -> None:
    """Remove old generations of DATASET, and the files that no other generation needs.

    Files that a killed command left behind go too. A reader of a removed generation keeps the shards that it has
    opened, and ends at the next one. If the command is killed, the same command goes on.
    """
    from vlapipe.pipeline.change.collect import collect
    from vlapipe.pipeline.show.readable_numbers import counted, format_bytes

    done = collect(dataset, keep=keep, older_than_s=older_than, note=note, dry_run=dry_run)
    if not done.files:
        young = f"; {done.num_young} of them for --older-than" if done.num_young else ""
        click.echo(f"nothing to do: {counted(len(done.kept), 'generation')}, each to be kept{young}")
        return
    did = "would remove" if dry_run else "removed"
    sizes = f"{counted(len(done.files), 'file')}, {format_bytes(done.num_bytes)}"
    click.echo(f"{did} {counted(len(done.removed), 'generation')}: {sizes}; {done.kept[0]} to {done.kept[-1]} are kept")


@click.command()
@click.argument("dataset", type=DATASET)
@click.argument("episodes", nargs=-1)
@click.option("--drop", is_flag=True, help="Leave the episodes out.")
@click.option("--restore", is_flag=True, help="Bring back episodes that were dropped.")
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="Set task, instruction or metadata/KEY.")
@click.option("--split", type=click.Choice(["train", "val"]), help="Move the episodes to this split.")
@click.option("--where", metavar="EXPR", help="Choose the episodes of which this is true, in place of names.")
@click.option("--note", help="A remark that vlapipe log shows.")
def edit(
    dataset: Path,
    episodes: tuple[str, ...],
    drop: bool,
    restore: bool,
    values: tuple[str, ...],
    split: str | None,
    where: str | None,
    note: str | None,
) -> None:
    """Change EPISODES of DATASET without touching a shard: each edit is its next generation.

    \b
    vlapipe edit data/ --drop red/episode_7 red/episode_9
    vlapipe edit data/ --restore red/episode_7
    vlapipe edit data/ --set "instruction=pick up the cup" --where 'task == "cup"'
    vlapipe edit data/ --split val red/episode_3

    A dropped episode is in no batch, no statistic and no export. An edit stays when the episode is recorded again.
    """
    import vlapipe
    from vlapipe.pipeline.change.edit import Edit, ids_where
    from vlapipe.pipeline.change.edit import edit as run
    from vlapipe.pipeline.shards.stores.copies import shown
    from vlapipe.pipeline.show.readable_numbers import counted

    told: dict[str, Any] = dict(_value_of(each) for each in values)
    told |= {"split": split} if split is not None else {}
    asked = Edit(drop=drop, restore=restore, values=told)
    if bool(episodes) == (where is not None):
        raise UsageError("which episodes?", "name them after the dataset, or choose some by --where EXPR")
    chosen = episodes if where is None else ids_where(vlapipe.open_dataset(dataset), where)
    done = run(dataset, chosen, asked, note=note)
    if done is None:
        click.echo("nothing to do: the episodes are so already")
    else:
        click.echo(f"generation {done.generation} of {shown(dataset)}: {asked.what}; {counted(len(done), 'episode')}")


@click.command()
@click.argument("dataset", type=DATASET)
@click.argument("others", nargs=-1, required=True, metavar="OTHER...", type=DATASET)
@click.option("--note", help="A remark that vlapipe log shows.")
@click.option("--dry-run", is_flag=True, help="Say what would be added, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print what was added as JSON, with every episode.")
def merge(dataset: Path, others: tuple[Path, ...], note: str | None, dry_run: bool, as_json: bool) -> None:
    """Add the episodes of each OTHER dataset to DATASET, as its next generation. The others stay as they are.

    \b
    vlapipe merge data/ tuesday/ wednesday/
    vlapipe merge data/ other@3                    generation 3 of other

    Shards are linked, or copied where the file system has no links. The datasets must have the same fields, cameras,
    samples and storage. Episodes keep their split, labels and edits. One that DATASET has already stays as it is there.
    """
    from vlapipe.pipeline.change.merge import merge as run
    from vlapipe.pipeline.show.readable_numbers import counted, format_bytes

    done = run(dataset, others, note=note, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps({"dataset": str(dataset), **vars(done)}, indent=1))
        return
    there = f"{counted(done.changes['already there'], 'episode')} already there"
    if done.is_nothing:
        click.echo(f"nothing to do: {there}")
        return
    added = [f"{counted(len(done.changes['added']), 'episode')} added"]
    added += [f"{len(done.changes[kind])} {kind}" for kind in ("added as dropped", "set aside") if done.changes[kind]]
    added += [there] if done.changes["already there"] else []
    placed = [f"{counted(count, 'shard')} {kind}" for kind, count in done.shards.items() if count]
    copied = f" ({format_bytes(done.copied_bytes)})" if done.copied_bytes else ""
    what = f"{dataset} would have" if dry_run else f"generation {done.generation} of {dataset}:"
    click.echo(f"{what} {', '.join(added)}; {', '.join(placed) or 'no shard'}{copied}")


def _value_of(text: str) -> tuple[str, Any]:
    """Return name and value of ``NAME=VALUE``. A value of metadata may be a number, true, false or null."""
    name, is_there, value = text.partition("=")
    if not is_there:
        raise UsageError(f"--set {text}: expected NAME=VALUE", 'for example "instruction=pick up the cup"')
    if not name.startswith("metadata/"):
        return name, value
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value

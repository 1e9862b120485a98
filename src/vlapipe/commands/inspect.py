"""``vlapipe inspect``: the report of a dataset, of an episode, of a training run, or of several side by side."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import click

import vlapipe
from vlapipe.commands.options import DATASET, PATH
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.output_file import require_folder_of

__all__ = ["inspect"]


@click.command()
@click.argument("dataset", type=DATASET, metavar="DATASET|RUN")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--episode", help="One episode, by its number or its id.")
@click.option("--episodes", is_flag=True, help="Also list the episodes, one a line.")
@click.option("--where", help="Report on episodes of which this is true: 'success and operator != \"test\"'.")
@click.option("--html", type=PATH, metavar="FILE", help="Write one page with plots and pictures, to open in a browser.")
@click.option("--png", type=PATH, metavar="FILE", help="With --episode: write its streams over time as a picture.")
@click.option("--rerun", is_flag=True, help="With --episode: open it in Rerun.")
@click.option("--compare", type=PATH, multiple=True, help="A run: side by side with this one; again for more.")
def inspect(
    dataset: Path,
    as_json: bool,
    episode: str | None,
    episodes: bool,
    where: str | None,
    html: Path | None,
    png: Path | None,
    rerun: bool,
    compare: tuple[Path, ...],
) -> None:
    """Report what a dataset holds: episodes, streams, rates, tasks, sizes, statistics and rejects.

    Or report how a training run went: curves, validation, success, and what held it back (docs/runs.md).

    The page of --html needs no network and nothing installed. With --json too, every number of the page is printed.
    The exit code is 1 if vlapipe verify --quick would find a fault.
    """
    from vlapipe.train.report.run_facts import is_run

    if is_run(dataset):
        if episode is not None or episodes or where is not None or png is not None or rerun:
            cure = "--episode, --episodes, --where, --png and --rerun are for datasets"
            raise UsageError(f"{dataset}: a run has no episodes", cure)
        _inspect_run(dataset, compare=compare, as_json=as_json, html=html)
        return
    if compare:
        raise UsageError(f"{dataset}: not a run", "--compare is for runs; vlapipe diff compares datasets")
    opened = vlapipe.open_dataset(dataset)
    if episode is not None and (episodes or where is not None):
        raise UsageError("--episode is one episode: --where and --episodes choose and list many", "leave one away")
    if episode is None and (png is not None or rerun):
        raise UsageError(f"{'--rerun' if rerun else '--png'} shows one episode", "say which by --episode ID")
    for path in (html, png):
        if path is not None:
            require_folder_of(path)
    which = None if episode is None else _episode_id_or_number(opened, episode)
    if html is not None or png is not None:
        from vlapipe.pipeline.report.write import write_dataset_report, write_episode_report

        if which is None:
            assert html is not None
            found = write_dataset_report(opened, html, where=where)
        else:
            found = write_episode_report(opened, which, html=html, png=png)
    else:
        from vlapipe.pipeline.show.inspection import inspect_dataset, inspect_episode

        if which is None:
            found = inspect_dataset(opened, where=where, list_episodes=episodes)
        else:
            found = inspect_episode(opened, which)
    if rerun and which is not None:
        from vlapipe.pipeline.report.rerun_view import show_in_rerun

        show_in_rerun(opened, which)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    elif html is not None or png is not None:
        for path in (html, png):
            if path is not None:
                click.echo(f"wrote {path}")
    else:
        from vlapipe.pipeline.show.inspection_text import print_dataset, print_episode

        (print_dataset if which is None else print_episode)(found)
    if found.get("damage"):
        sys.exit(1)


def _inspect_run(run: Path, *, compare: Sequence[Path], as_json: bool, html: Path | None = None) -> None:
    """Print the report of a run, or write it as a page; side by side with others if there are some to compare.

    Raises:
        UsageError: one of them is not a run.
    """
    from vlapipe.pipeline.show.run_text import print_run, print_runs
    from vlapipe.train.report.run_comparison import compare_runs
    from vlapipe.train.report.run_facts import is_run, run_facts

    for other in compare:
        if not is_run(other):
            raise UsageError(f"--compare {other}: not a run", "give the --out folder of vlapipe train")
    facts = [run_facts(each) for each in (run, *compare)]
    report = compare_runs(facts) if compare else facts[0]
    if html is not None:
        from vlapipe.pipeline.report.page import write_page
        from vlapipe.pipeline.report.run_page import comparison_page, run_page

        write_page(html, comparison_page(report) if compare else run_page(report, run))
    if as_json:
        click.echo(json.dumps(report, indent=1))
    elif html is not None:
        click.echo(f"wrote {html}")
    elif compare:
        print_runs(report)
    else:
        print_run(report)


def _episode_id_or_number(dataset: vlapipe.Dataset, text: str) -> int | str:
    """Returns the id if such an episode exists, else the number; episodes' folders may be named 1, 2, 10."""
    is_number = re.fullmatch(r"-?\d+", text) and text not in dataset.episodes.column("id").to_pylist()
    return int(text) if is_number else text

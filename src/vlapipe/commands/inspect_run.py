"""``vlapipe inspect RUN``: the report of a training run, or of several side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from vlapipe.schemas.errors import UsageError

__all__ = ["inspect_run"]


def inspect_run(run: Path, *, compare: Sequence[Path], as_json: bool, html: Path | None = None) -> None:
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

"""``vlapipe diff A B``: what changed between two datasets."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from vlapipe.commands.options import DATASET, PATH

__all__ = ["diff"]


@click.command()
@click.argument("a", type=DATASET)
@click.argument("b", type=DATASET)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, with every episode.")
@click.option("--html", type=PATH, metavar="FILE", help="Write one page, with distributions over each other.")
def diff(a: Path, b: Path, as_json: bool, html: Path | None) -> None:
    """Say what changed from dataset A to dataset B: episodes, schema, options, statistics. No shard is read.

    Episodes are compared by id, source bytes and content; where an episode lies in the shards is no difference.

    Exit codes: 0 equal; 1 they differ; 2 wrong usage; 3 one is not a dataset.
    """
    import vlapipe
    from vlapipe.pipeline.show.difference import difference_of
    from vlapipe.pipeline.show.difference_text import print_difference

    report = difference_of(vlapipe.open_dataset(a), vlapipe.open_dataset(b))
    if html is not None:
        from vlapipe.pipeline.report.difference_page import difference_page
        from vlapipe.pipeline.report.page import write_page

        write_page(html, difference_page(report))
    if as_json:
        click.echo(json.dumps(report, indent=1))
    elif html is not None:
        click.echo(f"wrote {html}")
    else:
        print_difference(report)
    if not report["equal"]:
        sys.exit(1)

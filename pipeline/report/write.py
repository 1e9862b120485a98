"""Writes the reports: gathers the facts, draws the page from them, and returns the facts, which ``--json`` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlapipe.pipeline.ingest import IngestReport
from vlapipe.pipeline.report.dataset_facts import dataset_facts
from vlapipe.pipeline.report.dataset_page import dataset_page
from vlapipe.pipeline.report.episode_facts import episode_facts
from vlapipe.pipeline.report.episode_page import episode_page, write_episode_png
from vlapipe.pipeline.report.ingest_page import ingest_page
from vlapipe.pipeline.report.page import write_page
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.schemas.extras import need

__all__ = ["write_dataset_report", "write_episode_report", "write_ingest_report"]


def write_dataset_report(dataset: Dataset, html: Path, *, where: str | None = None) -> dict[str, Any]:
    """Write the page of a dataset. Returns its facts.

    Raises:
        UsageError: the file cannot be written, the extra is not installed, or ``where`` cannot be used.
    """
    _need_extra()
    found = dataset_facts(dataset, where=where)
    write_page(html, dataset_page(found))
    return found.facts


def write_episode_report(
    dataset: Dataset, which: int | str, *, html: Path | None = None, png: Path | None = None
) -> dict[str, Any]:
    """Write the page of an episode, or its picture, or both. Returns its facts.

    Raises:
        UsageError: a file cannot be written, the extra is not installed, or there is no such episode.
    """
    _need_extra()
    found = episode_facts(dataset, which)
    if html is not None:
        write_page(html, episode_page(found))
    if png is not None:
        write_episode_png(png, found)
    return found.facts


def write_ingest_report(report: IngestReport, html: Path, *, dry_run: bool) -> None:
    """Write what an ingest found as a page, the rejects first.

    Raises:
        UsageError: the file cannot be written, or the extra is not installed.
    """
    need("jinja2", "report", "a page")
    write_page(html, ingest_page(report, dry_run=dry_run))


def _need_extra() -> None:
    """Says what is missing before minutes of work, not after."""
    need("jinja2", "report", "a page")
    need("matplotlib", "report", "a page with plots")

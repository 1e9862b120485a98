"""Prints what an ingest found and made, for a person: totals, the first reasons, and where to go on."""

from __future__ import annotations

from collections import Counter

import click

from vlapipe.pipeline.ingest import IngestReport
from vlapipe.pipeline.shards.manifest import REJECTS

__all__ = ["counted", "format_bytes", "print_ingest_report"]


_MAX_EPISODES = 50
_MAX_REASONS = 4


def format_bytes(num_bytes: float) -> str:
    """A size in powers of 1000, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def counted(number: int, word: str) -> str:
    """``1 episode``, ``1,200 episodes``."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def print_ingest_report(report: IngestReport, *, dry_run: bool) -> None:
    """Print totals to stdout, then findings."""
    did = "checked" if dry_run else "ingested"
    click.echo(
        f"{did} {report.num_episodes} of {counted(report.num_found, 'episode')}: "
        f"{counted(report.num_frames, 'frame')}, "
        f"{report.seconds / 60:.1f} minutes of demonstrations, {format_bytes(report.raw_bytes)} raw, "
        f"in {report.elapsed_s:.1f} s"
    )
    if report.dataset is not None:
        resumed = f" ({report.num_resumed_shards} from an earlier run)" if report.num_resumed_shards else ""
        stored = f"{counted(report.num_shards, 'shard')}{resumed}, {format_bytes(report.stored_bytes)}"
        click.echo(f"wrote {report.dataset}: {stored} at rest")
    elif dry_run:
        click.echo(f"would write {counted(report.num_shards, 'shard')}; nothing was written")
    _print_findings(report)
    if report.rejects:
        click.echo(f"set aside {len(report.rejects)} of {counted(report.num_found, 'episode')}:")
        _print_rejects(report)
    if not report.num_episodes:
        click.echo("no episode could be read; nothing was written")
    elif report.dataset is not None:
        click.echo(f"next: vlapipe inspect {report.dataset}")


def _print_findings(report: IngestReport) -> None:
    """Warnings and notes about episodes that were kept: the first of each kind, and how often it came."""
    counts = Counter(finding["code"] for finding in report.findings)
    seen: set[str] = set()
    for finding in report.findings:
        if finding["code"] not in seen:
            seen.add(finding["code"])
            more = f" (in {counts[finding['code']]} places)" if counts[finding["code"]] > 1 else ""
            click.echo(f"{finding['severity']}: {finding['message']}{more}")


def _print_rejects(report: IngestReport) -> None:
    """The first reasons of each episode that was set aside, and where the rest is."""
    for reject in report.rejects[:_MAX_EPISODES]:
        errors = [reason for reason in reject["reasons"] if reason["severity"] == "error"]
        for reason in errors[:_MAX_REASONS]:
            click.echo(f"  {reason['message']}")
        if len(errors) > _MAX_REASONS:
            click.echo(f"    and {len(errors) - _MAX_REASONS} more reasons in {reject['episode']}")
    if len(report.rejects) > _MAX_EPISODES:
        click.echo(f"  and {len(report.rejects) - _MAX_EPISODES} more episodes")
    where = f"{report.dataset / REJECTS}" if report.dataset else "--report FILE.json"
    click.echo(f"  every reason: {where}")

"""Prints what an ingest found and made: totals, the first finding of each kind, and the next command."""

from __future__ import annotations

from typing import Any

import click

from vlapipe.pipeline.ingest import IngestReport
from vlapipe.pipeline.shards.manifest.manifest import REJECTS
from vlapipe.pipeline.show.readable_numbers import counted, format_bytes
from vlapipe.schemas.errors import printable

__all__ = ["print_ingest_report"]


def print_ingest_report(report: IngestReport, *, dry_run: bool) -> None:
    """Print the totals to stdout, then the findings."""
    if report.was_finished:
        aside = f", {len(report.rejects)} set aside" if report.rejects else ""
        click.echo(
            f"nothing to do: {report.dataset} holds {counted(report.num_episodes, 'episode')} of the same source and "
            f"options{aside}"
        )
        _print_gone(report)
        return
    did = "checked" if dry_run else "ingested"
    click.echo(
        f"{did} {report.num_episodes} of {counted(report.num_found, 'episode')}: "
        f"{counted(report.num_frames, 'frame')}, "
        f"{_duration(report.seconds)} of demonstrations, {format_bytes(report.raw_bytes)} raw, "
        f"in {report.elapsed_s:.1f} s"
    )
    if report.changes is not None:
        said = ", ".join(f"{len(names):,} {what}" for what, names in report.changes.items() if names)
        click.echo(f"generation {report.generation} of {report.dataset}: {said}")
    _print_gone(report)
    if report.dataset is not None:
        resumed = f" ({report.num_resumed_shards} from an earlier run)" if report.num_resumed_shards else ""
        stored = f"{counted(report.num_shards, 'shard')}{resumed}, {format_bytes(report.stored_bytes)}"
        click.echo(f"wrote {report.dataset}: {stored} at rest")
    elif report.expected is not None and report.num_episodes:
        size = format_bytes(report.expected.stored_bytes)
        shards = counted(report.num_shards, "shard")
        room = "" if report.room_bytes is None else f", where {format_bytes(report.room_bytes)} are free"
        click.echo(
            f"would write {shards}, about {size}{room}, in about {report.expected.seconds:.1f} s; nothing was written"
        )
    for camera, images in report.cameras.items():
        _print_camera(camera, images)
    for rule, ids in report.left_out.items():
        such_as = "such as " if len(ids) > 1 else ""
        click.echo(printable(f"left out {counted(len(ids), 'episode')} by {rule} ({such_as}{ids[0]})"))
    if report.num_left_out:
        click.echo(
            f"left out {counted(report.num_left_out, 'frame')}: their windows would cross a gap, or they lie in a pause"
        )
    if report.num_ignored_files:
        click.echo(f"ignored {counted(report.num_ignored_files, 'file')}: hidden ones, Thumbs.db and the like")
    if report.rejects:
        click.echo(f"set aside {len(report.rejects)} of {counted(report.num_found, 'episode')}")
    _print_findings(report)
    if not report.num_episodes:
        click.echo("no episode could be read; nothing was written")
    elif report.dataset is not None:
        click.echo(f"next: vlapipe inspect {report.dataset}")


def _print_gone(report: IngestReport) -> None:
    if report.num_gone:
        gone = counted(report.num_gone, "episode")
        click.echo(f"kept {gone} whose recordings are gone; --prune removes such episodes")


def _print_camera(camera: str, stored: dict[str, Any]) -> None:
    """Print what a camera's images are stored as, what they take at rest and in training, and what was lost."""
    if not stored["images"]:
        return
    kinds = {"jpeg": "JPEG", "png": "PNG", "raw": "pixels"}
    name = " and ".join(kinds[kind] for kind in stored["as"].split(" and "))
    each = format_bytes(stored["bytes"] / stored["images"])
    line = f"{camera}: {counted(stored['images'], 'image')} as {name}, {format_bytes(stored['bytes'])}, {each} each"
    if stored["decode_s"] is not None:
        line += f", {stored['decode_s'] * 1e3:.1f} ms to decode one" if stored["decode_s"] else ", nothing to decode"
    if stored["psnr_db"] is not None:
        line += f"; JPEG lost a little: PSNR {stored['psnr_db']:.1f} dB in the worst episode"
    click.echo(printable(line))


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 7200 else f"{seconds / 60:.1f} minutes"


def _print_findings(report: IngestReport) -> None:
    """Print the first finding of each kind, the gravest severity first, and how often the kind occurred."""
    summary = report.summary()
    for kind in summary.values():
        click.echo(f"{kind['severity']}: {kind['first']}{_how_often(kind)}")
    if any(kind["places"] > 1 for kind in summary.values()):
        where = f"every reject: {report.dataset / REJECTS}; " if report.dataset and report.rejects else ""
        click.echo(f"  {where}every finding: --report FILE.json")


def _how_often(kind: dict[str, Any]) -> str:
    if kind["places"] > 1 and not kind["episodes"]:
        return f" -- in {counted(kind['places'], 'place')}"
    if kind["places"] > 1:
        return f" -- in {counted(kind['episodes'], 'episode')}, {counted(kind['places'], 'place')}"
    return ""

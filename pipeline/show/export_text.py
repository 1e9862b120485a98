"""Prints what an export did: what was written, what the one rate changed in each stream, and what video lost."""

from __future__ import annotations

from collections.abc import Iterator

import click

from vlapipe.pipeline.export.one_rate import Change
from vlapipe.pipeline.export.report import ExportReport
from vlapipe.pipeline.show.readable_numbers import counted, format_bytes
from vlapipe.schemas.errors import printable

__all__ = ["print_export_report"]

_NAMES = {"lerobot": "LeRobot v3.0", "hdf5": "robomimic HDF5"}


def print_export_report(report: ExportReport) -> None:
    """Print the report to stdout."""
    for line in _lines(report):
        click.echo(printable(line))


def _lines(report: ExportReport) -> Iterator[str]:
    tally = report.tally
    if report.was_finished:
        yield (
            f"nothing to do: {report.out} holds {counted(report.episodes, 'episode')} of the same dataset and options, "
            f"{_NAMES[report.to]}"
        )
        return
    yield (
        f"exported {report.episodes} of {counted(report.of_episodes, 'episode')}: {counted(tally.frames, 'frame')} at "
        f"{report.fps:g} Hz, in {report.elapsed_s:.1f} s"
    )
    resumed = f" ({counted(report.num_resumed, 'episode')} from an earlier run)" if report.num_resumed else ""
    files = f"{counted(report.num_files, 'file')}{resumed}, {format_bytes(report.num_bytes)}"
    yield f"wrote {report.out}: {_NAMES[report.to]}, {files}, read back and compared"
    for stream, change in tally.changes.items():
        yield f"{stream}: {_said(change)}"
    for camera, loss in tally.losses.items():
        sample = counted(loss.frames, "frame")
        yield f"{camera}: video, PSNR {loss.psnr_db:.1f} dB, of the worst frame {loss.worst_psnr_db:.1f} dB ({sample})"
    for camera, count in tally.remade.items():
        yield f"{camera}: {counted(count, 'image')} stored as PNG of the same pixels"
    if tally.no_action:
        yield f"warning: {counted(tally.no_action, 'frame')} without an action: zeros, marked as missing"
    if tally.no_state:
        yield f"warning: {counted(tally.no_state, 'frame')} without a state near enough in time, marked as missing"
    for name in report.left_out:
        yield f"warning: sensor {name} is left out: not every episode has it"


def _said(change: Change) -> str:
    """What the one rate changed in a stream."""
    if change.is_none:
        outside = (
            f"; {counted(change.outside, 'row')} before the first or after the last frame" if change.outside else ""
        )
        return f"each frame has its own row{outside}"
    said = [f"{counted(change.rows, 'row')} for {counted(change.frames, 'frame')}"]
    said += [f"{change.outside:,} before the first or after the last frame"] if change.outside else []
    said += [f"{change.dropped:,} between frames left out"] if change.dropped else []
    said += [f"{counted(change.repeated, 'frame')} with the row of the frame before"] if change.repeated else []
    said += [f"{counted(change.interpolated, 'frame')} between two rows"] if change.interpolated else []
    return f"{', '.join(said)}; moved by at most {change.moved_s * 1000:.3g} ms"

"""Prints the reports of ``inspection`` on a terminal, as tables that fit 80 columns."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlapipe.pipeline.build.statistics import WIDE
from vlapipe.pipeline.shards.manifest.metadata_columns import metadata_text
from vlapipe.pipeline.show.readable_numbers import counted, duration, format_bytes, number
from vlapipe.pipeline.show.terminal import open_console, print_list, sparkline, table
from vlapipe.schemas.errors import printable

__all__ = ["print_dataset", "print_episode"]

_MAX_TASKS = 20
_MAX_KEYS = 40
_MAX_VALUE = 40  # characters of a metadata value
_MAX_REJECTS = 20
_MAX_DAMAGE = 20
_MANY_SHARDS = 100
_SMALL_SHARD = 16_000_000  # bytes, on average
_WIDE = 110  # columns of a terminal that has room for quantiles


def print_dataset(report: dict[str, Any]) -> None:
    """Print ``inspect_dataset``'s report to stdout."""
    console = open_console()
    sizes = report["sizes"]
    share = sizes["stored_bytes"] / sizes["raw_bytes"] if sizes["raw_bytes"] else 0
    of = "" if report["where"] is None else f"{report['episodes']:,} of "
    console.print(f"{printable(report['path'])}:", style="bold", soft_wrap=True)  # a path is copied, so not broken
    console.print(
        f"{of}{counted(report['of_episodes'], 'episode')}, {counted(report['frames'], 'frame')}, "
        f"{duration(report['seconds'])}",
        style="bold",
    )
    if of:
        said = f"where {report['where']}; sizes, statistics and findings are those of all episodes"
        console.print(printable(said), overflow="fold")
    console.print(
        f"schema {report['schema']['name']}, {counted(report['shards'], report['format'] + ' shard')} "
        f"({report['codec']}), "
        f"{format_bytes(sizes['stored_bytes'])} at rest of {format_bytes(sizes['raw_bytes'])} raw ({share:.0%})",
        overflow="fold",
    )
    if report["shards"] >= _MANY_SHARDS and sizes["stored_bytes"] < _SMALL_SHARD * report["shards"]:
        console.print(f"many small shards: vlapipe compact {printable(report['path'])} joins them", soft_wrap=True)
    _print_lengths(console, report["lengths"])
    console.print(_clocks_table(report))
    console.print(_holdings_table(report))
    console.print(_splits_table(report))
    console.print(_tasks_table(report))
    if report["metadata"]:
        console.print(_metadata_table(report))
    if "listed" in report:
        console.print(_episodes_table(report))
    console.print(_statistics_table(report, console.width))
    _print_rejects(console, report)
    _print_damage(console, report)


def print_episode(report: dict[str, Any]) -> None:
    """Print ``inspect_episode``'s report to stdout."""
    console = open_console()
    console.print(
        f"{report['id']} (episode {report['episode_index']}, {report['split']})", style="bold", overflow="fold"
    )
    console.print(f"task {report['task']}: {report['instruction']!r}", overflow="fold")
    for key, value in report["metadata"].items():
        if value is not None:
            console.print(printable(f"{key}: {metadata_text(value)}"), overflow="fold")
    console.print(
        f"{counted(report['num_frames'], 'frame')} from row {report['frame_start']}, {duration(report['seconds'])}, "
        f"in {report['shard_file']}",
        overflow="fold",
    )
    shown = table("stream", ">rows", ">rate Hz", ">jitter ms", ">max gap ms", ">from s", ">to s")
    for name, stream in report["streams"].items():
        clock = [stream["rows"], stream["rate_hz"], stream["jitter_s"] * 1e3, stream["max_gap_s"] * 1e3]
        ends = ("-" if stream[end] is None else f"{stream[end]:.3f}" for end in ("first_s", "last_s"))
        shown.add_row(name, *(number(v) for v in clock), *ends)
    console.print(shown)
    shown = table("array", "shape", "dtype")
    for name, array in report["arrays"].items():
        shown.add_row(name, str(tuple(array["shape"])), array["dtype"])
    console.print(shown)
    shown = table("source", ">files", ">size", "sha256")
    for source in report["sources"]:
        shown.add_row(
            printable(source["path"]),
            str(source["num_files"]),
            format_bytes(source["num_bytes"]),
            source["sha256"][:16],
        )
    console.print(shown)


def _clocks_table(report: dict[str, Any]) -> Table:
    shown = table("stream", ">rows", ">rate Hz", ">declared", ">jitter ms", ">longest gap ms")
    for name, stream in report["streams"].items():
        shown.add_row(
            printable(name),
            number(stream["rows"]),
            number(stream["rate_hz"]),
            number(stream["declared_rate_hz"]),
            number(stream["jitter_s"] * 1e3),
            number(stream["max_gap_s"] * 1e3),
        )
    return shown


def _holdings_table(report: dict[str, Any]) -> Table:
    shown = table("stream", "holds", ">raw", ">at rest", ">share")
    sizes = report["sizes"]["streams"]
    for name, stream in report["streams"].items():
        own = sizes[name]
        shown.add_row(
            printable(name),
            "\n".join([*_holdings(stream, report["made_with"]), *_absences(stream)]),
            format_bytes(own["raw_bytes"]),
            format_bytes(own["stored_bytes"]),
            f"{own['stored_share']:.1%}" if own["stored_share"] is not None else "-",
        )
    for name in ("align", "action"):
        if name in sizes:
            shown.add_row(name, "derived", "", format_bytes(sizes[name]["stored_bytes"]), "")
    return shown


def _holdings(stream: dict[str, Any], made_with: dict[str, Any]) -> list[str]:
    if stream["kind"] == "images":
        kind = {"jpeg": "JPEG", "png": "PNG", "mixed": "files and pixels"}.get(stream["storage"], "raw RGB")
        if stream["depth_unit"] is not None:
            kind = f"{'PNG' if stream['storage'] == 'png' else 'raw'} depth, uint16 in {stream['depth_unit']}"
        kind += " (red and blue exchanged)" if stream["channels"] == "bgr" else ""
        asked = ", by --image-size" if made_with.get("image_size") else ""
        asked += f", PSNR {stream['psnr_db']:g} dB" if stream["psnr_db"] is not None else ""
        return [f"{counted(count, 'episode')} of {size} {kind}{asked}" for size, count in stream["sizes"].items()]
    lines = []
    for name, field in stream["fields"].items():
        shape = ", ".join(["rows", *map(str, field["shape"])])
        units = list(dict.fromkeys(unit for unit in field["unit"] if unit))
        lines.append(f"{name} ({shape}) {field['dtype']} {', '.join(units)}".rstrip())
    return lines


def _absences(stream: dict[str, Any]) -> list[str]:
    return [f"absent in {counted(stream['absent_in'], 'episode')}"] if stream["absent_in"] else []


def _splits_table(report: dict[str, Any]) -> Table:
    shown = table("split", ">episodes", ">frames", ">time")
    for split, counts in report["splits"].items():
        shown.add_row(split, number(counts["episodes"]), number(counts["frames"]), duration(counts["seconds"]))
    return shown


def _tasks_table(report: dict[str, Any]) -> Table:
    shown = table("task", "instruction", ">episodes", ">frames")
    for task in report["tasks"][:_MAX_TASKS]:
        shown.add_row(task["task"], printable(task["instruction"]), number(task["episodes"]), number(task["frames"]))
    if len(report["tasks"]) > _MAX_TASKS:
        shown.add_row(f"and {len(report['tasks']) - _MAX_TASKS} more", "", "", "")
    return shown


def _metadata_table(report: dict[str, Any]) -> Table:
    shown = table("metadata", "type", ">episodes", "values")
    for key, entry in [*report["metadata"].items()][:_MAX_KEYS]:
        values = [f"{value[:_MAX_VALUE]} ({count:,})" for value, count in entry["values"].items()]
        more = [f"{entry['distinct'] - len(values):,} more"] if entry["distinct"] > len(values) else []
        shown.add_row(printable(key), entry["type"], number(entry["episodes"]), printable(", ".join(values + more)))
    if len(report["metadata"]) > _MAX_KEYS:
        shown.add_row(f"and {len(report['metadata']) - _MAX_KEYS} more", "", "", "")
    return shown


def _episodes_table(report: dict[str, Any]) -> Table:
    """Make the list of episodes. Below its id, an episode has its task, and metadata that is not said otherwise."""
    shown = table(">episode", "split", ">frames", ">time", "id, task and metadata")
    for row in report["listed"]:
        known = {row["task"], row["instruction"]}
        said = [
            f"{key} {metadata_text(value)[:_MAX_VALUE]}" for key, value in row["metadata"].items() if value not in known
        ]
        about = printable(", ".join([row["task"], *said]))
        place, frames = number(row["episode_index"]), number(row["num_frames"])
        name = Text.assemble(printable(row["id"]), "\n", (about, "dim"))
        shown.add_row(place, row["split"], frames, duration(row["seconds"]), name)
    return shown


def _statistics_table(report: dict[str, Any], width: int) -> Table:
    numbers = ("mean", "std", "min", "q01", "q50", "q99", "max") if width >= _WIDE else ("mean", "std", "min", "max")
    shown = table("statistics (train)", *(f">{name}" for name in numbers))
    for path, values in report["statistics"].items():
        count = len(values["mean"])
        for i in range(min(count, WIDE)):
            shown.add_row(path if count == 1 else f"{path}[{i}]", *(f"{values[name][i]:.5g}" for name in numbers))
    return shown


def _print_lengths(console: Console, lengths: dict[str, Any]) -> None:
    """Print how many episodes are how long, as a line of blocks."""
    if len(lengths["counts"]) < 2:
        return
    bars = sparkline(lengths["counts"], encoding=console.encoding)
    console.print(f"episodes by length: {duration(lengths['min_s'])} {bars} {duration(lengths['max_s'])}")


def _print_damage(console: Console, report: dict[str, Any]) -> None:
    """Print the faults of files. This comes last, so that the user sees it without scrolling."""
    for entry in report["damage"][:_MAX_DAMAGE]:
        console.print(f"damaged: {entry['line']}", soft_wrap=True)
    if report["damage"]:
        more = len(report["damage"]) - _MAX_DAMAGE
        console.print(
            f"{f'and {more} more files; ' if more > 0 else ''}vlapipe repair makes them again, from the recordings or "
            "from a copy",
            overflow="fold",
        )


def _print_rejects(console: Console, report: dict[str, Any]) -> None:
    if report["findings"]:
        console.print("noted about episodes that were kept:")
        print_list(console, [f"{code} in {counted(count, 'episode')}" for code, count in report["findings"].items()])
    rejects = report["rejects"]
    if not rejects["count"]:
        console.print("no episode was set aside", overflow="fold")
        return
    shown = table(f"{counted(rejects['count'], 'episode')} set aside", "first reason")
    for reject in rejects["episodes"][:_MAX_REJECTS]:
        reason = next(r for r in reject["reasons"] if r["severity"] == "error")
        shown.add_row(reject["episode"], reason["message"])
    console.print(shown)
    by_code = table("reason", ">episodes")
    for code, count in rejects["by_code"].items():
        by_code.add_row(code, str(count))
    console.print(by_code)

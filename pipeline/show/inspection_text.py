"""Prints the reports of ``inspection`` on a terminal, as tables."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from vlapipe.pipeline.build.statistics import WIDE
from vlapipe.pipeline.shards.manifest.metadata_columns import metadata_text
from vlapipe.pipeline.show.ingest_text import counted, format_bytes
from vlapipe.schemas.errors import printable

__all__ = ["print_dataset", "print_episode"]

_MAX_TASKS = 20
_MAX_KEYS = 40
_MAX_VALUE = 40  # characters of a metadata value
_MAX_REJECTS = 20
_MAX_DAMAGE = 20


def print_dataset(report: dict[str, Any]) -> None:
    """Print ``inspect_dataset``'s report to stdout."""
    console = _console()
    sizes = report["sizes"]
    share = sizes["stored_bytes"] / sizes["raw_bytes"] if sizes["raw_bytes"] else 0
    of = "" if report["where"] is None else f"{report['episodes']:,} of "
    console.print(
        f"{printable(report['path'])}: {of}{counted(report['of_episodes'], 'episode')}, "
        f"{counted(report['frames'], 'frame')}, {_duration(report['seconds'])}",
        style="bold",
        soft_wrap=True,
    )
    if of:
        said = f"where {report['where']}; sizes, statistics and findings are those of all episodes"
        console.print(printable(said), soft_wrap=True)
    console.print(
        f"schema {report['schema']['name']}, {counted(report['shards'], report['format'] + ' shard')} "
        f"({report['codec']}), "
        f"{format_bytes(sizes['stored_bytes'])} at rest of {format_bytes(sizes['raw_bytes'])} raw ({share:.0%})",
        soft_wrap=True,
    )
    console.print(_streams_table(report))
    console.print(_splits_table(report))
    console.print(_tasks_table(report))
    if report["metadata"]:
        console.print(_metadata_table(report))
    if "listed" in report:
        console.print(_episodes_table(report))
    console.print(_statistics_table(report))
    _print_rejects(console, report)
    _print_damage(console, report)


def print_episode(report: dict[str, Any]) -> None:
    """Print ``inspect_episode``'s report to stdout."""
    console = _console()
    console.print(
        f"{report['id']} (episode {report['episode_index']}, {report['split']})", style="bold", soft_wrap=True
    )
    console.print(f"task {report['task']}: {report['instruction']!r}", soft_wrap=True)
    for key, value in report["metadata"].items():
        if value is not None:
            console.print(printable(f"{key}: {metadata_text(value)}"), soft_wrap=True)
    console.print(
        f"{counted(report['num_frames'], 'frame')} from row {report['frame_start']}, {_duration(report['seconds'])}, "
        f"in {report['shard_file']}",
        soft_wrap=True,
    )
    table = _table("stream", ">rows", ">rate Hz", ">jitter ms", ">longest gap ms", ">from s", ">to s")
    for name, stream in report["streams"].items():
        clock = [stream["rows"], stream["rate_hz"], stream["jitter_s"] * 1e3, stream["max_gap_s"] * 1e3]
        ends = ("-" if stream[end] is None else f"{stream[end]:.3f}" for end in ("first_s", "last_s"))
        table.add_row(name, *(_number(v) for v in clock), *ends)
    console.print(table)
    table = _table("array", "shape", "dtype")
    for name, array in report["arrays"].items():
        table.add_row(name, str(tuple(array["shape"])), array["dtype"])
    console.print(table)
    table = _table("source", ">files", ">size", "sha256")
    for source in report["sources"]:
        table.add_row(
            printable(source["path"]),
            str(source["num_files"]),
            format_bytes(source["num_bytes"]),
            source["sha256"][:16],
        )
    console.print(table)


def _console() -> Console:
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 160  # output to a file has no width to fit, and lines must not be cut if a person searches them
    return console


def _table(*columns: str, title: str | None = None) -> Table:
    """Make a plain table. A column whose name begins with ``>`` is right-aligned."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    return table


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.2f} h"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _streams_table(report: dict[str, Any]) -> Table:
    table = _table(
        "stream",
        "holds",
        ">rows",
        ">rate Hz",
        ">declared",
        ">jitter ms",
        ">longest gap ms",
        ">raw",
        ">at rest",
        ">share",
    )
    sizes = report["sizes"]["streams"]
    for name, stream in report["streams"].items():
        own = sizes[name]
        table.add_row(
            name,
            "\n".join([*_holdings(stream, report["made_with"]), *_absences(stream)]),
            _number(stream["rows"]),
            _number(stream["rate_hz"]),
            _number(stream["declared_rate_hz"]),
            _number(stream["jitter_s"] * 1e3),
            _number(stream["max_gap_s"] * 1e3),
            format_bytes(own["raw_bytes"]),
            format_bytes(own["stored_bytes"]),
            f"{own['stored_share']:.1%}" if own["stored_share"] is not None else "-",
        )
    for name in ("align", "action"):
        if name in sizes:
            table.add_row(name, "derived", *[""] * 6, format_bytes(sizes[name]["stored_bytes"]), "")
    return table


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
    table = _table("split", ">episodes", ">frames", ">time")
    for split, counts in report["splits"].items():
        table.add_row(split, _number(counts["episodes"]), _number(counts["frames"]), _duration(counts["seconds"]))
    return table


def _tasks_table(report: dict[str, Any]) -> Table:
    table = _table("task", "instruction", ">episodes", ">frames")
    for task in report["tasks"][:_MAX_TASKS]:
        table.add_row(task["task"], printable(task["instruction"]), _number(task["episodes"]), _number(task["frames"]))
    if len(report["tasks"]) > _MAX_TASKS:
        table.add_row(f"and {len(report['tasks']) - _MAX_TASKS} more", "", "", "")
    return table


def _metadata_table(report: dict[str, Any]) -> Table:
    table = _table("metadata", "type", ">episodes", "values")
    for key, entry in [*report["metadata"].items()][:_MAX_KEYS]:
        shown = [f"{value[:_MAX_VALUE]} ({count:,})" for value, count in entry["values"].items()]
        more = [f"{entry['distinct'] - len(shown):,} more"] if entry["distinct"] > len(shown) else []
        table.add_row(printable(key), entry["type"], _number(entry["episodes"]), printable(", ".join(shown + more)))
    if len(report["metadata"]) > _MAX_KEYS:
        table.add_row(f"and {len(report['metadata']) - _MAX_KEYS} more", "", "", "")
    return table


def _episodes_table(report: dict[str, Any]) -> Table:
    table = _table(">episode", "id", "task", "split", ">frames", ">time", "metadata")
    for row in report["listed"]:
        said = ", ".join(f"{key} {metadata_text(value)[:_MAX_VALUE]}" for key, value in row["metadata"].items())
        names = (printable(row["id"]), row["task"], row["split"])
        number, frames = _number(row["episode_index"]), _number(row["num_frames"])
        table.add_row(number, *names, frames, _duration(row["seconds"]), printable(said))
    return table


def _statistics_table(report: dict[str, Any]) -> Table:
    numbers = ("mean", "std", "min", "q01", "q50", "q99", "max")
    table = _table("statistics (train)", *(f">{name}" for name in numbers))
    for path, values in report["statistics"].items():
        width = len(values["mean"])
        for i in range(min(width, WIDE)):
            table.add_row(path if width == 1 else f"{path}[{i}]", *(f"{values[name][i]:.5g}" for name in numbers))
    return table


def _print_damage(console: Console, report: dict[str, Any]) -> None:
    """Print the faults of files. This comes last, so that the user sees it without scrolling."""
    for entry in report["damage"][:_MAX_DAMAGE]:
        console.print(f"damaged: {entry['line']}", soft_wrap=True)
    if report["damage"]:
        more = len(report["damage"]) - _MAX_DAMAGE
        console.print(
            f"{f'and {more} more files; ' if more > 0 else ''}vlapipe repair makes them again, from the recordings or "
            "from a copy",
            soft_wrap=True,
        )


def _print_rejects(console: Console, report: dict[str, Any]) -> None:
    if report["findings"]:
        counts = ", ".join(f"{code} in {count}" for code, count in report["findings"].items())
        console.print(f"noted about episodes that were kept: {counts}", soft_wrap=True)
    rejects = report["rejects"]
    if not rejects["count"]:
        console.print("no episode was set aside", soft_wrap=True)
        return
    table = _table(f"{counted(rejects['count'], 'episode')} set aside", "first reason")
    for reject in rejects["episodes"][:_MAX_REJECTS]:
        reason = next(r for r in reject["reasons"] if r["severity"] == "error")
        table.add_row(reject["episode"], reason["message"])
    console.print(table)
    by_code = _table("reason", ">episodes")
    for code, count in rejects["by_code"].items():
        by_code.add_row(code, str(count))
    console.print(by_code)

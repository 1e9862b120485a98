"""Draws the page of a dataset from its facts, and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from vlapipe.pipeline.report.dataset_facts import DatasetFacts
from vlapipe.pipeline.report.page import (
    duration,
    milliseconds,
    name_text,
    number,
    number_text,
    percent,
    render_page,
    size,
)
from vlapipe.pipeline.report.plots import Bins, Curve, Span, density_plot, histogram, line_plot, scatter_plot
from vlapipe.pipeline.shards.manifest.metadata_columns import metadata_text
from vlapipe.schemas.findings import CODES, Finding

__all__ = ["dataset_page"]

_MOST_TASKS, _MOST_REASONS, _MOST_KEYS = 100, 500, 12
_MOST_TASKS_TO_CHOOSE = 200
_MOST_PLACES = 20_000  # of findings: about 5 MB
_MOST_COLUMN_PLOTS = 96
_CLOCK_PLOTS = (
    ("rate_hz", "rate, Hz", "by episode"),
    ("step_s", "time from row to row, s", "in sampled rows"),
    ("max_gap_s", "longest gap, s", "by episode"),
)
_SMALL = 120  # height of a column's histogram


def dataset_page(found: DatasetFacts) -> str:
    """Returns the HTML."""
    facts, report = found.facts, found.facts["report"]
    fields, left_out = _fields(report["fields"])
    reasons = [(reject["episode"], reason) for reject in facts["rejects"]["episodes"] for reason in reject["reasons"]]
    return render_page(
        "dataset.html",
        title=f"{facts['path']}: dataset report",
        scripts=("table.js",),
        facts=facts,
        pictures=found.pictures,
        splits=_splits(facts["splits"]),
        tasks=_tasks(facts["tasks"]),
        findings=_findings(report["findings"]),
        places=_places(report["findings"]),
        has_places=all(sum(at["is_kept"] for at in one["places"]) >= one["kept"] for one in report["findings"]),
        rejects=_rejects(reasons[:_MOST_REASONS]),
        num_reasons=len(reasons),
        clocks=_clocks(facts),
        table=_table(facts),
        fields=fields,
        left_out_plots=left_out,
        plots={
            "odd": [[_trace(trace, episode) for trace in episode["traces"]] for episode in report["odd"]],
            "clocks": _clock_plots(report["clocks"]),
            "coverage": _coverage_plots(report["coverage"]),
        },
    )


def _splits(splits: dict[str, Any]) -> list[list[Any]]:
    return [
        [split, number(one["episodes"]), number(one["frames"]), duration(one["seconds"])]
        for split, one in splits.items()
    ]


def _tasks(tasks: Sequence[dict[str, Any]]) -> list[list[Any]]:
    return [
        [name_text(one["task"]), name_text(one["instruction"]), number(one["episodes"]), number(one["frames"])]
        for one in tasks[:_MOST_TASKS]
    ]


def _severity(word: str) -> Markup:
    return Markup('<span class="severity {0}">{0}</span>').format(word)


def _findings(findings: Sequence[dict[str, Any]]) -> list[list[Any]]:
    return [
        [
            _severity(one["severity"]),
            Markup('<a href="#finding-{0}">{0}</a>').format(one["code"]) if one["places"] else one["code"],
            one["meaning"],
            one["cure"],
            number(one["kept"]),
            number(one["rejected"]),
        ]
        for one in findings
    ]


def _places(findings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the kinds that have places, each with those that the page shows."""
    left, kinds = _MOST_PLACES, []
    for one in findings:
        if one["places"]:
            kinds.append({**one, "shown": one["places"][:left]})
            left -= len(kinds[-1]["shown"])
    return kinds


def _rejects(reasons: Sequence[tuple[str, dict[str, Any]]]) -> list[list[Any]]:
    return [
        [
            name_text(episode),
            _severity(reason["severity"]),
            reason["code"],
            name_text(Finding.of(reason).said),
            CODES[reason["code"]].cure if reason["code"] in CODES else "",
        ]
        for episode, reason in reasons
    ]


def _clocks(facts: dict[str, Any]) -> list[list[Any]]:
    rows = []
    for name, stream in facts["streams"].items():
        rate = facts["report"]["clocks"][name]["rate_hz"] or {}
        sizes = facts["sizes"]["streams"].get(name, {})
        rows.append(
            [
                name_text(name),
                number(stream["rows"]),
                number(stream["rate_hz"]),
                number(stream["declared_rate_hz"]),
                number(rate.get("min")),
                number(rate.get("max")),
                milliseconds(stream["jitter_s"]),
                milliseconds(stream["max_gap_s"]),
                number(stream["absent_in"]),
                size(sizes.get("raw_bytes")),
                size(sizes.get("stored_bytes")),
            ]
        )
    return rows


def _table(facts: dict[str, Any]) -> dict[str, Any]:
    """Returns the table of episodes: headings, rows of plain values, and what the script needs."""
    keys = [key for key in facts["metadata"] if key not in ("instruction", "task")][:_MOST_KEYS]
    headings = ["#", "Episode", "Task", "Split", "Frames", "Seconds", "Oddness", "Why", *keys]
    rows = [
        [
            row["episode_index"],
            row["id"],
            row["task"],
            row["split"],
            row["num_frames"],
            row["seconds"],
            row["oddness"],
            ", ".join(row["reasons"]),
            *(_cell(row["metadata"].get(key)) for key in keys),
        ]
        for row in facts["listed"]
    ]
    of_metadata = range(8, 8 + len(keys))
    numeric = [i for i in of_metadata if all(row[i] is None or isinstance(row[i], int | float) for row in rows)]
    numbers = [0, 4, 5, 6, *numeric]
    details = [row["episode_index"] for row in facts["listed"] if row["has_details"]]
    tasks = list(dict.fromkeys(row["task"] for row in facts["listed"]))[:_MOST_TASKS_TO_CHOOSE]
    return {
        "headings": headings,
        "numbers": numbers,
        "rows": rows,
        "name": 1,
        "task": 2,
        "split": 3,
        "tasks": tasks,
        "data": {"rows": rows, "numbers": numbers, "name": 1, "details": details},
    }


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    return metadata_text(value)[:200]


def _trace(trace: dict[str, Any], episode: dict[str, Any]) -> dict[str, Any]:
    typical = [Curve("typical", trace["typical_x"], trace["typical_y"], 1, is_dashed=True)]
    curves = [Curve("this episode", trace["x"], trace["y"], 0), *(typical if trace["typical_x"] else [])]
    marked = "; ".join(f"{number_text(first)} to {number_text(last)} s" for first, last in trace["spans"])
    caption = f"{trace['label']}{', ' + trace['unit'] if trace['unit'] else ''}"
    description = f"{caption} over time, beside a typical episode." + (f" Marked: {marked}." if marked else "")
    svg = line_plot(
        curves,
        title=f"{episode['id']}: {caption}",
        description=description,
        x_label="seconds",
        y_label=trace["unit"],
        spans=[Span(first, last) for first, last in trace["spans"]],
    )
    return {"svg": svg, "caption": f"{caption}.{' Marked: ' + marked + '.' if marked else ''}"}


def _clock_plots(clocks: dict[str, Any]) -> list[dict[str, Any]]:
    plots = []
    for name, clock in clocks.items():
        for key, what, of in _CLOCK_PLOTS:
            spread = clock[key]
            if spread is None or spread["min"] == spread["max"]:
                continue  # the table has this number
            ends = f"{number_text(spread['min'])} to {number_text(spread['max'])}"
            caption = f"{name}: {what}, {of}: {ends}, median {number_text(spread['median'])}."
            svg = histogram(
                [Bins(name, spread["edges"], spread["counts"])],
                title=f"{name}: {what}",
                description=caption,
                x_label=what,
                y_label="episodes" if of == "by episode" else "rows",
                height=_SMALL,
            )
            plots.append({"svg": svg, "caption": caption})
    return plots


def _coverage_plots(coverage: dict[str, Any] | None) -> list[dict[str, Any]]:
    if coverage is None:
        return []
    axes = {"x_label": coverage["x_label"], "y_label": coverage["y_label"]}
    groups = [Curve(task["task"], task["x"], task["y"]) for task in coverage["tasks"]]
    caption = f"Rows of {len(groups)} of {coverage['num_tasks']} tasks, those with the most episodes read."
    plots = [{"svg": scatter_plot(groups, title="Where rows lie", description=caption, **axes), "caption": caption}]
    for task in coverage["tasks"]:
        share = f"{task['cells_visited']:,} of {coverage['cells']:,} cells visited"
        caption = f"{task['task']}: {share} in {task['rows']:,} rows of {task['episodes']:,} episodes."
        svg = density_plot(
            task["counts"], coverage["x_edges"], coverage["y_edges"], title=task["task"], description=caption, **axes
        )
        plots.append({"svg": svg, "caption": caption})
    return plots


def _fields(fields: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], int]:
    """Returns each field with the rows of its table and its plots, and how many columns have no plot."""
    shown, drawn, left_out = [], 0, 0
    for field in fields:
        plots = []
        for column in field["columns"]:
            if not column["counts"]:
                continue
            if drawn >= _MOST_COLUMN_PLOTS:
                left_out += 1
                continue
            drawn += 1
            plots.append(_column_plot(column))
        rows = [_column_row(column) for column in field["columns"]]
        shown.append({**field, "rows": rows, "plots": plots})
    return shown, left_out


def _column_row(column: dict[str, Any]) -> list[Any]:
    numbers = [number(column[key]) for key in ("mean", "std", "min", "q01", "q50", "q99", "max")]
    limits = column["range"]
    between = "" if limits is None else Markup("{} to {}").format(number(limits[0]), number(limits[1]))
    missing = percent(column["missing"]) if column["missing"] else ""
    flags = Markup('<span class="bad">{}</span>').format("; ".join(column["flags"])) if column["flags"] else ""
    return [name_text(column["name"]), column["unit"], *numbers, between, missing, flags]


def _column_plot(column: dict[str, Any]) -> dict[str, Any]:
    edges = column["edges"]
    said = f"{column['name']}{', ' + column['unit'] if column['unit'] else ''}"
    limits = column["range"] or []
    width = edges[-1] - edges[0]
    near = [limit for limit in limits if edges[0] - width <= limit <= edges[-1] + width]
    svg = histogram(
        [Bins(column["name"], edges, column["counts"])],
        title=said,
        description=f"Distribution of {said}, from {number_text(edges[0])} to {number_text(edges[-1])}.",
        marks=near,
        width=300,
        height=_SMALL,
    )
    return {"svg": svg, "caption": said}

"""Makes the page of the difference of two datasets from the report of ``vlapipe diff A B --json``.

Distributions are drawn from the quantiles of the manifests: between two quantiles the density is that part of the rows
divided by the distance of the quantiles. No shard is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from vlapipe.pipeline.report.page import NOTHING, render_page
from vlapipe.pipeline.report.plots import Bins, histogram

__all__ = ["difference_page"]

# Quantiles of the manifest, and the share of the rows up to each.
_SHARES = (("min", 0.0), ("q01", 0.01), ("q10", 0.10), ("q50", 0.50), ("q90", 0.90), ("q99", 0.99), ("max", 1.0))
_HEADINGS = {"tasks": "Episodes by task", "splits": "Episodes by split", "findings": "Notes"}
_MOST_PLOTS = 60
_MOST_NAMES = 500  # of a list of episodes
_TINY = 1e-12


def difference_page(report: Mapping[str, Any]) -> str:
    """Returns the page of ``difference_of``'s report."""
    names = [Path(report[side]["path"]).name or report[side]["path"] for side in ("a", "b")]
    return render_page(
        "difference.html",
        title=f"From {names[0]} to {names[1]}",
        report=report,
        plots=[*_plots(report["statistics"]["columns"])],
        num_plotted=min(len(report["statistics"]["columns"]), _MOST_PLOTS),
        most=_MOST_NAMES,
        changes=[
            ("Schema", [*report["schema"]["streams"], *report["schema"]["fields"]]),
            ("Options of the ingest", report["options"]),
            *(
                (f"Episodes by {name}" if name != "findings" else "Notes", each)
                for name, each in report["counts"].items()
            ),
        ],
        shown=_shown,
    )


def _shown(value: Any) -> str:
    """Returns a value of an option or a schema as text."""
    return NOTHING if value is None else value if isinstance(value, str) else json.dumps(value)


def _plots(columns: list[dict[str, Any]]) -> Iterator[tuple[Markup, str]]:
    """Yields the distributions of a and b over each other, the largest shift first."""
    for column in columns[:_MOST_PLOTS]:
        a, b = column["a"], column["b"]
        if a is None or b is None:
            continue
        bins = [_density("a", a), _density("b", b)]
        kept = [one for one in bins if one is not None]
        shift = "unknown" if column["shift"] is None else f"{column['shift']:+.2f} standard deviations"
        said = f"{column['name']}: mean {a['mean']:.4g} to {b['mean']:.4g}, shift {shift}"
        if kept:
            plot = histogram(kept, title=column["name"], description=f"{said}.", y_label="density")
            yield plot, said if len(kept) > 1 else f"{said}; {'b' if bins[1] is None else 'a'} has one value"


def _density(label: str, values: Mapping[str, float]) -> Bins | None:
    """Returns the density between the quantiles; None if all rows have one value."""
    known = [(values[name], share) for name, share in _SHARES if name in values]
    span = known[-1][0] - known[0][0]
    if span <= 0:
        return None
    edges, counts = [known[0][0]], []
    done = known[0][1]
    for edge, share in known[1:]:
        if edge - edges[-1] > max(_TINY, 1e-3 * span):  # quantiles that nearly coincide are one edge
            counts.append((share - done) / (edge - edges[-1]))
            edges.append(edge)
            done = share
    return Bins(label, edges, counts)

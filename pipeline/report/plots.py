"""Plots for pages: each function takes plain numbers and returns an ``<svg>`` element as ``Markup``.

Every plot has a title and a description for those who do not see it, takes its colours from the page (light, dark,
print), runs no script and asks nothing of the network. Example::

    from vlapipe.pipeline.report.plots import Curve, line_plot

    losses = line_plot(
        [Curve("train", steps, train_loss), Curve("validation", eval_steps, val_loss)],
        title="Loss",
        description="Training loss falls from 1.2 to 0.1 in 5,000 steps.",
        x_label="step",
        y_label="loss",
    )

Give the ``Markup`` to a template (``{{ losses }}``): autoescape leaves ``Markup`` as it is. NaN and ``None`` break a
line. The label of a curve may be any text; labels are never read as formulas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from vlapipe.pipeline.report.svg import NUM_COLOURS, THEME, drawing, figure_of, plain, svg_of
from vlapipe.schemas.extras import need

__all__ = [
    "Bins",
    "Curve",
    "Span",
    "bar_plot",
    "density_plot",
    "draw_curves",
    "histogram",
    "line_plot",
    "scatter_plot",
    "style_axes",
]

WIDTH, HEIGHT = 440, 180  # units of a plot, about CSS pixels where a page shows two or three side by side
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 10, 34  # margins
_LEGEND = 18  # height of one row of a legend
_NAME = 28  # most characters of a name in a plot


@dataclass(frozen=True)
class Curve:
    """One line: ``x`` and ``y`` of the same length. ``colour`` counts from 0; by default curves take turns."""

    label: str
    x: ArrayLike
    y: ArrayLike
    colour: int | None = None
    is_dashed: bool = False
    is_faint: bool = False


@dataclass(frozen=True)
class Span:
    """A marked part of the x axis, such as a gap. A span without length is a vertical line."""

    start: float
    stop: float
    label: str = ""


@dataclass(frozen=True)
class Bins:
    """One histogram: ``edges`` has one entry more than ``counts``."""

    label: str
    edges: ArrayLike
    counts: ArrayLike


def line_plot(
    curves: Sequence[Curve],
    *,
    title: str,
    description: str,
    x_label: str = "",
    y_label: str = "",
    spans: Sequence[Span] = (),
    log_y: bool = False,
    width: int = WIDTH,
    height: int = HEIGHT,
) -> Markup:
    """Draws curves over one x axis, with a legend if there is more than one."""
    with drawing():
        figure, axes = _axes(width, height, x_label, y_label, num_labels=len(curves) if len(curves) > 1 else 0)
        draw_curves(axes, curves, spans)
        if log_y:
            axes.set_yscale("log")
        _legend(figure, axes, [(c.label, _colour(i, c), c.is_dashed) for i, c in enumerate(curves)])
        return svg_of(figure, title, description)


def histogram(
    bins: Sequence[Bins],
    *,
    title: str,
    description: str,
    x_label: str = "",
    y_label: str = "",
    marks: Sequence[float] = (),
    width: int = WIDTH,
    height: int = HEIGHT,
) -> Markup:
    """Draws histograms over each other as filled steps. ``marks`` are values to mark by a vertical line."""
    with drawing():
        figure, axes = _axes(width, height, x_label, y_label, num_labels=len(bins) if len(bins) > 1 else 0)
        for number, one in enumerate(bins):
            edges, counts = np.asarray(one.edges, dtype=float), np.asarray(one.counts, dtype=float)
            colour = THEME[f"c{number % NUM_COLOURS}"]
            if len(counts):
                if edges[0] == edges[-1]:  # one value: a bin that can be seen
                    edges = edges + np.linspace(-0.5, 0.5, len(edges))
                axes.stairs(counts, edges, fill=True, color=colour, alpha=0.35, linewidth=0)
                axes.stairs(counts, edges, color=colour, linewidth=1.2)
        for mark in marks:
            axes.axvline(mark, color=THEME["alarm"], linewidth=1, linestyle="--")
        axes.set_ylim(bottom=0)
        _legend(figure, axes, [(b.label, THEME[f"c{i % NUM_COLOURS}"], False) for i, b in enumerate(bins)])
        return svg_of(figure, title, description)


def scatter_plot(
    groups: Sequence[Curve],
    *,
    title: str,
    description: str,
    x_label: str = "",
    y_label: str = "",
    is_equal: bool = False,
    width: int = WIDTH,
    height: int = 300,
) -> Markup:
    """Draws groups of points. With ``is_equal`` both axes have one scale, as positions need it."""
    with drawing():
        figure, axes = _axes(width, height, x_label, y_label, num_labels=len(groups) if len(groups) > 1 else 0)
        for number, group in enumerate(groups):
            # A line of no length with round ends is a point, and takes a tenth of a marker's text.
            x, y = (np.repeat(_numbers(v), 3) for v in (group.x, group.y))
            x[2::3] = np.nan
            y[2::3] = np.nan
            axes.plot(x, y, color=_colour(number, group), linewidth=3.2, solid_capstyle="round", alpha=0.7)
        if is_equal:
            axes.set_aspect("equal", adjustable="datalim")
        _legend(figure, axes, [(g.label, _colour(i, g), False) for i, g in enumerate(groups)])
        return svg_of(figure, title, description)


def density_plot(
    counts: ArrayLike,
    x_edges: ArrayLike,
    y_edges: ArrayLike,
    *,
    title: str,
    description: str,
    x_label: str = "",
    y_label: str = "",
    width: int = WIDTH,
    height: int = 300,
) -> Markup:
    """Draws a map of counts, ``(len(x_edges) - 1, len(y_edges) - 1)``, on a log scale: the more, the darker."""
    grid = np.log1p(np.asarray(counts, dtype=float)).T
    x, y = np.asarray(x_edges, dtype=float), np.asarray(y_edges, dtype=float)
    levels = 6
    steps = np.ceil(grid / max(grid.max(), 1e-9) * levels)
    with drawing():
        figure, axes = _axes(width, height, x_label, y_label, num_labels=0)
        for level in range(1, levels + 1):
            rows, columns = np.nonzero(steps == level)
            if not len(rows):
                continue
            corners = [(columns, rows), (columns + 1, rows), (columns + 1, rows + 1), (columns, rows + 1)]
            xs = np.stack([*(x[c] for c, _ in corners), np.full(len(rows), np.nan)], axis=1).ravel()
            ys = np.stack([*(y[r] for _, r in corners), np.full(len(rows), np.nan)], axis=1).ravel()
            axes.fill(xs, ys, color=THEME["c0"], alpha=level / levels, linewidth=0)
        if x[-1] > x[0]:
            axes.set_xlim(x[0], x[-1])
        if y[-1] > y[0]:
            axes.set_ylim(y[0], y[-1])
        return svg_of(figure, title, description)


def bar_plot(
    labels: Sequence[str],
    values: ArrayLike,
    *,
    title: str,
    description: str,
    x_label: str = "",
    width: int = WIDTH,
) -> Markup:
    """Draws one horizontal bar for each label, the first on top."""
    numbers = _numbers(values)
    height = 44 + 20 * len(labels)
    with drawing():
        figure, axes = _axes(width, height, x_label, "", num_labels=0, left=150)
        axes.barh(range(len(labels)), numbers, color=THEME["c0"], height=0.7)
        axes.set_yticks(range(len(labels)), [_short(label) for label in labels])
        axes.set_ylim(max(len(labels), 1) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        return svg_of(figure, title, description)


def draw_curves(
    axes: Any, curves: Sequence[Curve], spans: Sequence[Span] = (), theme: Mapping[str, str] = THEME
) -> None:
    """Draws curves and marked spans into axes of matplotlib, for figures of several rows."""
    for span in spans:
        if span.stop > span.start:
            axes.axvspan(span.start, span.stop, color=theme["alarm"], alpha=0.25, linewidth=0)
        else:
            axes.axvline(span.start, color=theme["alarm"], linewidth=1)
    for number, curve in enumerate(curves):
        axes.plot(
            _numbers(curve.x),
            _numbers(curve.y),
            color=_colour(number, curve, theme),
            linewidth=1.2,
            linestyle=(0, (4, 3)) if curve.is_dashed else "-",
            solid_joinstyle="round",
        )


def style_axes(axes: Any, x_label: str = "", y_label: str = "", theme: Mapping[str, str] = THEME) -> None:
    """Gives axes the page's looks: a light grid, no frame, few ticks."""
    axes.patch.set_visible(False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme["faint"])
    axes.grid(visible=True, color=theme["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme["ink"], length=0, labelsize=10, pad=4)
    axes.locator_params(axis="y", nbins=5)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(plain(x_label), color=theme["ink"], fontsize=10, labelpad=3)
    axes.set_ylabel(plain(y_label), color=theme["ink"], fontsize=10, labelpad=4)


def _axes(
    width: int, height: int, x_label: str, y_label: str, *, num_labels: int, left: int = _LEFT
) -> tuple[Any, Any]:
    """Returns a figure with one pair of axes, and room for a legend of so many labels above them."""
    legend = _LEGEND * math.ceil(num_labels / 3)
    height += legend
    bottom = _BOTTOM if x_label else _BOTTOM - 12
    figure = figure_of(width, height)
    rectangle = (
        left / width,
        bottom / height,
        (width - left - _RIGHT) / width,
        (height - bottom - _TOP - legend) / height,
    )
    axes = figure.add_axes(rectangle)
    style_axes(axes, x_label, y_label)
    return figure, axes


def _legend(figure: Any, axes: Any, entries: Sequence[tuple[str, str, bool]]) -> None:
    if len(entries) < 2:
        return
    width, height = figure.get_size_inches() * 72
    left = axes.get_position().x0 * width
    column = (width - left - _RIGHT) / 3
    most = int((column - 24) / 5.6)  # characters of a label
    lines = need("matplotlib.lines", "report", "a page with plots")
    for number, (label, colour, is_dashed) in enumerate(entries):
        x = (left + (number % 3) * column) / width
        y = 1 - (10 + _LEGEND * (number // 3)) / height
        dash = (0, (4, 3)) if is_dashed else "-"
        figure.add_artist(lines.Line2D([x, x + 16 / width], [y, y], color=colour, linewidth=2.4, linestyle=dash))
        figure.text(x + 21 / width, y, _short(label, most), color=THEME["ink"], fontsize=10, va="center_baseline")


def _colour(number: int, curve: Curve, theme: Mapping[str, str] = THEME) -> str:
    if curve.is_faint:
        return theme["faint"]
    return theme[f"c{(number if curve.colour is None else curve.colour) % NUM_COLOURS}"]


def _numbers(values: ArrayLike) -> NDArray[np.float64]:
    """Returns the values as floats; ``None`` and infinities become NaN, which breaks a line."""
    numbers = np.array(values, dtype=np.float64)
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers


def _short(label: str, most: int = _NAME) -> str:
    """Cuts the middle out of a long label: names differ at their ends."""
    label = plain(label)
    half = max((most - 1) // 2, 1)
    return label if len(label) <= most else f"{label[:half]}\u2026{label[-half:]}"

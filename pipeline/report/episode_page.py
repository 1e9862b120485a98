"""Draws one episode from its facts: cameras as film strips, fields, actions and clocks, all on one time axis."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlapipe.pipeline.report.dataset_facts import DatasetFacts
from vlapipe.pipeline.report.page import render_page
from vlapipe.pipeline.report.plots import Curve, Span, draw_curves, style_axes
from vlapipe.pipeline.report.svg import LIGHT, NUM_COLOURS, THEME, drawing, figure_of, plain, svg_of
from vlapipe.pipeline.shards.manifest.metadata_columns import metadata_text
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["episode_page", "write_episode_png"]

_WIDTH, _LEFT, _RIGHT = 1000, 64, 170
_FILM, _PANEL, _BETWEEN = 78, 110, 26
_DPI = 144
_MOST_LABELS = 8


def episode_page(found: DatasetFacts) -> str:
    """Returns the HTML."""
    facts = found.facts
    with drawing():
        figure = _timeline(found, THEME, 0)
        said = f"Streams of {facts['id']} over {facts['seconds']:.4g} s: " + ", ".join(
            panel["label"] for panel in facts["report"]["panels"]
        )
        timeline = svg_of(figure, f"Episode {facts['id']}", said)
    return render_page(
        "episode.html",
        title=f"{facts['id']}: episode report",
        facts=facts,
        pictures=found.pictures,
        timeline=timeline,
        metadata=[(key, metadata_text(value)) for key, value in facts["metadata"].items() if value is not None],
    )


def write_episode_png(path: Path, found: DatasetFacts) -> None:
    """Write the time axis as a picture.

    Raises:
        UsageError: the file cannot be written.
        StoppedError: the disk is full, for example.
    """
    with drawing():
        figure = _timeline(found, LIGHT, 44)
        facts = found.facts
        height = figure.get_size_inches()[1] * 72
        figure.text(12 / _WIDTH, 1 - 16 / height, plain(facts["id"]), color=LIGHT["ink"], fontsize=13, va="center")
        said = f"{facts['instruction']} ({facts['task']}, {facts['split']}, {facts['seconds']:.4g} s)"
        figure.text(12 / _WIDTH, 1 - 34 / height, plain(said), color=LIGHT["faint"], fontsize=10, va="center")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI, facecolor=LIGHT["paper"])
    try:
        path.write_bytes(buffer.getvalue())
    except OSError as error:
        raise_if_stopped(error, path)
        raise UsageError(f"{path}: cannot be written: {error.strerror}", "check its folder") from None


def _timeline(found: DatasetFacts, theme: Mapping[str, str], head: int) -> Any:
    """Returns the figure: a film strip for each camera, then a panel for each field, the actions and the clocks."""
    report = found.facts["report"]
    films, panels = report["films"], report["panels"]
    height = head + 12 + len(films) * (_FILM + 8) + len(panels) * (_PANEL + _BETWEEN) + 40
    figure = figure_of(_WIDTH, height)
    start, stop = _limits(report)
    top = head + 8
    for film in films:
        axes = _row(figure, height, top, _FILM)
        _draw_film(axes, film, found.pictures, (start, stop), theme)
        _said(figure, height, top, [(film["camera"], None)], theme)
        top += _FILM + 8
    top += 18 if films else 8
    for number, panel in enumerate(panels):
        axes = _row(figure, height, top, _PANEL)
        is_last = number == len(panels) - 1
        style_axes(axes, "seconds" if is_last else "", panel["unit"], theme)
        draw_curves(axes, [Curve(one["name"], one["x"], one["y"]) for one in panel["curves"]], _spans(report), theme)
        axes.set_xlim(start, stop)
        axes.set_title(plain(panel["label"]), fontsize=10, color=theme["ink"], loc="left", pad=3)
        labels = [(one["name"], theme[f"c{i % NUM_COLOURS}"]) for i, one in enumerate(panel["curves"][:_MOST_LABELS])]
        more = len(panel["curves"]) - len(labels)
        _said(figure, height, top, [*labels, *([(f"and {more} more", None)] if more > 0 else [])], theme)
        top += _PANEL + _BETWEEN
    return figure


def _row(figure: Any, height: int, top: int, tall: int) -> Any:
    rectangle = (_LEFT / _WIDTH, 1 - (top + tall + 8) / height, (_WIDTH - _LEFT - _RIGHT) / _WIDTH, tall / height)
    return figure.add_axes(rectangle)


def _said(figure: Any, height: int, top: int, labels: list[tuple[str, str | None]], theme: Mapping[str, str]) -> None:
    """Writes names to the right of a row, each in the colour of its curve with a mark before it."""
    for number, (label, colour) in enumerate(labels):
        y = 1 - (top + 18 + number * 12) / height
        name = plain(label)
        name = name if len(name) <= 24 else f"{name[:11]}\u2026{name[-11:]}"
        x = (_WIDTH - _RIGHT + 10) / _WIDTH
        if colour is not None:
            figure.text(x, y, "\u25ac", color=colour, fontsize=9, va="center")
        figure.text(x + 14 / _WIDTH, y, name, color=theme["ink"], fontsize=9.5, va="center")


def _limits(report: dict[str, Any]) -> tuple[float, float]:
    times = [x for panel in report["panels"] for one in panel["curves"] for x in one["x"] if x is not None]
    times += [frame["time_s"] for film in report["films"] for frame in film["frames"]]
    return (min(times), max(times)) if times and max(times) > min(times) else (0.0, 1.0)


def _spans(report: dict[str, Any]) -> list[Span]:
    spans = [Span(first, last) for gaps in report["gaps"].values() for first, last in gaps]
    reasons = report["reasons"]
    return spans + [Span(one["start_s"], one["stop_s"]) for one in reasons if one["start_s"] is not None]


def _draw_film(
    axes: Any,
    film: dict[str, Any],
    pictures: Mapping[str, str],
    limits: tuple[float, float],
    theme: Mapping[str, str],
) -> None:
    """Draws each image with its middle at its time, kept within the axis."""
    start, stop = limits
    axes.set_xlim(start, stop)
    axes.set_ylim(0, 1)
    axes.set_axis_off()
    shown = [frame for frame in film["frames"] if frame["picture"] is not None]
    wide = (stop - start) / max(len(shown), 1)
    for frame in shown:
        image = _opened(pictures[frame["picture"]])
        aspect = image.shape[1] / image.shape[0]
        width = min(wide * 0.97, aspect * _FILM / (_WIDTH - _LEFT - _RIGHT) * (stop - start))
        left = min(max(frame["time_s"] - width / 2, start), stop - width)
        tall = width * (_WIDTH - _LEFT - _RIGHT) / (stop - start) / aspect / _FILM
        axes.imshow(image, extent=(left, left + width, 0.0, min(tall, 1.0)), aspect="auto", interpolation="none")
        axes.plot([frame["time_s"]] * 2, [-0.06, 0.0], color=theme["ink"], linewidth=1, clip_on=False)
    axes.set_xlim(start, stop)
    axes.set_ylim(0, 1)


def _opened(uri: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    data = base64.b64decode(uri.partition(",")[2])
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    image.thumbnail((120, 120))
    return np.asarray(image.convert("RGB"))

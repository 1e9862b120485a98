"""Draws recorded and predicted actions of one episode on a page, a panel a dimension, as PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["Chunk", "write_page"]

_SCALE = 2  # drawn so many times as large and made smaller, so that lines are smooth
_WIDTH, _HEIGHT, _COLUMNS = 560, 190, 2  # of a panel
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 26, 24  # of a panel's margins
_HEAD = 58
_PAPER, _INK, _FAINT, _GRID = (255, 255, 255), (34, 34, 34), (130, 130, 130), (232, 232, 232)
_RECORDED, _PREDICTED = (70, 70, 70), ((214, 96, 30), (30, 110, 200))  # chunks take turns


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Actions that were predicted at one frame: times (H,) in seconds, and values (H, A)."""

    time_s: NDArray[np.float64]
    values: NDArray[np.float32]


def write_page(
    path: Path,
    *,
    title: str,
    subtitle: str,
    labels: Sequence[str],
    time_s: NDArray[np.float64],
    recorded: NDArray[np.float32],
    chunks: Sequence[Chunk],
) -> None:
    """Write the page. ``recorded`` (F, A) are the actions at ``time_s`` (F,); a NaN breaks the line.

    Raises:
        StoppedError: the disk is full, for example.
    """
    rows = -(-len(labels) // _COLUMNS)
    size = (_COLUMNS * _WIDTH * _SCALE, (_HEAD + rows * _HEIGHT) * _SCALE)
    image = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(image)
    _text(draw, (_LEFT, 10), title, 15, _INK)
    _text(draw, (_LEFT, 32), subtitle, 12, _FAINT)
    _legend(draw, _COLUMNS * _WIDTH - _RIGHT)
    end_s = max([float(time_s[-1]), *(float(chunk.time_s[-1]) for chunk in chunks)])
    for i, label in enumerate(labels):
        corner = ((i % _COLUMNS) * _WIDTH, _HEAD + (i // _COLUMNS) * _HEIGHT)
        values = [recorded[:, i], *(chunk.values[:, i] for chunk in chunks)]
        panel = _Panel(draw, corner, (float(time_s[0]), end_s), _limits(np.concatenate(values)))
        panel.frame(label)
        panel.line(time_s, recorded[:, i], _RECORDED, 2)
        for number, chunk in enumerate(chunks):
            colour = _PREDICTED[number % 2]
            panel.line(chunk.time_s, chunk.values[:, i], colour, 2)
            panel.dot(chunk.time_s[0], chunk.values[0, i], colour)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.resize((size[0] // _SCALE, size[1] // _SCALE), Image.Resampling.LANCZOS).save(path, optimize=True)
    except OSError as error:
        raise_if_stopped(error, path)
        raise


class _Panel:
    """One diagram: seconds to the right, a dimension's unit upwards."""

    def __init__(
        self, draw: Any, corner: tuple[int, int], span_s: tuple[float, float], limits: tuple[float, float]
    ) -> None:
        self._draw, (left, top), (self._begin, end) = draw, corner, span_s
        self._low, self._high = limits
        self._x0, self._y0 = left + _LEFT, top + _TOP
        self._x1, self._y1 = left + _WIDTH - _RIGHT, top + _HEIGHT - _BOTTOM
        self._end = max(end, self._begin + 1e-6)

    def frame(self, label: str) -> None:
        """Draw the grid, its numbers and the label."""
        _text(self._draw, (self._x0, self._y0 - 19), label, 13, _INK)
        for value in _ticks(self._low, self._high, 4):
            y = self._y(value)
            self._draw.line([_up(self._x0, y), _up(self._x1, y)], _GRID, _SCALE)
            _text(self._draw, (self._x0 - 6, y - 7), f"{value:.4g}", 11, _FAINT, anchor="ra")
        for value in _ticks(self._begin, self._end, 8):
            x = self._x(value)
            self._draw.line([_up(x, self._y0), _up(x, self._y1)], _GRID, _SCALE)
            _text(self._draw, (x, self._y1 + 3), f"{value:g} s", 11, _FAINT, anchor="ma")

    def line(self, time_s: NDArray[Any], values: NDArray[Any], colour: tuple[int, int, int], width: int) -> None:
        """Draw the values; a NaN breaks the line."""
        points: list[tuple[float, float]] = []
        for time, value in zip(time_s.tolist(), values.tolist(), strict=True):
            if math.isfinite(value):
                points.append(_up(self._x(time), self._y(value)))
                continue
            self._stroke(points, colour, width)
            points = []
        self._stroke(points, colour, width)

    def dot(self, time: float, value: float, colour: tuple[int, int, int]) -> None:
        """Mark where a chunk begins."""
        x, y = _up(self._x(float(time)), self._y(float(value)))
        self._draw.ellipse([x - 3 * _SCALE, y - 3 * _SCALE, x + 3 * _SCALE, y + 3 * _SCALE], fill=colour)

    def _stroke(self, points: list[tuple[float, float]], colour: tuple[int, int, int], width: int) -> None:
        if len(points) > 1:
            self._draw.line(points, colour, width * _SCALE // 2 + 1, joint="curve")

    def _x(self, time: float) -> float:
        return self._x0 + (time - self._begin) / (self._end - self._begin) * (self._x1 - self._x0)

    def _y(self, value: float) -> float:
        return self._y1 - (value - self._low) / (self._high - self._low) * (self._y1 - self._y0)


def _legend(draw: Any, right: int) -> None:
    names = (("recorded", _RECORDED), ("predicted, a chunk from each dot", _PREDICTED[0]))
    for i, (name, colour) in enumerate(names):
        y = 17 + 18 * i
        draw.line([_up(right - 230, y), _up(right - 205, y)], colour, 2 * _SCALE)
        _text(draw, (right - 198, y - 8), name, 12, _INK)
    draw.line([_up(right - 217, 35), _up(right - 205, 35)], _PREDICTED[1], 2 * _SCALE)


def _limits(values: NDArray[Any]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    room = 0.06 * (high - low) or max(1e-6, 0.1 * abs(high)) or 1.0
    return low - room, high + room


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Returns round numbers between the limits, ``most`` at most."""
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next((factor for factor in (1, 2, 5, 10) if (high - low) / (factor * step) <= most), 10)
    first = math.ceil(low / step)
    return [round(i * step, 12) for i in range(first, math.floor(high / step) + 1)]


def _up(x: float, y: float) -> tuple[float, float]:
    return x * _SCALE, y * _SCALE


def _text(
    draw: Any, at: tuple[float, float], text: str, size: int, colour: tuple[int, int, int], anchor: str = "la"
) -> None:
    draw.text(_up(*at), text, fill=colour, font=ImageFont.load_default(size * _SCALE), anchor=anchor)

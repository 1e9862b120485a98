"""Draws an episode as a film strip: pictures side by side, from its first to its last, with a line of text below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["Film"]

WIDTH = 216  # of one picture
COLUMNS = 6
_GAP, _TEXT, _TIME = 4, 17, 13
_PAPER, _INK, _GOOD, _BAD = (250, 250, 248), (34, 34, 34), (34, 120, 70), (180, 44, 40)


class Film:
    """Keeps pictures of one episode, evenly spread over its steps and never more than ``most`` small ones."""

    def __init__(self, most: int = 48) -> None:
        """Begin without a picture. ``most`` is even."""
        self._most, self._every, self._pictures = most, 1, list[tuple[int, Image.Image]]()
        self._newest: tuple[int, Image.Image] | None = None

    def add(self, step: int, picture: NDArray[Any]) -> None:
        """Take the picture ``(height, width, 3)`` uint8 after ``step`` steps."""
        image = Image.fromarray(np.ascontiguousarray(picture))
        height = max(1, round(image.height * WIDTH / image.width))
        self._newest = step, image.resize((WIDTH, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
        if step % self._every == 0:
            self._pictures.append(self._newest)
        if len(self._pictures) > self._most:
            self._every *= 2
            self._pictures = [(number, kept) for number, kept in self._pictures if number % self._every == 0]

    def write(self, path: Path, caption: str, *, is_good: bool, rows: int = 2) -> None:
        """Write a strip of up to ``6 * rows`` pictures, the first and the last among them, as PNG.

        Raises:
            StoppedError: the disk is full, for example.
        """
        pictures = list(self._pictures)
        if self._newest is not None and (not pictures or pictures[-1][0] != self._newest[0]):
            pictures.append(self._newest)
        if not pictures:
            return
        count = min(len(pictures), COLUMNS * rows)
        shown = [pictures[i] for i in np.unique(np.linspace(0, len(pictures) - 1, count).round().astype(int))]
        height = shown[0][1].height
        columns, lines = min(COLUMNS, len(shown)), -(-len(shown) // COLUMNS)
        size = (columns * (WIDTH + _GAP) + _GAP, lines * (height + _TIME + _GAP) + _TEXT + 2 * _GAP)
        sheet = Image.new("RGB", size, _PAPER)
        draw = ImageDraw.Draw(sheet)
        draw.text((_GAP, _GAP), caption, fill=_GOOD if is_good else _BAD, font=ImageFont.load_default(12))
        for i, (step, picture) in enumerate(shown):
            left = _GAP + (i % COLUMNS) * (WIDTH + _GAP)
            top = _TEXT + 2 * _GAP + (i // COLUMNS) * (height + _TIME + _GAP)
            sheet.paste(picture, (left, top))
            draw.text((left, top + height), f"step {step}", fill=_INK, font=ImageFont.load_default(10))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            sheet.save(path)
        except OSError as error:
            raise_if_stopped(error, path)
            raise

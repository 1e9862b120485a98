"""Tables and sparklines of reports on a terminal. Everything fits 80 columns; a pipe gets plain text."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["open_console", "print_list", "sparkline", "table"]

_WIDTH = 80  # of output that is no terminal, unless COLUMNS says another
_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.-=*#"


def open_console() -> Console:
    """Returns a console of stdout. Colour and bold need a terminal; NO_COLOR turns colour off (https://no-color.org)."""
    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, emoji=False, width=_piped_width())


def _piped_width() -> int:
    columns = os.environ.get("COLUMNS", "")
    return max(_WIDTH, int(columns)) if columns.isdecimal() else _WIDTH


def table(*columns: str, title: str | None = None) -> Table:
    """Make a plain table. A column whose name begins with ``>`` is right-aligned and never broken; others wrap."""
    made = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        is_number = column.startswith(">")
        made.add_column(
            column.removeprefix(">"), justify="right" if is_number else "left", overflow="fold", no_wrap=is_number
        )
    return made


def print_list(console: Console, lines: Sequence[str], *, sign: str = "", style: str = "") -> None:
    """Print each line after ``sign``. A line that is too long goes on below its own beginning."""
    shown = Table.grid(padding=(0, 1, 0, 0))
    shown.add_column(width=max(2, len(sign) + 2), justify="right", no_wrap=True)
    shown.add_column(overflow="fold")
    for line in lines:
        shown.add_row(sign, line, style=style)
    if lines:
        console.print(shown)


def sparkline(
    values: Sequence[float | None],
    width: int = 40,
    *,
    limits: tuple[float, float] | None = None,
    encoding: str = "utf-8",
) -> str:
    """Returns a line of blocks, one for each of ``width`` equal parts of the values: the mean of the part.

    The blocks go from the lowest part to the highest, or between ``limits``. A part without a finite value is a blank.
    ``encoding`` is that of the output; where it lacks the blocks, the line is ASCII.
    """
    parts = [_mean(values[start:stop]) for start, stop in _parts(len(values), width)]
    known = [part for part in parts if part is not None]
    if not known:
        return ""
    low, high = limits or (min(known), max(known))
    blocks = _BLOCKS if _can_write(encoding) else _ASCII
    top = len(blocks) - 1
    scale = top / (high - low) if high > low else 0.0
    return "".join(" " if part is None else blocks[round((part - low) * scale)] for part in parts)


def _parts(count: int, width: int) -> list[tuple[int, int]]:
    width = min(count, width)
    return [(i * count // width, (i + 1) * count // width) for i in range(width)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


def _can_write(encoding: str) -> bool:
    try:
        _BLOCKS.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True

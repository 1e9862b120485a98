"""Finds tables that hold the stamps of other data: of the anchor's rows, or of a camera's images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from vlapipe.pipeline.discover.file_kinds import IMAGES
from vlapipe.pipeline.infer.columns.clock import ClockGuess, guess_clock
from vlapipe.pipeline.infer.columns.columns import Column, columns_of
from vlapipe.pipeline.infer.text.dialect import Table
from vlapipe.schemas.schema import WHITESPACE, Dialect, TimeSpec

__all__ = ["StampTable", "stamp_table"]

_MOST = 0.8  # fraction of a camera's images that a table must name


@dataclass(frozen=True)
class StampTable:
    """A table with a clock. ``pattern`` is relative to the episode's folder.

    ``alone`` is True if the table holds nothing to train on.
    """

    pattern: str
    clock: ClockGuess
    columns: tuple[Column, ...]
    num_rows: int
    has_header: bool
    alone: bool

    @property
    def time(self) -> TimeSpec:
        """The clock for the data that the stamps belong to."""
        time = replace(self.clock.time, file=self.pattern)
        return time if self.has_header else replace(time, sources=())

    @property
    def lists_images(self) -> bool:
        """Whether a column holds the names of image files."""
        paths = (column.cells[0] for column in self.columns if column.kind == "text" and column.cells)
        return any(PurePosixPath(path).suffix.lower() in IMAGES for path in paths)

    def share_of(self, images: list[str], folder: str) -> float:
        """Return by how much a column of this table names images of a folder, see ``_share``."""
        return max((_share(column, images, folder) for column in self.columns), default=0.0)

    def time_of_images(self, images: list[str], folder: str) -> TimeSpec | None:
        """Return the clock of images that a column names, or ``None`` if no column does.

        If several columns do, as in a list of colour images and their depth, one with the images' folder comes first.
        A column of stamps that stands just before the names is theirs.
        """
        naming = {column.position: named for column in self.columns if (named := _share(column, images, folder))}
        if not naming:
            return None
        at = max(naming, key=lambda position: (naming[position], -position))
        stamps = next((c for c in self.columns if c.position == at - 1 and _is_like(c, self.clock, self.columns)), None)
        time = replace(self.clock.time, file=self.pattern)
        sources = time.sources if stamps is None else (stamps.name,)
        if self.has_header:
            name = next(column.name for column in self.columns if column.position == at)
            return replace(time, sources=sources, name_column=name)
        numbers = {column.name: column.position + 1 for column in self.columns}
        sources = tuple(f"column {numbers[source]}" for source in sources)
        return replace(time, sources=sources, name_column=f"column {at + 1}")


def _share(column: Column, images: list[str], folder: str) -> float:
    """Return by how much a column names images: the fraction that it names, and 1 more if it has their folder too."""
    if column.kind != "text":
        return 0.0
    paths = [PurePosixPath(cell.replace("\\", "/")) for cell in column.cells]
    wanted = set(images)
    share = len(wanted & {path.name for path in paths}) / len(wanted)
    return 0.0 if share < _MOST else share + all(path.parent.name == folder for path in paths)


def _is_like(column: Column, clock: ClockGuess, columns: Sequence[Column]) -> bool:
    """Return whether a column holds stamps like those of the clock: numbers that stay near them."""
    own = next((each for each in columns if each.name in clock.columns), None)
    if own is None or column.kind != "number" or column.num_missing or not clock.epoch:
        return False
    return bool(np.abs(column.values - own.values).max() <= np.ptp(own.values))


def stamp_table(pattern: str, look: Table) -> StampTable | None:
    """Describe a table as a file of stamps.

    Returns ``None`` if the table has no clock, or if its dialect is not as plain as that of stamp files.
    """
    columns = columns_of(look)
    clock = guess_clock(columns)
    plain = replace(
        Dialect(),
        delimiter=look.dialect.delimiter,
        comment=look.dialect.comment,
        header_commented=look.dialect.header_commented,
        header_rows=look.dialect.header_rows,
        names=look.dialect.names,
        skip_blanks=look.dialect.skip_blanks,
    )
    delimiters = {",", ";", "\t", WHITESPACE}
    if clock.assumed or look.dialect != plain or plain.delimiter not in delimiters or plain.comment not in ("", "#"):
        return None
    numbers = [c for c in columns if c.kind == "number" and c.name not in clock.columns and not c.counts]
    others = [c for c in numbers if not _is_like(c, clock, columns)]
    return StampTable(
        pattern=pattern,
        clock=clock,
        columns=tuple(columns),
        num_rows=look.num_rows,
        has_header=look.dialect.header_rows > 0,
        alone=not others,
    )

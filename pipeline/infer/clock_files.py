"""Finds tables that hold the stamps of other data: of the anchor's rows, or of a camera's images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from vlapipe.pipeline.infer.clock import ClockGuess, guess_clock
from vlapipe.pipeline.infer.columns import Column, columns_of
from vlapipe.pipeline.infer.dialect import Table
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

    def names_of(self, images: list[str]) -> str | None:
        """Return the column that names the images, or ``None`` if no column does."""
        wanted = set(images)
        for column in self.columns:
            if column.kind != "text" or not self.has_header:
                continue
            cells = {PurePosixPath(cell.replace("\\", "/")).name for cell in column.cells}
            if len(wanted & cells) >= _MOST * len(wanted):
                return column.name
        return None


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
    others = [c for c in columns if c.kind == "number" and c.name not in clock.columns and not c.counts]
    return StampTable(
        pattern=pattern,
        clock=clock,
        columns=tuple(columns),
        num_rows=look.num_rows,
        has_header=look.dialect.header_rows > 0,
        alone=not others,
    )

"""Weighs the first lines of a table: each as names, as a description of the columns, and as a row.

A header is a hypothesis about all of them at once. Its score is the sum of what the lines score as what it takes them
for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

from vlapipe.pipeline.infer.evidence import Evidence, log_odds
from vlapipe.pipeline.infer.lexicon import lexicon
from vlapipe.pipeline.infer.text.cells import describes_column, is_missing, is_summary, kind_of_cell
from vlapipe.schemas.schema import WHITESPACE, Dialect

__all__ = ["Hypothesis", "Line", "Shape", "WeighedLines", "come_twice"]

_MAX_WEIGHED = 64  # lines
_MAX_DESCRIBED = 4  # lines of units, types and ranges
_LIKE_NAMES = 1.0  # log-odds
_OTHER_CUTS = (",", ";", r"\t+", r"\t|\s{2,}", r"\s+")


@dataclass(frozen=True)
class Line:
    """A line that is not blank: its index in the file, its cells, and whether it is a comment."""

    number: int
    text: str
    cells: list[str]
    commented: bool = False
    recut: bool = False  # cut by another delimiter than the rows
    remarks: tuple[str, ...] = ()  # names of columns of remarks, with which few rows go on


class Shape:
    """What most rows of a table have in common: the number of cells, and the kind of data of each column."""

    def __init__(self, rows: Sequence[list[str]], decimal: str) -> None:
        counts = Counter(len(cells) for cells in rows)
        self.decimal = decimal
        self.width = max(counts, key=lambda n: (counts[n], n == len(rows[-1]), n))
        self.rows = [cells for cells in rows if len(cells) == self.width]
        later = self.rows[len(self.rows) // 2 :]
        self.kinds = [self._kind([row[column] for row in later]) for column in range(self.width)]
        self.last_empty = self.width > 1 and not any(row[-1] for row in later if not is_summary(row[0]))

    def _kind(self, cells: list[str]) -> str:
        kinds = Counter(kind for cell in cells if (kind := kind_of_cell(cell, self.decimal)))
        kind = max(kinds, key=lambda kind: kinds[kind], default="")
        return kind if 2 * kinds[kind] > sum(not is_missing(cell) for cell in cells) else ""

    @cached_property
    def fractional(self) -> float:
        """The share of the columns that hold numbers with a fraction."""
        later = self.rows[len(self.rows) // 2 :]
        return sum(any(not cell.isdigit() for cell in column) for column in zip(*later, strict=True)) / self.width

    def evidence(self, line: Line, *, is_first: bool) -> Iterator[Evidence]:
        """Yields what a line looks like beside the rows."""
        cells, fits = line.cells, len(line.cells) == self.width
        pairs = list(zip(cells, self.kinds, strict=True)) if fits else [(cell, "number") for cell in cells]
        under = [(cell, kind) for cell, kind in pairs if kind]
        given = [(cell, kind) for cell, kind in under if not is_missing(cell)]
        data = [cell for cell, kind in given if kind_of_cell(cell, self.decimal) == kind]
        named = [cell for cell in cells if cell]
        yield Evidence("numbers_in_it", len(data) / max(1, len(given)))
        yield Evidence("words_over_numbers", (len(given) - len(data)) / max(1, len(under)))
        yield Evidence("fraction_in_it", float(any(not cell.isdigit() for cell in data)))
        yield Evidence("word_first", float(bool(given) and given[0][0] == cells[0] and cells[0] not in data))
        yield Evidence("all_different", float(len(set(named)) == len(named) > 0 and all(cells[1:-1])))
        yield Evidence("cells_empty", 1 - len(named) / len(cells))
        yield Evidence("all_missing", float(bool(under) and not given))
        described = sum(map(describes_column, named)) / max(1, len(named))
        yield Evidence("describes_columns", max(0.0, 4 * described - 3))
        yield Evidence("sums_up", float(is_summary(cells[0])))
        yield Evidence("width_of_rows", float(fits))
        off = abs(len(cells) - self.width)
        yield Evidence("other_width", 0.0 if fits else 0.3 if off == 1 else 1.0)
        yield Evidence("cut_otherwise", float(line.recut))
        counted = is_first and self.width > 2 and cells in ([str(i + k) for i in range(self.width)] for k in (0, 1))
        yield Evidence("counts_columns", (0.5 + self.fractional / 2) if counted else 0.0)


@dataclass(frozen=True)
class Hypothesis:
    """From ``top`` on stand ``num_names`` lines of names, then lines that are no rows, and from ``first`` on rows."""

    score: float
    top: int
    num_names: int
    first: int

    @property
    def below_names(self) -> int:
        """The line below the names."""
        return self.top + self.num_names


class WeighedLines:
    """The first lines of a table, weighed as names, as a description, and as a row."""

    def __init__(self, lines: Sequence[Line], shape: Shape, cut: Callable[[str], list[str]], dialect: Dialect) -> None:
        self.shape, self.dialect = shape, dialect
        self.lines = [self._recut(line, cut) for line in lines[:_MAX_WEIGHED]]
        found = [list(shape.evidence(line, is_first=i == 0)) for i, line in enumerate(self.lines)]
        self.described = [next(e.strength for e in each if e.feature == "describes_columns") for each in found]
        self.names = [log_odds("names_line", each) for each in found]
        self.about = [log_odds("described_line", each) for each in found]
        rows = [log_odds("row_line", each) for each in found]
        self.rows = [0.0 if line.commented else score for line, score in zip(self.lines, rows, strict=True)]
        self.below = [*reversed(list(accumulate(reversed(self.rows)))), 0.0]  # score of all rows from a line on

    def _recut(self, line: Line, cut: Callable[[str], list[str]]) -> Line:
        text = line.text.lstrip(self.dialect.comment).strip() if line.commented else line.text
        cells = (cut(text) or [""]) if line.commented else line.cells
        beyond, remarks = cells[self.shape.width :], lexicon().phrases("cells", "remarks")
        if beyond and all(not cell or cell.lower() in remarks for cell in beyond):  # cells that most rows lack
            return replace(line, cells=cells[: self.shape.width], remarks=tuple(filter(None, beyond)), recut=True)
        parted = self.dialect.delimiter == WHITESPACE and sum(cell.endswith((",", ";")) for cell in cells) > 1
        if len(cells) != self.shape.width or parted:
            for delimiter in _OTHER_CUTS:
                others = [name.strip() for name in re.split(delimiter, text.strip())]
                if len(others) == self.shape.width > 1 and not any(kind_of_cell(c, ".") or not c for c in others):
                    return replace(line, cells=others, recut=True)
        return replace(line, cells=cells)

    def are_names(self, top: int, count: int) -> list[str]:
        """The names in one line, or in two lines joined; a group's name goes on over empty cells."""
        if count == 1:
            return self.lines[top].cells
        upper, lower = self.lines[top].cells, self.lines[top + 1].cells
        if come_twice(lower):
            upper = list(accumulate(upper, _or_before))
        return [" ".join(filter(None, pair)) for pair in zip(upper, lower, strict=False)]

    def hypotheses(self) -> Iterator[Hypothesis]:
        """Yields each header that is possible."""
        none = log_odds("header", [Evidence("no_names")])
        for top, line in enumerate(self.lines):
            if not line.commented and any(self.shape.kinds):
                yield Hypothesis(none + self.about_above(top) + self.below[top], top, 0, top)
            # A quote that opens in one cell and closes in another is prose about the table.
            quote = self.dialect.quote
            prose = bool(quote) and sum(cell.count(quote) % 2 for cell in line.cells) > 1
            if not prose and len(line.cells) >= self.shape.width / 2:
                yield from self._with_rows(top, 1, self._score_of_names(top, 1))
                if self._may_be_joined(top):
                    yield from self._with_rows(top, 2, self._score_of_names(top, 2))

    def _may_be_joined(self, top: int) -> bool:
        pair = self.lines[top : top + 2]
        plain = not any(line.commented or line.recut for line in pair)
        return len(pair) == 2 and plain and len(pair[0].cells) == len(pair[1].cells)

    def _score_of_names(self, top: int, count: int) -> float:
        lower = self.lines[top + count - 1].cells
        twice = come_twice(self.are_names(top, count))
        needed = come_twice(lower) or any(kind_of_cell(cell, ".") for cell in lower)
        joined = count == 2 and needed and not twice and self.names[top + 1] > _LIKE_NAMES
        evidence = [
            Evidence("two_lines", float(count == 2)),
            Evidence("names_twice", float(twice)),
            Evidence("joined_differ", 1 - self.described[top + 1] if joined else 0.0),
        ]
        return log_odds("header", evidence) + max(self.names[top : top + count]) + self.about_above(top)

    def about_above(self, top: int) -> float:
        """What the line above scores if it has units or types."""
        return self.about[top - 1] if self.has_units(top - 1) else 0.0

    def has_units(self, line: int) -> bool:
        """Return True if there is such a line, and it has units or types."""
        return line >= 0 and self.described[line] > 0

    def _with_rows(self, top: int, count: int, score: float) -> Iterator[Hypothesis]:
        for first in range(top + count, min(top + count + _MAX_DESCRIBED + 1, len(self.lines))):
            if not self.lines[first].commented:
                yield Hypothesis(score + self.below[first], top, count, first)
            score += self.about[first]


def _or_before(before: str, cell: str) -> str:
    return cell or before


def come_twice(names: list[str]) -> bool:
    """Return True if two names are the same; columns without a name do not count."""
    named = [name for name in names if name]
    return len(set(named)) < len(named)

"""Describes a table's columns by their first cells: kind, values, unit, and missing cells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.infer.lexicon import lexicon, time_unit
from vlapipe.pipeline.infer.text.cells import is_list, is_missing, is_number, is_time_text, number_of, words_of
from vlapipe.pipeline.infer.text.dialect import Table

__all__ = ["Column", "column_of_values", "columns_of", "split_unit", "within"]

_BRACKETED = re.compile(r"^(.*?)[\s_]*[\[(]\s*([^\])]*?)\s*[\])]\s*$")
_NO_UNIT = re.compile(r"(|-|1|bool|u?int\d*|float\d*|double|string|str|\d+)\Z")
_MOST_DIGITS = 18  # of whole numbers whose differences are exact
_MOSTLY = 0.9


@dataclass(frozen=True)
class Column:
    """One column. ``base`` is the column's name without the unit.

    ``kind`` is number, words (a yes-word and a no-word), time (as text), list, text, or empty. ``of_array`` is True if
    the values come from a container: then a clock can be no text, and no sum of two columns.
    """

    name: str
    position: int
    kind: str
    cells: tuple[str, ...]
    unit: str
    base: str
    decimal: str
    of_array: bool = False

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """The number in each cell, NaN if the cell has none."""
        if self.kind == "words":
            return np.array([self.words.get(cell.strip(), np.nan) for cell in self.cells], dtype=np.float64)
        return np.array([number_of(cell, self.decimal) for cell in self.cells], dtype=np.float64)

    @cached_property
    def stripped(self) -> list[str]:
        """The cells without blanks around them."""
        return [cell.strip() for cell in self.cells]

    @cached_property
    def words(self) -> dict[str, int]:
        """The number that each word stands for, if the column's kind is words."""
        return words_of(cell for cell in self.cells if not is_missing(cell)) if self.kind == "words" else {}

    @cached_property
    def finite(self) -> NDArray[np.float64]:
        """The values that are finite."""
        return self.values[np.isfinite(self.values)]

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """The cells that hold a finite number, as they are written but with a decimal point."""
        finite = np.isfinite(self.values)
        return tuple(c.strip().replace(",", ".") for c, good in zip(self.cells, finite, strict=True) if good)

    @cached_property
    def steps(self) -> NDArray[np.float64]:
        """Differences of neighbouring values. Differences of whole numbers are exact, however large the numbers are."""
        if self.whole and all(len(cell) <= _MOST_DIGITS + 2 for cell in self.numbers):
            return np.array([b - a for a, b in pairwise(map(int, self.numbers))], dtype=np.float64)
        with np.errstate(over="ignore"):
            return np.diff(self.finite)

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """The texts of cells without a value, as they are written."""
        return tuple(sorted({cell for cell in self.cells if is_missing(cell)}))

    @property
    def num_missing(self) -> int:
        """Number of cells without a value."""
        return sum(map(is_missing, self.cells))

    @cached_property
    def whole(self) -> bool:
        """True if each number is written without a point or an exponent."""
        return self.kind == "number" and all(cell.lstrip("+-").isdigit() for cell in self.numbers)

    @property
    def constant(self) -> bool:
        """True if all values are the same."""
        return len(self.cells) > 2 and len(self.finite) > 0 and bool(self.finite.max() == self.finite.min())

    @cached_property
    def counts(self) -> bool:
        """True if the column only counts rows: whole numbers, each one more than the number before."""
        return self.whole and len(self.finite) > 1 and bool(np.all(self.steps == 1))

    @cached_property
    def rises(self) -> bool:
        """True if no value is less than the value before, and some are more."""
        steps = self.steps
        return self.kind == "number" and len(steps) > 0 and bool(np.all(steps >= 0) and np.any(steps > 0))


def within(steps: NDArray[np.float64], groups: Column | None) -> NDArray[np.float64]:
    """Return the steps within the blocks of equal cells of a column, without those from one block to the next."""
    if groups is None or len(groups.cells) != len(steps) + 1:
        return steps
    kept: NDArray[np.float64] = steps[np.array([a == b for a, b in pairwise(groups.cells)], dtype=bool)]
    return kept


def columns_of(table: Table) -> list[Column]:
    """Return every column of a table, in the table's order."""
    columns = []
    for position, name in enumerate(table.names):
        cells = tuple(row[position] for row in table.rows)
        base, unit = split_unit(name)
        unit = _plain_unit(table.units[position].strip("[]() ")) or unit
        kind = _kind(cells, table.dialect.decimal)
        columns.append(Column(name, position, kind, cells, unit, base, table.dialect.decimal))
    return columns


def column_of_values(name: str, position: int, values: Sequence[Any] | NDArray[Any]) -> Column:
    """Return the first values of an array of a container, one number a row, as a column."""
    base, unit = split_unit(name.rpartition("/")[2])
    cells = tuple(map(repr, np.asarray(values).tolist()))
    return Column(name, position, "number", cells, unit, base, ".", of_array=True)


def _kind(cells: tuple[str, ...], decimal: str) -> str:
    given = [cell for cell in cells if not is_missing(cell)]
    if not given:
        return "empty"
    for kind, test in (("number", lambda c: is_number(c, decimal)), ("time", is_time_text), ("list", is_list)):
        if all(map(test, given)):
            return kind
    if words_of(given):
        return "words"
    # A few words among numbers are faults, which the reader reports. The column is still a column of numbers.
    return "number" if sum(is_number(cell, decimal) for cell in given) > _MOSTLY * len(given) else "text"


def split_unit(name: str) -> tuple[str, str]:
    """Split a column's name into the name without its unit, and the unit: ``x [mm]``, ``angle(deg)``, ``pos_x_mm``."""
    match = _BRACKETED.match(name)
    if match is not None and match[1] and not match[2].isdigit():
        return match[1], _plain_unit(match[2])
    base, _, suffix = name.rpartition("_")
    is_unit = suffix.lower() in lexicon().phrases("unit_suffixes", "units") and base and not base.endswith("_")
    if is_unit and not (suffix.lower() in ("m", "s") and len(base) < 3):
        return base, _plain_unit(suffix.lower())
    return name, ""


def _plain_unit(text: str) -> str:
    """Return a unit in the spelling of schemas."""
    if _NO_UNIT.match(text):
        return ""
    known = next((unit for unit, spellings in lexicon().table("units").items() if text in spellings), None)
    return known or time_unit(text) or text

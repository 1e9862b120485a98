"""Describes a table's columns by their first cells: kind, values, unit, and missing cells."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.infer.text.cells import is_list, is_missing, is_number, is_time_text, number_of, words_of
from vlapipe.pipeline.infer.text.dialect import Table

__all__ = ["Column", "columns_of", "split_unit"]

_BRACKETED = re.compile(r"^(.*?)[\s_]*[\[(]\s*([^\])]*?)\s*[\])]\s*$")
_SUFFIX = re.compile(
    r"^(.*[^_])_(deg|rad|mm|cm|m|ms|us|ns|s|sec|msec|usec|nsec|mps|rps|degrees|radians)$", re.IGNORECASE
)
_SUFFIX_UNITS = {
    "mps": "m/s",
    "rps": "rad/s",
    "degrees": "deg",
    "radians": "rad",
    "sec": "s",
    "msec": "ms",
    "usec": "us",
}
_SPELLED = {
    "°": "deg", "°/s": "deg/s", "degrees": "deg", "degree": "deg", "radians": "rad", "radian": "rad", "µs": "us",
    "m/s2": "m/s^2", "m/s²": "m/s^2", "m s^-1": "m/s", "m s^-2": "m/s^2", "rad s^-1": "rad/s", "rad/s2": "rad/s^2",
    "Nm": "N*m", "N m": "N*m", "N.m": "N*m", "N·m": "N*m", "sec": "s", "secs": "s", "seconds": "s", "nsec": "ns",
    "mins": "min", "minutes": "min", "minute": "min", "hours": "h", "hour": "h", "hrs": "h", "hr": "h",
    "milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns",
}  # fmt: skip
_NO_UNIT = re.compile(r"(|-|1|bool|u?int\d*|float\d*|double|string|str|\d+)\Z")


@dataclass(frozen=True)
class Column:
    """One column. ``base`` is the column's name without the unit.

    ``kind`` is number, words (a yes-word and a no-word), time (as text), list, text, or empty.
    """

    name: str
    position: int
    kind: str
    cells: tuple[str, ...]
    unit: str
    base: str
    decimal: str

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """The number in each cell, NaN if the cell has none."""
        if self.kind == "words":
            return np.array([self.words.get(cell.strip(), np.nan) for cell in self.cells], dtype=np.float64)
        return np.array([number_of(cell, self.decimal) for cell in self.cells], dtype=np.float64)

    @cached_property
    def words(self) -> dict[str, int]:
        """The number that each word stands for, if the column's kind is words."""
        return words_of(cell for cell in self.cells if not is_missing(cell)) if self.kind == "words" else {}

    @cached_property
    def finite(self) -> NDArray[np.float64]:
        """The values that are finite."""
        return self.values[np.isfinite(self.values)]

    @cached_property
    def steps(self) -> NDArray[np.float64]:
        """Differences of neighbouring values. Differences of whole numbers are exact, however large the numbers are."""
        if self.whole:
            numbers = [int(cell) for cell in self.cells if not is_missing(cell)]
            return np.array([b - a for a, b in pairwise(numbers)], dtype=np.float64)
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
        return self.kind == "number" and all(c.strip().lstrip("+-").isdigit() for c in self.cells if not is_missing(c))

    @property
    def constant(self) -> bool:
        """True if all values are the same."""
        return len(self.cells) > 2 and len(self.finite) > 0 and bool(np.ptp(self.finite) == 0)

    @cached_property
    def counts(self) -> bool:
        """True if the column only counts rows: whole numbers, each one more than the number before."""
        return self.whole and len(self.finite) > 1 and bool(np.all(self.steps == 1))

    @cached_property
    def rises(self) -> bool:
        """True if no value is less than the value before, and some are more."""
        steps = self.steps
        return self.kind == "number" and len(steps) > 0 and bool(np.all(steps >= 0) and np.any(steps > 0))


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
    if sum(is_number(cell, decimal) for cell in given) > 0.9 * len(given):
        return "number"
    return "text"


def split_unit(name: str) -> tuple[str, str]:
    """Split a column's name into the name without its unit, and the unit: ``x [mm]``, ``angle(deg)``, ``pos_x_mm``."""
    match = _BRACKETED.match(name)
    if match is not None and match[1] and not match[2].isdigit():
        return match[1], _plain_unit(match[2])
    match = _SUFFIX.match(name)
    if match is not None and not (match[2].lower() in ("m", "s") and len(match[1]) < 3):
        return match[1], _SUFFIX_UNITS.get(match[2].lower(), _plain_unit(match[2].lower()))
    return name, ""


def _plain_unit(text: str) -> str:
    """Return a unit in the spelling of schemas."""
    return "" if _NO_UNIT.match(text) else _SPELLED.get(text, text)

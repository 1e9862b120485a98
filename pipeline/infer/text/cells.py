"""Classifies a single cell of a table: a number, a time, a list, a missing value, a unit, or text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product

from vlapipe.pipeline.infer.lexicon import lexicon

__all__ = [
    "cell_score",
    "is_fortran_number",
    "is_list",
    "is_missing",
    "is_number",
    "is_time_text",
    "is_unit",
    "number_of",
    "words_of",
]

_NUMBER = {
    ".": re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\Z"),
    ",": re.compile(r"[+-]?(\d+(,\d+)?|,\d+)([eE][+-]?\d+)?\Z"),
}
_FORTRAN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[dD][+-]?\d+\Z")
_MISSING = {
    "",
    "nan",
    "na",
    "n/a",
    "#n/a",
    "null",
    "none",
    "nil",
    "(null)",
    "undefined",
    "n.a.",
    "?",
    "-",
    "--",
    "---",
    "inf",
    "+inf",
    "-inf",
    "infinity",
    "-infinity",
    "nat",
}
_TIME_TEXT = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d\d)|\d{1,2}[- ][A-Z][a-z]{2}[- ]\d{4})?"
    r"[T _]?\d{1,2}:\d{2}(:\d{2})?([.,]\d+)?"
    r" ?(Z|[+-]\d{2}:?\d{2}| ?UTC|[AP]M)?\Z"
    r"|\d{4}[-/.]\d{1,2}[-/.]\d{1,2}\Z"
)
_LIST = re.compile(r"[\[(]\s*[-+\d.,\seE]*[\])]\Z")
_UNIT = re.compile(
    r"[\[(]?\s*(s|sec|secs|seconds|ms|us|µs|ns|m|mm|cm|um|rad|deg|degrees|radians|°|[mck]?m/s(\^?2|²)?|(rad|deg|°)/s(\^?2|²)?"
    r"|[mk]?N|N[*·. ]?m+|m?A|m?V|W|Hz|kg|g|%|-|K|°C|bool|u?int\d*|float\d*|double|string)\s*[\])]?\Z"
)
_OTHER_DELIMITERS = re.compile(r"[;\t|,]")


def is_missing(cell: str) -> bool:
    """Return True if a cell says that there is no finite value."""
    return cell.strip().lower() in _MISSING


def is_number(cell: str, decimal: str = ".") -> bool:
    """Return True if a cell is a plain finite number."""
    return _NUMBER[decimal].match(cell.strip()) is not None


def is_fortran_number(cell: str) -> bool:
    """Return True if a cell is a Fortran number, with D for the exponent. No reader accepts such numbers."""
    return _FORTRAN.match(cell.strip()) is not None


def number_of(cell: str, decimal: str = ".") -> float:
    """Return the number that a cell holds, or NaN if the cell is not a number."""
    cell = cell.strip()
    if _NUMBER[decimal].match(cell) is None:
        return float("nan")
    return float(cell if decimal == "." else cell.replace(",", "."))


def words_of(cells: Iterable[str]) -> dict[str, int]:
    """Map each word to its number if the cells hold only the two words of one pair; otherwise return an empty dict.

    The keys are the words in each of the spellings (upper, capitalized, lower case) that occur.
    """
    seen = {cell.strip() for cell in cells}
    pairs = (pair for ones, zeros in lexicon().table("words").values() for pair in product(ones, zeros))
    pair = next((pair for pair in pairs if {word.lower() for word in seen} <= set(pair)), None)
    styles = [
        style for style in (str.upper, str.capitalize, str.lower) if {style(word.lower()) for word in seen} & seen
    ]
    words = {} if pair is None else {style(word): 1 - i for style in styles for i, word in enumerate(pair)}
    return words if seen <= set(words) else {}


def is_time_text(cell: str) -> bool:
    """Return True if a cell is a date, a time of day, or both."""
    return _TIME_TEXT.match(cell.strip()) is not None


def is_list(cell: str) -> bool:
    """Return True if a cell is a bracketed list of numbers."""
    return _LIST.match(cell.strip()) is not None


def is_unit(cell: str) -> bool:
    """Return True if a cell is a unit or the name of a type, as in the second line of a header."""
    return _UNIT.match(cell.strip()) is not None


def cell_score(cell: str, decimal: str) -> float:
    """Score how much a cell looks like data: 1 for a number, 0 for a cell that still contains another delimiter."""
    if is_number(cell, decimal) or is_time_text(cell) or is_list(cell):
        return 1.0
    if is_missing(cell):
        return 0.7
    if _OTHER_DELIMITERS.search(cell):
        return 0.0
    return 0.2 if " " in cell.strip() else 0.3

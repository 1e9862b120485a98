"""Classifies a single cell of a table: a number, a time, a list, a missing value, a unit, or text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import product

from vlapipe.pipeline.infer.lexicon import lexicon

__all__ = [
    "DATES_S",
    "THOUSANDS",
    "cell_score",
    "describes_column",
    "is_fortran_number",
    "is_list",
    "is_missing",
    "is_number",
    "is_summary",
    "is_time_text",
    "is_unit",
    "kind_of_cell",
    "number_of",
    "without_groups",
    "words_of",
]

DATES_S = (9.4e8, 2.9e9)  # stamps in seconds since 1970: about the years 2000 to 2060
_NUMBER = {
    ".": re.compile(r"[+-]?(\d+(?:\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z"),
    ",": re.compile(r"[+-]?(\d+(,\d+)?|,\d+)([eE][+-]?\d+)?\Z"),
}
THOUSANDS = {  # numbers whose thousands are parted by a sign, by decimal and thousands sign; as the reader takes them
    (decimal, sign): re.compile(rf"[+-]?[1-9]\d{{0,2}}(?:[{sign}]\d{{3}})+(?:[{decimal}]\d*)?(?:[eE][+-]?\d+)?\Z")
    for decimal, sign in ((".", ","), (",", "."), *product(".,", (" ", "'", "\u00a0", "\u202f")))
}
_FORTRAN = re.compile(r"[+-]?(\d+(?:\.\d*)?|\.\d+)[dD][+-]?\d+\Z")
_TIME_TEXT = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d\d)|\d{1,2}[- ][A-Z][a-z]{2}[- ]\d{4})?"
    r"[T _]?\d{1,2}:\d{2}(:\d{2})?([.,]\d+)?"
    r" ?(Z|[+-]\d{2}:?\d{2}| ?UTC|[AP]M)?\Z"
    r"|\d{4}[-/.]\d{1,2}[-/.]\d{1,2}\Z"
)
_LIST = re.compile(r"[\[(]\s*[-+\d.,\seE]*[\])]\Z")
_SOME_NUMBER = r"[+-]?\d+(?:[.,]\d+)?"
_RANGE = re.compile(
    rf"[\[(]?\s*{_SOME_NUMBER}\s*(?:\.\.+|to|bis|[-/:;,~…|\u2013])\s*{_SOME_NUMBER}\s*[\])]?\Z|[<>≤≥±]=?\s*{_SOME_NUMBER}\Z"
)
_BRACKETS = "[](){}<> "
_BITS = re.compile(r"\d*(_t)?\Z")
_UNIT_PARTS = re.compile(r"[\s/*·⋅.^²³⁻¹()_+-]|\d+")
_OTHER_DELIMITERS = re.compile(r"[;\t|,]")
_MOST_DIGITS = 300  # a longer number is beyond float64


def is_missing(cell: str) -> bool:
    """Return True if a cell says that there is no finite value."""
    return cell.strip().lower() in lexicon().phrases("cells", "missing")


def is_number(cell: str, decimal: str = ".") -> bool:
    """Return True if a cell is a plain finite number."""
    return len(cell) < _MOST_DIGITS and _NUMBER[decimal].match(cell.strip()) is not None


def is_fortran_number(cell: str) -> bool:
    """Return True if a cell is a Fortran number, with D for the exponent. No reader accepts such numbers."""
    return _FORTRAN.match(cell.strip()) is not None


def without_groups(cell: str, decimal: str, thousands: str) -> str:
    """Return a number without its thousands signs, and any other cell as it is."""
    if not thousands or thousands not in cell or THOUSANDS[decimal, thousands].match(cell.strip()) is None:
        return cell
    return cell.strip().replace(thousands, "")


def number_of(cell: str, decimal: str = ".") -> float:
    """Return the number that a cell holds, or NaN if the cell holds none that a float64 can hold."""
    cell = cell.strip()
    if _NUMBER[decimal].match(cell) is None:
        return float("nan")
    number = float(cell if decimal == "." else cell.replace(",", "."))
    return number if math.isfinite(number) else float("nan")


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


def kind_of_cell(cell: str, decimal: str) -> str:
    """Return what kind of data a cell is (number, time or list), or an empty string."""
    if is_number(cell, decimal):
        return "number"
    return "time" if is_time_text(cell) else "list" if is_list(cell) else ""


def is_unit(cell: str) -> bool:
    """Return True if a cell is a unit that the lexicon's parts of units make up, such as ``[mm/s^2]``."""
    bare = cell.strip().strip(_BRACKETS)
    parts = [part if len(part) == 1 else part.lower() for part in _UNIT_PARTS.split(bare) if part]
    return bool(parts) and all(part in lexicon().phrases("cells", "units") for part in parts)


def describes_column(cell: str) -> bool:
    """Return True if a cell is a unit, the name of a type, or a range, as in a line below the names."""
    bare, cells = cell.strip().strip(_BRACKETS).lower(), lexicon().table("cells")
    if not bare.strip("-=_.*") or bare in cells["no_unit"] or _BITS.sub("", bare) in cells["types"]:
        return bool(cell.strip())
    return _RANGE.match(bare) is not None or is_unit(cell)


def is_summary(cell: str) -> bool:
    """Return True if a cell says that its line sums up rows, such as ``Total`` or ``max``."""
    return cell.strip().strip(":=").strip().lower() in lexicon().phrases("cells", "summaries")


def cell_score(cell: str, decimal: str) -> float:
    """Score how much a cell looks like data: 1 for a number, 0 for a cell that still contains another delimiter."""
    if kind_of_cell(cell, decimal):
        return 1.0
    if is_missing(cell):
        return 0.7
    if _OTHER_DELIMITERS.search(cell):
        return 0.0
    return 0.2 if " " in cell.strip() else 0.3

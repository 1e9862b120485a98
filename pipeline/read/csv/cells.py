"""Parses cells into numbers: all columns in one pass if pyarrow can, else column by column from the cells' text.

Either way, the result is the correctly rounded value of the printed number. A cell that is not a number is reported
with its line, and so is each value that is not finite or out of range.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vlapipe.pipeline.read.csv.columns import Column
from vlapipe.pipeline.read.csv.faulty_rows import FaultyRows
from vlapipe.pipeline.read.csv.rows import CsvRows
from vlapipe.pipeline.shards.arrow_numpy import as_numpy
from vlapipe.schemas.findings import Findings

__all__ = ["Cells", "Extremes", "are_numbers", "cast_numbers", "first_rows", "fit_whole", "hex_values"]

_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_NOT_FINITE = r"(?i)^[+-]?(nan|inf|infinity)$"
_INFINITE = r"(?i)\binf(inity)?\b"  # within a cell, because the cell may be a list
_HEX = r"^(0[xX])?[0-9a-fA-F]{1,16}$"
_WHOLE = r"^[+-]?\d+(\.0*)?$"
_BLANKS = " \t"
_ALL_WHOLE = 1 << 24  # float32 holds every whole number up to this one
_ALL_WHOLE_64 = 1 << 53  # float64 holds every whole number up to this one
_NARROW = 64  # values are coarse if they vary by less than 1/64 of their size: by 5 at 308, or 0.7 degrees at 47
_MOST_TOLD = 1000  # of the faults that are told row by row, so many have their cell's text
_SHOWN = 60  # characters of a cell that a finding shows


def first_rows(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Returns the first marked row and the number of marked rows."""
    return int(np.argmax(mask)), int(np.count_nonzero(mask))


class Cells:
    """The cells of some columns of a file, by the columns' positions."""

    def __init__(
        self,
        rows: CsvRows,
        types: Mapping[int, set[str]],
        missing: tuple[str, ...],
        decimal: str,
        findings: Findings,
        *,
        nulls: bool,
        faulty: FaultyRows | None = None,
        thousands: str = "",
    ) -> None:
        """Parses the columns.

        Args:
            rows: the file's rows.
            types: for each position, the dtypes that will be asked for; ``"text"`` is one of them.
            missing: the texts that mean that a cell has no value.
            decimal: the decimal sign.
            findings: collects the faults.
            nulls: whether cells without a value are expected.
            faulty: collects the faults of rows that it takes, instead of ``findings``.
            thousands: the sign that parts groups of three digits, or an empty string.

        Raises:
            UnreadableError: the text cannot be read for certain.
        """
        self._thousands = thousands
        self._rows, self._decimal, self.findings, self.faulty = rows, decimal, findings, faulty or FaultyRows()
        self._bad: dict[int | None, NDArray[np.bool_]] = {}
        self._missing = tuple(dict.fromkeys(text.strip(_BLANKS) for text in missing))
        self._numeric_missing = [value for text in self._missing if (value := self._as_float(text)) is not None]
        # pyarrow reads 0x10 as a whole number; vlapipe does not.
        hexadecimal = any("int" in dtype for wanted in types.values() for dtype in wanted) and rows.holds(b"0x", b"0X")
        arrow: dict[int, pa.DataType] = {}
        for position, wanted in types.items():
            dtype = next(iter(wanted))
            plain = len(wanted) == 1 and dtype != "text" and not (hexadecimal and "int" in dtype)
            arrow[position] = pa.from_numpy_dtype(np.dtype(dtype)) if plain else pa.string()
        try:
            # If no missing cell is expected, such a cell makes this parse fail and is then reported from its text.
            null_values = self._missing if nulls or self._missing != ("",) else ()
            self._parsed = rows.parse(arrow, null_values)
        except pa.ArrowInvalid:
            self._parsed = rows.strings(list(types))
        self.num_rows = int(self._parsed.num_rows)

    @property
    def label(self) -> str:
        """Returns the file's name in findings."""
        return self._rows.label

    def texts(self, column: Column) -> tuple[pa.Array, NDArray[np.bool_] | None]:
        """Returns a column's cells as printed, and a mask of the cells without a value (``None`` if there are none)."""
        cells = self._strings(column)
        return cells, self._missing_among(pc.utf8_trim(cells, _BLANKS))

    def numbers(
        self, column: Column, dtype: str, *, code: str = "csv.not_a_number", expected: str = ""
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Returns a column's numbers and a mask of the rows without one.

        Cells that are no number are reported and count as rows without one.
        """
        cells = self._parsed.column(str(column.position))
        if not pa.types.is_string(cells.type):
            missing = as_numpy(pc.is_null(cells)) if cells.null_count else None
            values = as_numpy(pc.fill_null(cells, 0) if cells.null_count else cells)
            if not self._may_be_missing(values):
                return values, missing
        return self.numbers_of(self._strings(column), column, dtype, code=code, expected=expected)

    def numbers_of(
        self, cells: pa.Array, column: Column, dtype: str, *, code: str = "csv.not_a_number", expected: str = ""
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Does the same as ``numbers`` from text; ``cells`` has one entry per row of the file."""
        whole = "int" in dtype
        expected = expected or ("a whole number" if whole else "a number")
        trimmed = pc.utf8_trim(cells, _BLANKS)
        missing = self._missing_among(trimmed)
        plain = self._point(trimmed)
        bad = ~are_numbers(plain, dtype)
        if missing is not None:
            bad &= ~missing
        self._report_bad(bad, trimmed, column, code, expected)
        unset = bad if missing is None else bad | missing
        if unset.any():
            plain = pc.if_else(pa.array(unset), "0", plain)
        values, outside = cast_numbers(plain, dtype)
        if outside.any():
            limits = np.iinfo(dtype)
            self._add(code, outside, column, f"{expected} from {limits.min} to {limits.max}")
            unset = unset | outside
        if (wrong := bad | outside).any():
            self._bad[column.position] = wrong
        return values, unset if unset.any() else None

    def numbers_of_hex(self, column: Column, dtype: str) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Returns the whole number that each cell's hexadecimal digits are, and a mask of the rows without one."""
        trimmed = pc.utf8_trim(self._strings(column), _BLANKS)
        missing = self._missing_among(trimmed)
        whole, good = hex_values(trimmed)
        bad = ~good if missing is None else ~good & ~missing
        expected = "a hexadecimal number of up to 16 digits"
        self._report_bad(bad, trimmed, column, "csv.not_a_number", expected)
        values, outside = fit_whole(whole, dtype)
        if "int" in dtype:
            self._add("csv.not_a_number", outside, column, f"{expected} that {dtype} can hold")
        else:
            self._add("csv.whole_rounded", outside, column, f"a number that {dtype} holds to the last digit")
        if (wrong := bad | outside).any():
            self._bad[column.position] = wrong
        unset = wrong if missing is None else wrong | missing
        return values, unset if unset.any() else None

    def numbers_of_words(
        self, column: Column, words: tuple[tuple[str, float], ...]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
        """Returns the number of each cell's word, and a mask of the rows without one. Unknown words are reported."""
        trimmed = pc.utf8_trim(self._strings(column), _BLANKS)
        missing = self._missing_among(trimmed)
        known = pa.array([word for word, _ in words], pa.string())
        place = pc.fill_null(pc.index_in(trimmed, value_set=known), -1).to_numpy(zero_copy_only=False)
        bad = place < 0 if missing is None else (place < 0) & ~missing
        empty = bad & pc.equal(trimmed, "").to_numpy(zero_copy_only=False)
        expected = " or ".join(word for word, _ in words)
        self.report_bad("csv.missing_value", empty, column, expected)
        self.report_bad("csv.unknown_word", bad & ~empty, column, expected)
        values = np.array([value for _, value in words])[place]
        unset = bad if missing is None else bad | missing
        return values, unset if unset.any() else None

    def check_values(
        self,
        values: NDArray[Any],
        unset: NDArray[np.bool_] | None,
        limits: tuple[float, float] | None,
        column: Column,
        unit: str,
    ) -> None:
        """Reports values that are not finite or out of range; rows marked in ``unset`` have no value."""
        low, high = limits or (-math.inf, math.inf)
        if values.dtype.kind == "f":
            self._check_whole(values, unset, column)
        not_finite = ~np.isfinite(values)
        with np.errstate(invalid="ignore"):
            outside = ~((values >= low) & (values <= high)) & ~not_finite
        if unset is not None:
            not_finite &= ~unset
            outside &= ~unset
        wanted = f"{unit or 'a number'} in [{low:g}, {high:g}]" if limits else unit or "a finite number"
        if not_finite.any():
            # Text such as 1e39 is a number, but float32 cannot hold it.
            huge = self._is_printed_finite(column, not_finite & ~np.isnan(values))
            self._add("csv.not_finite", not_finite & ~huge, column, wanted)
            self._add("csv.out_of_range", huge, column, f"{unit or 'a number'} that {values.dtype} can hold")
        self._add("csv.out_of_range", outside, column, wanted)

    def check_rounding(self, values: NDArray[np.float32], column: Column) -> None:
        """Reports neighbouring cells that differ although float32 stores one number for both.

        The text is read only if two neighbouring values are equal.
        """
        same = values[1:] == values[:-1]
        if not same.any():
            return
        texts = self._point(pc.utf8_trim(self._strings(column), _BLANKS))
        exact, _ = cast_numbers(pc.if_else(pa.array(are_numbers(texts, "float64")), texts, "0"), "float64")
        lost = np.zeros(len(values), dtype=np.bool_)
        lost[1:] = same & (exact[1:] != exact[:-1])
        self._add("csv.rounded", lost, column, "another number than in the row before")

    def _check_whole(self, values: NDArray[Any], unset: NDArray[np.bool_] | None, column: Column) -> None:
        """Reports whole numbers that a float cannot hold to the last digit: counts, identifiers, stamps."""
        with np.errstate(invalid="ignore"):
            large = (np.abs(values) >= _ALL_WHOLE_64) & np.isfinite(values)
        rows = np.flatnonzero(large if unset is None else large & ~unset)
        if not len(rows):
            return
        texts = self._point(pc.utf8_trim(self._strings(column).take(pa.array(rows)), _BLANKS))
        whole = pc.match_substring_regex(texts, r"^[+-]?\d+$").to_pylist()
        lost = np.zeros(len(values), dtype=np.bool_)
        lost[rows] = [
            yes and Decimal(text) != Decimal(str(value))
            for yes, text, value in zip(whole, texts.to_pylist(), values[rows], strict=True)
        ]
        self._add("csv.whole_rounded", lost, column, f"a number that {values.dtype} holds to the last digit")

    def with_point(self, cells: pa.Array) -> pa.Array:
        """Returns the texts with a decimal point instead of the file's decimal sign, and without thousands signs."""
        return self._point(cells)

    def without_bad(self, unset: NDArray[np.bool_], column: Column) -> NDArray[np.bool_]:
        """Returns which rows in ``unset`` are missing rather than wrong; wrong cells were reported before."""
        bad = self._bad.get(column.position)
        return unset if bad is None else unset & ~bad

    def report_bad(self, code: str, mask: NDArray[np.bool_], column: Column, expected: str) -> None:
        """Reports cells that are wrong, and remembers that they are not missing."""
        before = self._bad.get(column.position)
        self._bad[column.position] = mask if before is None else before | mask
        self._add(code, mask, column, expected)

    def report(self, code: str, mask: NDArray[np.bool_], column: Column, expected: str, found: str = "") -> None:
        """Reports the first marked row and the count, if any row is marked. ``found`` defaults to the cell's text."""
        self._add(code, mask, column, expected, found)

    def _add(self, code: str, mask: NDArray[np.bool_], column: Column, expected: str, found: str = "") -> None:
        if not mask.any():
            return
        if self.faulty.takes(code, self.findings):
            marked = np.flatnonzero(mask)
            told = [found or _shown(self._cell(column, row)) for row in marked[:_MOST_TOLD].tolist()]
            self.faulty.add(code, self.label, column.name, expected, marked, self._rows.lines_of(marked), told)
            return
        row, count = first_rows(mask)
        self.findings.add(
            code,
            self.label,
            line=self._rows.line_of(row),
            column=column.name,
            expected=expected,
            found=found or _shown(self._cell(column, row)),
            count=count,
        )

    def _cell(self, column: Column, row: int) -> str:
        assert column.position is not None
        return self._rows.cell(column.position, row)

    def _is_printed_finite(self, column: Column, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        words = pc.match_substring_regex(self._strings(column), _INFINITE)
        return np.asarray(mask & ~words.to_numpy(zero_copy_only=False))

    def _strings(self, column: Column) -> pa.Array:
        cells = self._parsed.column(str(column.position))
        if not pa.types.is_string(cells.type):
            cells = self._rows.strings([column.position]).column(0) if column.position is not None else cells
        return cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells

    def _missing_among(self, trimmed: pa.Array) -> NDArray[np.bool_] | None:
        found: NDArray[np.bool_] = pc.is_in(trimmed, value_set=pa.array(self._missing, pa.string())).to_numpy(
            zero_copy_only=False
        )
        return found if found.any() else None

    def _point(self, trimmed: pa.Array) -> pa.Array:
        """Takes out thousands signs and replaces the decimal sign by a point.

        A text becomes no number if its groups have not three digits each, or if it has a point beside a decimal comma.
        """
        if self._thousands:
            sign = f"[{self._thousands}]"
            grouped = pc.match_substring_regex(
                trimmed, rf"^[+-]?[1-9][0-9]{{0,2}}({sign}[0-9]{{3}})+([{self._decimal}eE]|$)"
            )
            trimmed = pc.if_else(grouped, pc.replace_substring(trimmed, self._thousands, ""), trimmed)
        if self._decimal == ".":
            return trimmed
        return pc.replace_substring(pc.replace_substring(trimmed, ".", "?"), ",", ".")

    def _as_float(self, text: str) -> float | None:
        try:
            return float(text.replace(self._decimal, "."))
        except ValueError:
            return None

    def _may_be_missing(self, values: NDArray[Any]) -> bool:
        """Returns whether a value equals a number that means missing: pyarrow overlooks such a cell if it is padded."""
        return any(
            bool(np.isnan(values).any() if math.isnan(number) else (values == number).any())
            for number in self._numeric_missing
        )

    def _report_bad(self, bad: NDArray[np.bool_], trimmed: pa.Array, column: Column, code: str, expected: str) -> None:
        if not bad.any():
            return
        empty = bad & pc.equal(trimmed, "").to_numpy(zero_copy_only=False)
        self._add("csv.missing_value", empty, column, expected, "an empty cell")
        self._add(code, bad & ~empty, column, expected)


@dataclass(frozen=True)
class Extremes:
    """The lowest and highest value of each column, ``(columns,)`` float64; both are NaN if any value is NaN."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    are_floats: bool

    @classmethod
    def of(cls, block: NDArray[Any]) -> Extremes:
        """Returns the extremes of ``block``, ``(columns, rows)`` with at least one row."""
        low, high = block.min(axis=1), block.max(axis=1)
        return cls(low.astype(np.float64), high.astype(np.float64), block.dtype.kind == "f")

    def are_within(self, limits: tuple[float, float] | None) -> bool:
        """Returns whether all values are finite and within ``limits``, and no float is too large to keep all digits."""
        if self.are_floats and max(-self.low.min(), self.high.max()) >= _ALL_WHOLE_64:
            return False
        if limits is None:
            return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())
        return bool((self.low >= limits[0]).all() and (self.high <= limits[1]).all())

    def coarse_columns(self) -> list[int]:
        """Returns columns that vary little for float32's precision, so that neighbours may be rounded to one number."""
        with np.errstate(invalid="ignore"):
            largest = np.maximum(np.abs(self.low), np.abs(self.high))
            coarse = (largest >= _ALL_WHOLE) | (self.high - self.low < largest / _NARROW)
        return np.flatnonzero(coarse & np.isfinite(largest) & (largest > 0)).tolist()


def are_numbers(texts: pa.Array, dtype: str) -> NDArray[np.bool_]:
    """Returns a mask of the texts that are numbers of this dtype. For floats, NaN and infinity count as numbers."""
    if "int" in dtype:
        found = pc.match_substring_regex(texts, _WHOLE)
    else:
        found = pc.or_(pc.match_substring_regex(texts, _NUMBER), pc.match_substring_regex(texts, _NOT_FINITE))
    return np.asarray(found.to_numpy(zero_copy_only=False))


def cast_numbers(texts: pa.Array, dtype: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Returns the numbers ``(texts,)`` and a mask of those that the dtype cannot hold, which are replaced by 0."""
    plain = pc.utf8_ltrim(texts, "+")
    if "int" in dtype:
        plain = pc.replace_substring_regex(plain, r"\.0*$", "")
    outside = np.zeros(len(plain), dtype=np.bool_)
    try:
        return pc.cast(plain, pa.from_numpy_dtype(np.dtype(dtype))).to_numpy(zero_copy_only=False), outside
    except pa.ArrowInvalid:
        pass
    words: Iterable[str] = plain.to_pylist()
    if "int" not in dtype:
        with np.errstate(over="ignore"):
            return np.array([float(word) for word in words]).astype(dtype), outside
    limits = np.iinfo(dtype)
    numbers = [int(word) if len(word) < _SHOWN else limits.max + 1 for word in words]
    outside = np.array([not limits.min <= number <= limits.max for number in numbers])
    return np.array([0 if out else n for n, out in zip(numbers, outside, strict=True)], dtype=dtype), outside


def hex_values(texts: pa.Array) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Returns the whole numbers that texts such as ``0x1A`` or ``1a`` are, and a mask of the texts that are such."""
    good = np.asarray(pc.match_substring_regex(texts, _HEX).to_numpy(zero_copy_only=False))
    digits = pc.replace_substring_regex(texts, r"^0[xX]", "")
    digits = digits if good.all() else pc.if_else(pa.array(good), digits, "0")
    numbers = pc.cast(pc.binary_join_element_wise("0x", digits, ""), pa.uint64())
    return numbers.to_numpy(zero_copy_only=False), good


def fit_whole(numbers: NDArray[np.uint64], dtype: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Returns whole numbers as ``dtype`` and a mask of those that it cannot hold exactly, which are replaced by 0."""
    if "int" in dtype:
        outside = numbers > np.uint64(np.iinfo(dtype).max)
        return np.where(outside, np.uint64(0), numbers).astype(dtype), outside
    values = numbers.astype(dtype)
    largest = values >= 2.0**64  # rounded up, which no cast leads back from
    outside = largest | (np.where(largest, 0, values).astype(np.uint64) != numbers)
    return values, outside & (numbers > 0)


def _shown(cell: str) -> str:
    return repr(cell if len(cell) <= _SHOWN else cell[:_SHOWN] + "...")

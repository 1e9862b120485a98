"""Builds a stream's fields from the cells of a file: missing values, lists, texts, units, rotations.

Rows keep their number in the file until it is known which rows are dropped, so that every finding has its line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vlapipe.pipeline.read.convert import convert, is_converted
from vlapipe.pipeline.read.csv.cells import (
    Cells,
    Extremes,
    are_numbers,
    cast_numbers,
    first_rows,
    fit_whole,
    hex_values,
)
from vlapipe.pipeline.read.csv.columns import Column
from vlapipe.pipeline.read.csv.rows import CsvRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import FieldSpec

__all__ = ["RawField", "build_fields", "field_dtype", "kept_rows", "read_field"]

_Mask = NDArray[np.bool_]
_SHORTEST = 1e-6  # a shorter quaternion has no direction
_MOST = float(np.finfo(np.float32).max)
_BRACKETS = r"^\s*(\[[^\[\](){}]*\]|\([^\[\](){}]*\)|\{[^\[\](){}]*\}|[^\[\](){}]*)\s*$"


@dataclass(frozen=True, kw_only=True)
class RawField:
    """A field's numbers as the file has them, ``values[i]`` for column ``i``; a text field has bytes ``(rows, width)``.

    ``unset[i]`` marks the rows of column ``i`` without a value; ``None`` means that every row has a value. If the
    columns are numbers, ``block`` is one contiguous array ``(columns, rows)``, ``values`` are views of it, and
    ``extremes`` belong to it.
    """

    spec: FieldSpec
    columns: list[Column]
    values: list[NDArray[Any]]
    unset: list[_Mask | None]
    absent: list[bool] = field(default_factory=list)
    block: NDArray[Any] | None = None
    extremes: Extremes | None = None

    @property
    def is_clean(self) -> bool:
        """Returns whether every value is present, finite and within the field's range."""
        if self.extremes is None or any(unset is not None for unset in self.unset):
            return False
        return self.extremes.are_within(self.spec.range)


def field_dtype(spec: FieldSpec) -> str:
    """Returns the dtype that the cells of a field are parsed as: float64 before a conversion, to round only once."""
    if spec.text or spec.words or spec.hexadecimal or spec.cells == "list":
        return "text"
    return _block_dtype(spec)


def _block_dtype(spec: FieldSpec) -> str:
    return "float64" if is_converted(spec) else spec.dtype


def read_field(cells: Cells, spec: FieldSpec, columns: list[Column]) -> RawField:
    """Reads the columns of a field. A missing cell is marked; a cell that is wrong is reported."""
    absent = [column.position is None for column in columns]
    if (spec.text or spec.cells == "list") and absent[0]:
        none = np.ones(cells.num_rows, dtype=np.bool_)
        width = (cells.num_rows, *spec.shape) if spec.text else cells.num_rows
        count = 1 if spec.text else spec.num_columns
        values: list[NDArray[Any]] = [np.zeros(width, dtype=spec.dtype)] * count
        return RawField(spec=spec, columns=columns, values=values, unset=[none] * count, absent=[True] * count)
    if spec.text:
        text, missing = _read_text(cells, spec, columns[0])
        if spec.may_be_blank and missing is not None:
            text[missing] = 0
            missing = None
        return RawField(spec=spec, columns=columns, values=[text], unset=[missing], absent=absent)
    if spec.cells == "list":
        numbers, missing = _read_list(cells, spec, columns[0])
        count = len(numbers)
        return RawField(spec=spec, columns=columns, values=numbers, unset=[missing] * count, absent=absent * count)
    block = np.zeros((len(columns), cells.num_rows), dtype=_block_dtype(spec))
    unset: list[_Mask | None] = []
    for row, column, is_absent in zip(block, columns, absent, strict=True):
        if is_absent:
            unset.append(np.ones(cells.num_rows, dtype=np.bool_))
        elif spec.words:
            row[:], unset_here = cells.numbers_of_words(column, spec.words)
            unset.append(unset_here)
        elif spec.hexadecimal:
            row[:], unset_here = cells.numbers_of_hex(column, _block_dtype(spec))
            unset.append(unset_here)
        else:
            row[:], unset_here = cells.numbers(column, field_dtype(spec))
            unset.append(unset_here)
    # All columns in one call: an episode's column is short, and a NumPy call takes as long as a thousand values.
    extremes = Extremes.of(block) if cells.num_rows else None
    if extremes is not None and block.dtype == np.float32 and not (spec.words or spec.hexadecimal):
        for i in extremes.coarse_columns():
            cells.check_rounding(block[i], columns[i])
    return RawField(
        spec=spec, columns=columns, values=list(block), unset=unset, absent=absent, block=block, extremes=extremes
    )


def _read_text(cells: Cells, spec: FieldSpec, column: Column) -> tuple[NDArray[np.uint8], _Mask | None]:
    texts, missing = cells.texts(column)
    width = spec.shape[0]
    lengths = pc.binary_length(texts).to_numpy(zero_copy_only=False)
    cells.report("csv.text_too_long", lengths > width, column, f"at most {width} bytes")
    out = np.zeros((width, len(texts)), dtype=np.uint8).T  # column-major in memory, like all fields
    fits = np.minimum(lengths, width)
    # The texts are laid end to end; they fill the marked bytes row after row.
    places = np.arange(width) < fits[:, None]
    whole = b"".join(text[:width] for text in texts.cast(pa.binary()).to_pylist())
    out[places] = np.frombuffer(whole, dtype=np.uint8)
    return out, missing


def _read_list(cells: Cells, spec: FieldSpec, column: Column) -> tuple[list[NDArray[Any]], _Mask | None]:
    """Returns one column of numbers for each position in the lists."""
    texts, missing = cells.texts(column)
    num_rows, count = len(texts), spec.num_columns
    bare = pc.utf8_trim(texts, " \t\r\n[](){}")
    items = pc.split_pattern_regex(bare, r"\s*[,;]\s*|\s+")
    lengths = pc.list_value_length(items).to_numpy(zero_copy_only=False)
    framed = pc.match_substring_regex(texts, _BRACKETS).to_numpy(zero_copy_only=False)
    good = framed & (lengths == count)
    flat = pc.list_flatten(items)
    owner = np.repeat(np.arange(num_rows), lengths)
    dtype = "float64" if is_converted(spec) else spec.dtype
    if spec.hexadecimal:
        hex_numbers, is_hex = hex_values(flat)
        good[owner[~is_hex]] = False
    else:
        good[owner[~are_numbers(flat, dtype)]] = False
    set_rows = np.ones(num_rows, dtype=np.bool_) if missing is None else ~missing
    kind = "hexadecimal " if spec.hexadecimal else "whole " if "int" in dtype else ""
    cells.report_bad("csv.not_a_list", set_rows & ~good, column, f"a list of {count} {kind}numbers")
    usable = good & set_rows
    if spec.hexadecimal:
        numbers, outside = fit_whole(hex_numbers[usable[owner]], dtype)
    else:
        numbers, outside = cast_numbers(pc.filter(flat, pa.array(usable[owner])), dtype)
    by_column = np.zeros((count, num_rows), dtype=dtype)
    by_column[:, usable] = numbers.reshape(-1, count).T
    too_large = np.zeros(num_rows, dtype=np.bool_)
    too_large[usable] = outside.reshape(-1, count).any(axis=1)
    cells.report_bad("csv.not_a_list", too_large, column, f"a list of {count} numbers that {dtype} can hold")
    return list(by_column), None if usable.all() else ~usable


def kept_rows(fields: list[RawField], cells: Cells, rows: CsvRows, findings: Findings) -> NDArray[np.int64] | None:
    """Returns the rows to keep, ``None`` for all. With ``on_missing = "drop"``, rows without a value are dropped.

    Rows that are known to be faulty are kept: they are dealt with later.
    """
    drop = np.zeros(cells.num_rows, dtype=np.bool_)
    for raw in fields:
        for unset, absent in zip(raw.unset, raw.absent, strict=True):
            if unset is not None and raw.spec.on_missing == "drop" and not absent:
                drop |= unset
    if cells.faulty.faults:
        drop &= ~cells.faulty.rows(cells.num_rows)
    if not drop.any():
        return None
    row, count = first_rows(drop)
    findings.add("csv.rows_dropped", rows.label, line=rows.line_of(row), found="a row without a value", count=count)
    return np.flatnonzero(~drop)


def build_fields(fields: list[RawField], kept: NDArray[np.int64] | None, cells: Cells) -> dict[str, NDArray[Any]]:
    """Returns each field ``(rows, ...)`` as it is stored, and its mask if it has one; only the rows ``kept``."""
    arrays: dict[str, NDArray[Any]] = {}
    for raw in fields:
        if raw.block is not None and kept is None and raw.is_clean and not is_converted(raw.spec):
            array, unset = _shaped(raw.block, raw.spec), raw.unset  # the usual case: nothing to report, fill or convert
        else:
            array, unset = _build(raw, kept, cells)
        arrays[raw.spec.name] = array
        if raw.spec.mask is not None:
            arrays[raw.spec.mask.name] = _mask_array(raw.spec, unset, len(array))
    return arrays


def _build(raw: RawField, kept: NDArray[np.int64] | None, cells: Cells) -> tuple[NDArray[Any], list[_Mask | None]]:
    """Returns one field, and for each column a mask of the rows that had no value."""
    columns = raw.columns if len(raw.columns) == len(raw.values) else raw.columns * len(raw.values)
    settled = [_settle(raw, i, column, kept, cells) for i, column in enumerate(columns)]
    values, unset = [filled for filled, _ in settled], [mask for _, mask in settled]
    return np.asfortranarray(values[0]) if raw.spec.text else _store(raw, values, unset, kept, cells), unset


def _shaped(block: NDArray[Any], spec: FieldSpec) -> NDArray[Any]:
    """Turns ``(columns, rows)`` into the stored shape: ``(rows, columns)``, column-major, or ``(rows,)``. A view."""
    return block.T if spec.shape else block[0]


def _settle(
    raw: RawField, index: int, column: Column, kept: NDArray[np.int64] | None, cells: Cells
) -> tuple[NDArray[Any], _Mask | None]:
    """Checks one column. Returns its kept rows with missing values filled, and the mask of the missing values."""
    spec, values, unset = raw.spec, raw.values[index], raw.unset[index]
    dropped = None
    if kept is not None:
        dropped = np.ones(len(values), dtype=np.bool_)
        dropped[kept] = False
    if unset is not None and not raw.absent[index]:
        here = unset if dropped is None else unset & ~dropped
        if spec.on_missing == "refuse":
            missing = cells.without_bad(here, column)
            cells.report("csv.missing_value", missing, column, spec.file_unit[index] if spec.file_unit else "a value")
        elif spec.on_missing == "mask" and (index == 0 or len(raw.columns) > 1):
            cells.report("csv.values_masked", here, column, "")
    ignored = dropped if unset is None else unset if dropped is None else unset | dropped
    if not spec.text and not raw.absent[index]:
        unit = spec.file_unit[index] if spec.file_unit else ""
        cells.check_values(values, ignored, spec.range, column, unit)
    if kept is not None:
        values = values[kept]
        unset = None if unset is None else unset[kept]
    return values if unset is None else _fill(values, unset), unset


def _fill(values: NDArray[Any], unset: _Mask) -> NDArray[Any]:
    """Fills missing values with the last value before; before the first value with that one; without any with 0."""
    if not unset.any():
        return values
    present = np.flatnonzero(~unset)
    if not len(present):
        return np.zeros_like(values)
    source = np.where(unset, present[0], np.arange(len(values)))
    filled: NDArray[Any] = values[np.maximum.accumulate(source)]
    return filled


def _store(
    raw: RawField,
    values: list[NDArray[Any]],
    unset: list[_Mask | None],
    kept: NDArray[np.int64] | None,
    cells: Cells,
) -> NDArray[Any]:
    """Converts the columns, rounds them once, and puts them side by side in column-major order."""
    spec = raw.spec
    if spec.normalize:
        _check_lengths(raw, values, unset, kept, cells)
    # Values that are not finite or too large are reported elsewhere.
    with np.errstate(over="ignore", invalid="ignore"):
        stored = convert(values, spec) if is_converted(spec) else values
        by_column = np.empty((len(stored), len(stored[0])), dtype=spec.dtype)
        for i, column in enumerate(stored):
            by_column[i] = column
    if by_column.dtype.kind == "f":
        for i, column in enumerate(stored):
            # Checked for float64 fields too, because actions, statistics and batches are float32.
            lost = np.isfinite(column) & ~(np.abs(by_column[i]) <= _MOST)
            if spec.range and not is_converted(spec):
                lost &= (column >= spec.range[0]) & (column <= spec.range[1])  # values out of range were reported
            named = raw.columns[i] if len(raw.columns) == len(stored) else raw.columns[0]
            cells.report("csv.out_of_range", _in_file(lost, kept, cells), named, "a value that float32 can hold")
    return _shaped(by_column, spec)


def _check_lengths(
    raw: RawField,
    values: list[NDArray[Any]],
    unset: list[_Mask | None],
    kept: NDArray[np.int64] | None,
    cells: Cells,
) -> None:
    with np.errstate(over="ignore"):
        length = np.sqrt(sum(column.astype(np.float64) ** 2 for column in values))
    short = length < _SHORTEST
    for mask in unset:
        if mask is not None:
            short &= ~mask
    names = Column(", ".join(column.name for column in raw.columns), raw.columns[0].position)
    found = f"length {length[np.argmax(short)]:.3g}" if short.any() else ""
    cells.report("pose.not_unit", _in_file(short, kept, cells), names, "a quaternion that has a direction", found)


def _in_file(mask: _Mask, kept: NDArray[np.int64] | None, cells: Cells) -> _Mask:
    """Expands a mask of kept rows to a mask of all rows of the file."""
    if kept is None:
        return mask
    whole = np.zeros(cells.num_rows, dtype=np.bool_)
    whole[kept] = mask
    return whole


def _mask_array(spec: FieldSpec, unset: list[_Mask | None], num_rows: int) -> NDArray[np.uint8]:
    """Returns a uint8 array of the field's shape, 1 where a value was missing, with columns in stored order."""
    if spec.quaternion == "wxyz":
        unset = [*unset[1:], unset[0]]
    width = spec.num_columns
    by_column = np.zeros((width, num_rows), dtype=np.uint8)
    for i in range(width):
        mask = unset[0] if len(unset) == 1 else unset[i]
        if mask is not None:
            by_column[i] = mask
    return _shaped(by_column, spec)

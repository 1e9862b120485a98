"""Reads the clock of a CSV stream from columns, row numbers or the file's name, without losing a digit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vlapipe.pipeline.read.clocks.stamps import (
    FarStampsError,
    clock_from_index,
    parse_stamp,
    scale_clock,
    shift_clock,
    stamp_text,
    start_of_file,
    wanted_stamp,
)
from vlapipe.pipeline.read.clocks.time_parts import (
    NANOSECONDS_A_DAY,
    days_since_1970,
    expected_part,
    is_part,
    time_of_day,
)
from vlapipe.pipeline.read.csv.cells import Cells
from vlapipe.pipeline.read.csv.columns import Column, StreamColumns
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ISO, TimePart, TimeSpec, TimeUnit

__all__ = ["clock_dtype", "read_clock"]

_Mask = NDArray[np.bool_]
_DIGITS = {
    "d": 11,
    "h": 11,
    "min": 10,
    "s": 9,
    "ms": 6,
    "us": 3,
    "ns": 0,
}  # digits that a stamp may have behind the decimal point
_DECIMAL = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?$"


def clock_dtype(time: TimeSpec) -> str:
    """Returns the dtype that the cells of a clock are parsed as."""
    if time.format or time.exact:
        return "text"
    return "int64" if time.integer or time.index_rate_hz else "float64"


def read_clock(
    cells: Cells,
    columns: StreamColumns,
    time: TimeSpec,
    kept: NDArray[np.int64] | None,
    findings: Findings,
    start_ns: int = 0,
) -> NDArray[Any] | None:
    """Returns a stamp for each kept row, or ``None`` if a stamp cannot be read, which is reported.

    If the clock is not in this file (``time.is_elsewhere``), the result is the number of each kept row in this file.
    """
    return _ClockReader(cells, time, kept, findings).read(columns, start_ns)


class _ClockReader:
    def __init__(self, cells: Cells, time: TimeSpec, kept: NDArray[np.int64] | None, findings: Findings) -> None:
        self.cells, self.time, self.findings = cells, time, findings
        self.kept = np.arange(cells.num_rows) if kept is None else kept
        self.is_whole = kept is None
        self.failed = False
        self.missing = np.zeros(cells.num_rows, dtype=np.bool_)

    def read(self, columns: StreamColumns, start_ns: int) -> NDArray[Any] | None:
        time, clock = self.time, columns.clock
        if time.is_elsewhere:
            return self.kept
        try:
            start = start_of_file(self.cells.label, time) if time.start_format else start_ns
        except ValueError as error:
            expected = f"a name like {time.start_format!r}"
            self.findings.add("csv.bad_time", self.cells.label, expected=expected, found=str(error))
            return None
        try:
            if time.index_rate_hz is not None:
                index = self.kept if clock is None else self._numbers(clock, "int64", "a whole number")
                timestamp: NDArray[Any] = clock_from_index(index, time.index_rate_hz)
            elif time.parts:
                timestamp = self._from_parts(columns.parts)
            else:
                assert clock is not None
                timestamp = self._formatted(clock, columns.plus) if time.format else self._sum(clock, columns.plus)
            return None if self.failed else shift_clock(timestamp, time, start)
        except FarStampsError as error:
            self._refuse_far(error, clock)
            return None
        except OverflowError as error:
            column = None if clock is None else clock.name
            self.findings.add("csv.bad_time", self.cells.label, column=column, found=str(error))
            return None

    def _refuse_far(self, error: FarStampsError, clock: Column | None) -> None:
        """Adds one finding at the first line that has such a stamp."""
        expected = wanted_stamp(self.time)
        if clock is None:
            self.findings.add("clock.unit", self.cells.label, expected=expected, found=str(error))
        else:
            self.cells.report("clock.unit", self._in_file(error.rows), clock, expected, str(error))

    def _from_parts(self, columns: tuple[Column, ...]) -> NDArray[np.int64]:
        parts: dict[TimePart, NDArray[np.float64]] = {}
        for (part, _), column in zip(self.time.parts, columns, strict=True):
            expected = expected_part(part)
            parts[part] = self._numbers(column, "float64", expected)
            self._refuse(self._in_file(~is_part(part, parts[part])), column, expected)
        if self.failed:
            return np.zeros(len(self.kept), dtype=np.int64)
        days = days_since_1970(parts)
        if days is None:
            return time_of_day(parts)
        column = columns[[part for part, _ in self.time.parts].index("day" if "day" in parts else "day_of_year")]
        self._refuse(self._in_file(days < 0), column, "a day that the month or year has")
        return days * NANOSECONDS_A_DAY + time_of_day(parts)

    def _sum(self, clock: Column, plus: Column | None) -> NDArray[Any]:
        first = self._read_one(clock, self.time.unit)
        if plus is None:
            return first
        second = self._read_one(plus, self.time.plus_unit)
        if first.dtype != np.int64:
            with np.errstate(invalid="ignore"):  # stamps that are not finite have been refused
                return np.asarray(first + second)
        total = first.astype(np.float64) + second
        if len(first) and np.abs(total).max() > 9.2e18:
            far = np.abs(total) > 9.2e18
            raise FarStampsError(far, float(total[far][0]) / 1e9, None)
        return np.asarray(first + second)

    def _read_one(self, column: Column, unit: TimeUnit) -> NDArray[Any]:
        if self.time.exact:
            return self._exact(column, unit)
        dtype = clock_dtype(self.time)
        values = self._numbers(column, dtype, f"{'whole ' * self.time.integer}{unit} as a number")
        return scale_clock(values, unit, integer=self.time.integer)

    def _numbers(self, column: Column, dtype: str, expected: str) -> NDArray[Any]:
        values, unset = self.cells.numbers(column, dtype, code="csv.bad_time", expected=expected)
        self._refuse_missing(unset, column)
        if dtype == "float64" and not np.isfinite(values).all():
            self._refuse(~np.isfinite(values), column, expected)
        return values if self.is_whole else values[self.kept]

    def _exact(self, column: Column, unit: TimeUnit) -> NDArray[np.int64]:
        """Parses decimal text as nanoseconds; pyarrow's decimal type keeps every digit."""
        texts = self._texts(column)
        digits = _DIGITS[unit]
        expected = f"{unit} as a decimal number with at most {digits} digits behind the point"
        decimals = pc.utf8_trim(self.cells.with_point(texts), " \t")
        good = pc.match_substring_regex(decimals, _DECIMAL).to_numpy(zero_copy_only=False)
        if good.all() and unit not in ("d", "h", "min"):  # whose nanoseconds are no power of ten
            try:
                return _unscaled(pc.cast(decimals, pa.decimal128(38, digits)), unit)
            except pa.ArrowInvalid:
                pass  # a cell has too many digits
        time = TimeSpec(unit=unit, exact=True)
        return self._one_by_one(column, decimals, lambda text: parse_stamp(text, time), expected)

    def _formatted(self, clock: Column, plus: Column | None) -> NDArray[np.int64]:
        texts = self._texts(clock)
        if plus is not None:
            texts = pc.binary_join_element_wise(texts, self._texts(plus), " ")
        texts = pc.utf8_trim(texts, " \t")
        form = self.time.format
        assert form is not None
        if form == ISO:
            for zone in (None, "UTC"):
                try:
                    return np.asarray(pc.cast(pc.cast(texts, pa.timestamp("ns", zone)), pa.int64()).to_numpy())
                except pa.ArrowInvalid:
                    continue  # time zones, another spelling or a fault: cells are parsed one by one below

        def parse(text: str) -> int | float:
            return parse_stamp(stamp_text(text, form), self.time)

        wanted = "a time as in ISO 8601" if form == ISO else wanted_stamp(self.time)
        return self._one_by_one(clock, texts, parse, wanted)

    def _one_by_one(self, column: Column, texts: pa.Array, parse: Any, expected: str) -> NDArray[np.int64]:
        stamps, bad = np.zeros(len(texts), dtype=np.int64), np.zeros(len(texts), dtype=np.bool_)
        far: list[tuple[int, FarStampsError]] = []
        for row, text in enumerate(texts.to_pylist()):
            try:
                stamps[row] = parse(text)
            except FarStampsError as error:
                far.append((row, error))
            except (ValueError, OverflowError):
                bad[row] = True
        self._refuse(self._in_file(bad), column, expected)
        if far and not bad.any():
            rows = np.zeros(len(texts), dtype=np.bool_)
            rows[[row for row, _ in far]] = True
            raise far[0][1].at(rows)
        return stamps

    def _texts(self, column: Column) -> pa.Array:
        texts, missing = self.cells.texts(column)
        self._refuse_missing(missing, column)
        return texts if self.is_whole else texts.take(pa.array(self.kept))

    def _in_file(self, mask: _Mask) -> _Mask:
        whole = np.zeros(self.cells.num_rows, dtype=np.bool_)
        whole[self.kept] = mask
        return whole

    def _refuse_missing(self, unset: _Mask | None, column: Column) -> None:
        if unset is not None:
            marked = self._in_file(unset[self.kept])
            self.missing |= marked
            self.failed |= bool(marked.any())
            self.cells.report("csv.missing_value", self.cells.without_bad(marked, column), column, "a time")

    def _refuse(self, bad: _Mask, column: Column, expected: str) -> None:
        bad = self._in_file(bad[self.kept]) & ~self.missing
        self.failed |= bool(bad.any())
        self.cells.report("csv.bad_time", bad, column, expected)


def _unscaled(decimals: pa.Array, unit: TimeUnit) -> NDArray[np.int64]:
    """Returns the integers in decimals of 128 bits, which are nanoseconds; ``unit`` is the unit of the text.

    Raises:
        FarStampsError: a stamp does not fit 64 bits.
    """
    words = np.frombuffer(decimals.buffers()[1], dtype="<i8", count=2 * len(decimals), offset=16 * decimals.offset)
    low, high = words[0::2], words[1::2]
    far = high != low >> 63
    if far.any():
        row = int(far.argmax())
        raise FarStampsError(far, (int(high[row]) * 2**64 + int(low[row]) % 2**64) / 1e9, unit)
    return np.ascontiguousarray(low)

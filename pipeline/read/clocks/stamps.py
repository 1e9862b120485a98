"""Reads stamps into int64 nanoseconds or float64 seconds. Stamps that are written exactly are kept exactly."""

from __future__ import annotations

import calendar
import re
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from vlapipe.schemas.schema import DURATION, ISO, NANOSECONDS, TimeSpec, TimeUnit

__all__ = [
    "FarStampsError",
    "clock_from_index",
    "clock_from_numbers",
    "parse_stamp",
    "scale_clock",
    "shift_clock",
    "stamp_text",
    "start_of_file",
    "wanted_stamp",
]

_WHOLE = re.compile(r"[+-]?\d+\Z")
_NUMBER = re.compile(r"[+-]?(\d+(?:\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z")
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s?(Z|[+-]\d\d(?::?\d\d)?)?)?\Z", re.ASCII
)
_DURATION = re.compile(
    r"(?:([+-]?\d{1,9}) days?,? ?)?\+?(?:(\d{1,9}):)?(\d{1,9}):(\d\d)(?:[.,:](\d{1,9}))?\Z", re.ASCII | re.IGNORECASE
)
_WITH_UNIT = re.compile(r"([+-]?\d{1,18}(?:[.,]\d{1,18})?) ?([a-zµμ]+)\Z", re.IGNORECASE)
_UNIT_WORDS: dict[str, TimeUnit] = {  # as MATLAB, Go and people write them behind a number
    **dict.fromkeys(("d", "day", "days"), "d"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "min"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "µs", "μs", "usec", "microseconds"), "us"),
    **dict.fromkeys(("ns", "nsec", "nanoseconds"), "ns"),
}
_FRACTION = re.compile(r"[.,:]%f")
_MAX_DIGITS = 64
_LONG_FRACTION = re.compile(r"(?<=[.,:_])(\d{6})(\d{1,3})(?!\d)", re.ASCII)
_DATED = re.compile(r"%[YyGcxsDF]")
_EPOCH_1900 = calendar.timegm((1900, 1, 1, 0, 0, 0)) * 1_000_000_000  # strptime puts a time without a date on this day
_LIMITS = np.iinfo(np.int64)
_SECOND = NANOSECONDS["s"]
_FAR_S = _LIMITS.max / 1e9  # 292 years from 1970
_UNITS: tuple[TimeUnit, ...] = get_args(TimeUnit)  # the longest first
_PLAUSIBLE_S = (631_152_000, 4_102_444_800)  # 1990 to 2100
_YEAR_S = 31_556_952


class FarStampsError(ValueError, OverflowError):
    """Stamps are further from 1970 than int64 nanoseconds reach. Usually such stamps are in another unit.

    Args:
        rows: which stamps are too far, ``(rows,)`` bool.
        seconds: the first such stamp, in seconds since 1970.
        unit: the unit that was assumed; ``None`` if no unit applies.
    """

    def __init__(self, rows: NDArray[np.bool_], seconds: float, unit: TimeUnit | None) -> None:
        super().__init__(rows, seconds, unit)

    @property
    def rows(self) -> NDArray[np.bool_]:
        """Returns a mask of the stamps that are too far."""
        far: NDArray[np.bool_] = self.args[0]
        return far

    def at(self, rows: NDArray[np.bool_]) -> FarStampsError:
        """Returns the same error for the rows of a whole column."""
        return FarStampsError(rows, *self.args[1:])

    def __str__(self) -> str:
        _, seconds, unit = self.args
        year = 1970 + seconds / _YEAR_S
        shown = f"{int(year // 1)}" if abs(year) < 1e10 else f"{year:.3g}"
        return f"stamps lie in the year {shown}{_likelier(seconds, unit)}"


def _likelier(seconds: float, unit: TimeUnit | None) -> str:
    """Returns, as a question, the finer unit in which the stamps would lie between 1990 and 2100."""
    for finer in _UNITS[_UNITS.index(unit) + 1 :] if unit else ():
        if _PLAUSIBLE_S[0] <= seconds * NANOSECONDS[finer] / NANOSECONDS[unit or finer] <= _PLAUSIBLE_S[1]:
            return f": {finer}?"
    return ""


def _require_near(values: NDArray[Any], nanoseconds: int, unit: TimeUnit | None) -> None:
    """Refuses stamps that int64 nanoseconds cannot hold; a value of 1 means ``nanoseconds`` nanoseconds."""
    if not len(values):
        return
    limit = _LIMITS.max // nanoseconds if values.dtype.kind in "iu" else _LIMITS.max / nanoseconds
    if max(abs(values.min().item()), abs(values.max().item())) <= limit:
        return
    far = (values > limit) | (values < -limit)
    if values.dtype.kind == "f":
        far &= np.isfinite(values)  # values that are not finite are refused elsewhere
    if far.any():
        raise FarStampsError(far, float(values[far][0]) * (nanoseconds / 1e9), unit)


def parse_stamp(text: str, time: TimeSpec) -> int | float:
    """Parses one stamp as the clock keeps it: int nanoseconds, or float seconds.

    Raises:
        ValueError: the text is not such a stamp.
        FarStampsError: the text is a number, but lies too far from 1970.
    """
    if time.format:
        if time.format == DURATION:
            return _within_64_bits(_parse_duration(text))
        return _within_64_bits(_parse_iso(text) if time.format == ISO else _parse_format(text, time.format))
    if time.integer:
        if not _WHOLE.match(text):
            raise ValueError(text)
        return _stamp_within_64_bits(int(text) * NANOSECONDS[time.unit], time.unit)
    if not _NUMBER.match(text):
        raise ValueError(text)
    if time.exact:
        if len(text) > _MAX_DIGITS or len(text.lower().partition("e")[2]) > len("+18"):
            raise ValueError(text)
        nanoseconds = Fraction(Decimal(text)) * NANOSECONDS[time.unit]
        if nanoseconds.denominator != 1:
            raise ValueError(f"{text} is not a whole number of nanoseconds")
        return _stamp_within_64_bits(int(nanoseconds), time.unit)
    value = float(text)
    if not np.isfinite(value):
        raise ValueError(text)
    seconds = float(_to_seconds(value, time.unit))
    if abs(seconds) >= _FAR_S:
        raise FarStampsError(np.ones(1, dtype=np.bool_), seconds, time.unit)
    return seconds


def _to_seconds(values: Any, unit: TimeUnit) -> Any:
    """Converts float64 numbers to seconds: multiplies or divides by a whole number, so that they are rounded once."""
    nanoseconds = NANOSECONDS[unit]
    return values * (nanoseconds // _SECOND) if nanoseconds >= _SECOND else values / (_SECOND // nanoseconds)


def _stamp_within_64_bits(nanoseconds: int, unit: TimeUnit) -> int:
    if not _LIMITS.min <= nanoseconds <= _LIMITS.max:
        raise FarStampsError(np.ones(1, dtype=np.bool_), float(Fraction(nanoseconds, 1_000_000_000)), unit)
    return nanoseconds


def _within_64_bits(nanoseconds: int) -> int:
    if not _LIMITS.min <= nanoseconds <= _LIMITS.max:
        raise ValueError("further from 1970 than 64 bits of nanoseconds reach")
    return nanoseconds


def _parse_format(text: str, form: str) -> int:
    """Parses a time in ``strptime`` form; without a time zone it is UTC.

    ``%f`` may have up to nine digits, or be missing together with the sign before it, as Python prints whole seconds.
    """
    rest = 0
    try:
        moment = datetime.strptime(text, form)
    except ValueError:
        if "%f" not in form:
            raise
        long = _LONG_FRACTION.search(text)
        if long is None:
            moment = datetime.strptime(text, _FRACTION.sub("", form))
        else:
            moment = datetime.strptime(text[: long.start(2)] + text[long.end(2) :], form)
            rest = int(long[2].ljust(3, "0"))
    return calendar.timegm(moment.utctimetuple()) * 1_000_000_000 + moment.microsecond * 1000 + rest


def _parse_duration(text: str) -> int:
    """Parses days, hours, minutes and seconds as Python and pandas print a ``timedelta``; hours may go beyond 23.

    A single number with its unit, such as ``0.02 sec``, is a duration too.
    """
    single = _WITH_UNIT.match(text.strip())
    if single is not None and single[2].lower() in _UNIT_WORDS:
        return round(Fraction(single[1].replace(",", ".")) * NANOSECONDS[_UNIT_WORDS[single[2].lower()]])
    match = _DURATION.match(text.strip())
    if match is None:
        raise ValueError(text)
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups()[:4])
    if seconds > 59 or (match[2] and minutes > 59):
        raise ValueError(text)
    whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    return whole * 1_000_000_000 + int((match[5] or "").ljust(9, "0"))


def _parse_iso(text: str) -> int:
    match = _ISO.match(text.strip())
    if match is None:
        raise ValueError(text)
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    moment = datetime(year, month, day, hour, minute, second)  # refuses dates and times that no calendar has
    stamp = calendar.timegm(moment.timetuple()) * 1_000_000_000 + int((match[7] or "").ljust(9, "0"))
    zone = (match[8] or "Z").replace(":", "")
    if zone != "Z":
        minutes = int(zone[1:3]) * 60 + int(zone[3:5] or 0)
        stamp -= (-minutes if zone[0] == "-" else minutes) * 60_000_000_000
    return stamp


def stamp_text(text: str, form: str) -> str:
    """Returns the part of a text that is the stamp: of a path the last parts, as many as the form has."""
    path = text if "\\" in form else text.replace("\\", "/")
    return "/".join(PurePosixPath(path).parts[-1 - form.count("/") :]) if "/" in path else text


def clock_from_numbers(values: NDArray[Any], time: TimeSpec) -> NDArray[Any]:
    """Converts numbers in the schema's unit to a clock: int64 nanoseconds or float64 seconds.

    Raises:
        FarStampsError: a stamp does not fit 64 bits of nanoseconds.
        ValueError: the schema says integer, but the values are not whole.
    """
    return scale_clock(values, time.unit, integer=time.integer)


def scale_clock(values: NDArray[Any], unit: TimeUnit, *, integer: bool) -> NDArray[Any]:
    """Does the same as ``clock_from_numbers`` for the given unit."""
    _require_near(values, NANOSECONDS[unit], unit)
    if not integer:
        return np.asarray(_to_seconds(values.astype(np.float64), unit))
    if values.dtype.kind not in "iu":
        whole = values.astype(np.int64)
        if not np.array_equal(whole, values):
            raise ValueError("not whole numbers")
        values = whole
    return values.astype(np.int64) * NANOSECONDS[unit]


def clock_from_index(index: NDArray[np.int64], rate_hz: float) -> NDArray[np.int64]:
    """Divides each whole number by the rate, rounded to the nearest nanosecond (half to even).

    The rate is taken as its decimal text, not as its binary value.

    Raises:
        OverflowError: a stamp does not fit 64 bits.
    """
    step = 1_000_000_000 / Fraction(repr(float(rate_hz)))
    largest = max(abs(int(index.min())), abs(int(index.max()))) if len(index) else 0
    if largest * step > _LIMITS.max:
        raise OverflowError("stamps do not fit int64 nanoseconds")
    if 4 * max(largest, 1) * step.numerator > _LIMITS.max or 4 * step.denominator > _LIMITS.max:
        return np.array([round(int(i) * step) for i in index], dtype=np.int64)
    whole, rest = np.divmod(index.astype(np.int64) * step.numerator, np.int64(step.denominator))
    up = (2 * rest > step.denominator) | ((2 * rest == step.denominator) & (whole % 2 == 1))
    return np.asarray(whole + up, dtype=np.int64)


def start_of_file(label: str, time: TimeSpec) -> int:
    """Returns the time in a file's name, in nanoseconds. ``start_format`` may leave out the file's extensions.

    Raises:
        ValueError: the name does not have this form.
    """
    assert time.start_format is not None
    parts = PurePosixPath(label).parts[-1 - time.start_format.count("/") :]
    name = "/".join(parts)
    while True:
        try:
            return _within_64_bits(_parse_format(name, time.start_format))
        except ValueError:
            shorter = name[: -len(PurePosixPath(name).suffix)] if PurePosixPath(name).suffix else name
            if shorter == name:
                raise ValueError(parts[-1]) from None
            name = shorter


def shift_clock(timestamp: NDArray[Any], time: TimeSpec, start_ns: int = 0) -> NDArray[Any]:
    """Returns the clock plus ``start_ns`` plus ``offset_s``, in nanoseconds if the schema keeps them, else in seconds.

    Raises:
        FarStampsError: a stamp does not fit 64 bits.
    """
    if timestamp.dtype == np.float64 and time.dtype == "int64":
        _require_near(timestamp, 1_000_000_000, None)
        timestamp = np.rint(timestamp * 1e9).astype(np.int64)
    if timestamp.dtype == np.float64:
        return timestamp + time.offset_s if time.offset_s else timestamp
    by = start_ns + round(Fraction(repr(time.offset_s)) * 1_000_000_000)
    if time.start_format and time.format and time.format not in (ISO, DURATION) and not _DATED.search(time.format):
        by -= _EPOCH_1900  # the stamps are times of day; the file's name has the date
    if not by:
        return timestamp
    if len(timestamp) and not (_LIMITS.min <= int(timestamp.min()) + by and int(timestamp.max()) + by <= _LIMITS.max):
        seconds = timestamp / 1e9 + by / 1e9
        raise FarStampsError(np.abs(seconds) >= _FAR_S, float(seconds[np.abs(seconds).argmax()]), None)
    return timestamp + np.int64(by) if abs(by) <= _LIMITS.max else (timestamp.astype(object) + by).astype(np.int64)


def wanted_stamp(time: TimeSpec) -> str:
    """Returns a description of a valid stamp."""
    if time.format:
        return "a time like 1:02:03.5 or 0.02 sec" if time.format == DURATION else f"a time like {time.format!r}"
    if time.index_rate_hz:
        return "a whole number"
    return f"a time in {'whole ' if time.integer else ''}{time.unit}"

"""Reads clocks that are written as text: ISO 8601, dates and times of day, durations, and stamps inside names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.clocks.stamps import FarStampsError, parse_stamp, stamp_text
from vlapipe.schemas.schema import DURATION, ISO, TimeSpec

__all__ = ["TextClock", "form_inside", "is_date", "stamp_in", "strptime_form", "text_clock"]

_DATE = re.compile(r"(?<!\d)(\d{4}|\d{1,2})([-/. ])(\d{1,2}|[A-Za-z]{3})\2(\d{4}|\d\d?)(?!\d)")
_TIME = re.compile(
    r"(?<![\d:])(?P<H>\d\d?)(?P<a>[:hH]|\.(?=\d\d\.\d\d))(?P<M>\d\d)"
    r"(?:(?P<b>[:mM.])(?P<S>\d\d)(?:(?P<c>[.,:])(?P<f>\d{1,9}))?)?(?:(?P<d> ?)(?P<p>[AaPp][Mm]))?(?![\d:]|[.,]\d)"
)
_ZONE = re.compile(r" ?[+-]\d\d:?\d\d\Z")
_STAMP = re.compile(
    r"(?P<Y>(?:19|20)\d\d)(?P<a>\D?)(?P<m>[01]\d)(?P<b>\D?)(?P<d>[0-3]\d)(?P<c>\D{0,2})"
    r"(?P<H>[0-2]\d)(?P<e>\D?)(?P<M>[0-5]\d)(?P<g>\D?)(?P<S>[0-5]\d)(?:(?P<h>\D?)(?P<f>\d{1,6}))?(?!\d)"
)
_DIGITS_OF = {"%Y": r"\d{4}", "%f": r"\d{1,6}", **dict.fromkeys(("%m", "%d", "%H", "%M", "%S"), r"\d\d")}
_MOSTLY = 0.95  # of the cells, or all but one: the others are damaged, and the reader names them
_FEW, _LONGEST = 50, 200
_HALF_A_DAY_S, _DAY_S = 43_200, 86_400


@dataclass(frozen=True)
class TextClock:
    """The form of a column's stamps (a value of ``TimeSpec.format``), the times of the stamps, and the reasons."""

    form: str
    stamps_s: NDArray[np.float64]
    reasons: tuple[str, ...]


def text_clock(cells: list[str]) -> TextClock | None:
    """Find the one form that the cells have. Returns ``None`` if there is no such form."""
    if not cells or len(sample := max(cells[:_FEW], key=len)) > _LONGEST or not any(map(str.isdigit, sample)):
        return None
    fitting: list[tuple[str, list[int]]] = []
    for form in dict.fromkeys(_forms(sample)):
        stamps = [stamp for cell in cells if (stamp := _stamp_of(cell, form)) is not None]
        if len(stamps) >= max(1, min(len(cells) - 1, _MOSTLY * len(cells))) and len(stamps) > len(cells) / 2:
            fitting.append((form, stamps))
    if not fitting:
        return None
    form, stamps = max(fitting, key=lambda each: len(each[1]))
    also = next((other for other, found in fitting if other != form and len(found) == len(stamps)), None)
    first = min(stamps)  # differences of nanoseconds are exact
    seconds = np.array([(stamp - first) / 1e9 for stamp in stamps])
    reasons = [_said(form, cells[0])]
    if "%d" in form and also is not None and "%d" in also:
        reasons.append(f"{also!r} is as plausible: does the day come first?")
    if not ("%d" in form or form in (ISO, DURATION)):
        days = np.cumsum(np.diff(seconds, prepend=seconds[0]) < -_HALF_A_DAY_S)
        seconds += _DAY_S * days
        reasons += ["it passes midnight, but has no date: the reader refuses it; write the date too"] * bool(days[-1])
    return TextClock(form, seconds + first / 1e9, tuple(reasons))


def _forms(sample: str) -> Iterator[str]:
    """Yield the forms that a cell could have, the likeliest first."""
    if _stamp_of(sample, ISO) is not None:
        yield ISO
    is_duration = _stamp_of(sample, DURATION) is not None
    if is_duration and "day" in sample:
        yield DURATION
    date = _DATE.search(sample)
    time = _TIME.search(sample, date.end()) if date else _TIME.search(sample)
    if time is not None and (len(time["H"]) == 2 or time["p"] or date):
        of_day = f"%{'I' if time['p'] else 'H'}{time['a']}%M"
        of_day += f"{time['b']}%S" if time["S"] else ""
        of_day += f"{time['c']}%f" if time["f"] else ""
        of_day += f"{time['d']}%p" if time["p"] else ""
        rest = _ZONE.sub(" %z" if sample[time.end() :].startswith(" ") else "%z", sample[time.end() :])
        rest = rest if rest.endswith("%z") else rest.replace("%", "%%")
        before = sample[: date.start() if date else time.start()].replace("%", "%%")
        gap = sample[date.end() : time.start()].replace("%", "%%") if date else ""
        yield from (f"{before}{day}{gap}{of_day}{rest}" for day in (_date_forms(date) if date else [""]))
    elif date is not None and date[0] == sample:
        yield from _date_forms(date)
    if is_duration:
        yield DURATION
    name = strptime_form(stamp_text(sample, ""))
    if name is not None:
        yield name


def _date_forms(date: re.Match[str]) -> list[str]:
    """Return the orders that the parts of a date could have, the likeliest first."""
    one, gap, two, three = date.groups()
    if len(one) == 4:
        orders = ["Ymd"]
    elif two.isalpha():
        orders = ["dbY" if len(three) == 4 else "dby"]
    else:
        year = "Y" if len(three) == 4 else "y"
        orders = [f"md{year}", f"dm{year}"] if gap == "/" else [f"dm{year}", f"md{year}"]
        orders += ["ymd"] if year == "y" else []
    return [gap.join(f"%{part}" for part in order) for order in orders]


def _said(form: str, cell: str) -> str:
    if form == ISO:
        return "ISO 8601; read as UTC where no zone is named"
    if form == DURATION:
        return f"a time since the start, such as {cell!r}"
    if form == strptime_form(stamp_text(cell, "")):
        return f"the time stands in the name {stamp_text(cell, '')!r}; of a path its last part is read, as UTC"
    return f"text in the form {form!r}, read as UTC"


def _stamp_of(cell: str, form: str) -> int | None:
    """Return a stamp in nanoseconds as the reader reads it, or ``None`` if the cell has another form."""
    try:
        return int(parse_stamp(stamp_text(cell, form), TimeSpec(format=form)))
    except (ValueError, OverflowError, FarStampsError):
        return None


def is_date(cells: list[str]) -> bool:
    """Return True if all cells are dates of one form, without a time of day."""
    date = _DATE.fullmatch(cells[0]) if cells else None
    forms = _date_forms(date) if date else []
    return any(all(_stamp_of(cell, form) is not None for cell in cells) for form in forms)


def strptime_form(text: str) -> str | None:
    """Return the ``strptime`` form of a name that holds date and time: ``cam_20240131_101530_123.jpg``."""
    match = _STAMP.search(text)
    if match is None:
        return None
    part = match.groupdict()
    form = f"%Y{part['a']}%m{part['b']}%d{part['c']}%H{part['e']}%M{part['g']}%S"
    form += f"{part['h']}%f" if part["f"] else ""
    before, after = text[: match.start()].replace("%", "%%"), text[match.end() :].replace("%", "%%")
    return f"{before}{form}{after}"


def stamp_in(name: str) -> re.Match[str] | None:
    """Find the date and time in a name."""
    return _STAMP.search(name)


def form_inside(names: list[str]) -> tuple[str, str] | None:
    """Return a regular expression that finds the time inside names, and the time's ``strptime`` form.

    Unlike ``strptime_form``, this allows names that differ before and after the time.
    """
    found = [_STAMP.search(name) for name in names]
    texts = [match[0] for match in found if match is not None]
    if len(texts) < len(names) or len(forms := {strptime_form(text) for text in texts}) != 1:
        return None
    form = forms.pop() or ""
    pattern = re.sub(r"%[YmdHMSf]", lambda m: _DIGITS_OF[m[0]], re.escape(form).replace("\\%", "%"))
    matches = [re.search(f"({pattern})", name) for name in names]
    if any(match is None or match[1] != text for match, text in zip(matches, texts, strict=True)):
        return None
    return f"({pattern})", form

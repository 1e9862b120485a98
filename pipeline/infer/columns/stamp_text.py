"""Reads clocks that are written as text: ISO 8601, usual dates and times of day, and stamps inside names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

__all__ = ["TextClock", "form_inside", "is_date", "stamp_in", "strptime_form", "text_clock"]

_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d:?\d\d)?)?\Z")
_DATES = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%d-%b-%Y", "%d %b %Y")
_SHORT_DATES = ("%m/%d/%y", "%d/%m/%y", "%d.%m.%y", "%d-%m-%y", "%y/%m/%d", "%y-%m-%d")
_TIMES = ("%H:%M:%S.%f", "%H:%M:%S,%f", "%H:%M:%S", "%I:%M:%S.%f %p", "%I:%M:%S %p", "%H:%M", "%M:%S.%f", "%M:%S,%f")
_STAMP = re.compile(
    r"(?P<Y>(?:19|20)\d\d)(?P<a>\D?)(?P<m>[01]\d)(?P<b>\D?)(?P<d>[0-3]\d)(?P<c>\D{0,2})"
    r"(?P<H>[0-2]\d)(?P<e>\D?)(?P<M>[0-5]\d)(?P<g>\D?)(?P<S>[0-5]\d)(?:(?P<h>\D?)(?P<f>\d{1,6}))?(?!\d)"
)
_DIGITS_OF = {"%Y": r"\d{4}", "%f": r"\d{1,6}", **dict.fromkeys(("%m", "%d", "%H", "%M", "%S"), r"\d\d")}


@dataclass(frozen=True)
class TextClock:
    """The form of a column's stamps (``iso`` or a ``strptime`` form), their times since 1970, and the reasons."""

    form: str
    stamps_s: NDArray[np.float64]
    reasons: tuple[str, ...]


def text_clock(cells: list[str]) -> TextClock | None:
    """Find the one form that all cells have. Returns ``None`` if there is no such form."""
    if not cells:
        return None
    if all(map(_ISO.match, cells)):
        moments = [datetime.fromisoformat(cell.replace(",", ".")) for cell in cells]
        return TextClock("iso", _stamps(moments), ("ISO 8601; read as UTC where no zone is named",))
    form, reasons = _usual_form(cells)
    if form is None:
        cells = [PurePosixPath(cell.replace("\\", "/")).name for cell in cells]
        form = strptime_form(cells[0]) if cells[0] else None
        if form is None or not all(_parses(cell, form) for cell in cells):
            return None
        reasons = (f"the time stands in the name {cells[0]!r}; of a path its last part is read, as UTC",)
    return TextClock(form, _stamps([datetime.strptime(cell, form) for cell in cells]), reasons)


def _stamps(moments: list[datetime]) -> NDArray[np.float64]:
    aware = [m if m.tzinfo else m.replace(tzinfo=UTC) for m in moments]
    return np.array([(m - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() for m in aware])


def _usual_form(cells: list[str]) -> tuple[str | None, tuple[str, ...]]:
    forms = [
        f"{date}{gap}{time}" for date in (*_DATES, *_SHORT_DATES) for gap in (" ", "T", "_") for time in _TIMES
    ] + list(_TIMES)
    fitting = [form for form in forms if _parses(cells[0], form) and all(_parses(cell, form) for cell in cells)]
    if not fitting:
        return None, ()
    dates = {form[:8] for form in fitting if "%d" in form}
    others = [form for form in fitting[1:] if form[:8] in dates - {fitting[0][:8]}]
    also = (f"{others[0]!r} is as plausible: does the day come first?",) if others else ()
    if fitting[0].startswith("%M"):
        also = ("minutes and seconds: it comes round every hour",)
    return fitting[0], (f"text in the form {fitting[0]!r}, read as UTC", *also)


def is_date(cells: list[str]) -> bool:
    """Return True if all cells are dates of one form, without a time of day."""
    return bool(cells) and any(all(_parses(cell, form) for cell in cells) for form in (*_DATES, *_SHORT_DATES))


def _parses(text: str, form: str) -> bool:
    try:
        datetime.strptime(text, form)
    except ValueError:
        return False
    return True


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

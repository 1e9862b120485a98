"""Finds the rate that the lines above a table state, such as ``Sample rate: 50.0Hz``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from vlapipe.pipeline.infer.lexicon import lexicon, time_unit
from vlapipe.schemas.schema import NANOSECONDS

__all__ = ["StatedRate", "stated_rate"]

_NUMBER = r"[^\d\n]{0,16}?(?<![\d.])(\d+(?:[.,]\d+)?(?:e-\d+)?)(?![\d.]) ?([a-zµ]+)?"
_BRACKETED = re.compile(r"[\[(](\w+)[\])]")
_OF_COLUMNS = re.compile(r"([^;\t]*[A-Za-z][^;\t]*)([;\t][ \d.,;\t]+)")  # a word, and a number for each column
_FACTORS = {"hz": 1.0, "khz": 1e3, "mhz": 1e6}
_SANE_HZ = (0.1, 1e6)
_SHOWN = 60


@dataclass(frozen=True)
class StatedRate:
    """Rows per second, the words that state the rate, and the lines of the start and the rate if these alone do."""

    rate_hz: float
    text: str
    start_line: int | None = None
    rate_line: int | None = None


def stated_rate(lines: Iterable[str]) -> StatedRate | None:
    """Return the one rate that the lines state.

    Returns ``None`` if the lines state several rates. Lines about the rate of something else are skipped.
    """
    found: dict[float, str] = {}
    rate, period, other = (_any_of(key) for key in ("rate", "period", "other"))
    for plain in (one.replace("_", " ") for line in lines for one in _a_value_each(line)):
        if re.search(other, plain, re.IGNORECASE):
            continue
        for match in re.finditer(rf"\b{rate}\b{_NUMBER}", plain, re.IGNORECASE):
            _note(found, match, float(match[1].replace(",", ".")) * _FACTORS.get(_unit(match).lower(), 1.0))
        for match in re.finditer(rf"\b{period}\b{_NUMBER}", plain, re.IGNORECASE):
            seconds, unit = float(match[1].replace(",", ".")), time_unit(_unit(match) or "s")
            if seconds and unit is not None:
                _note(found, match, 1e9 / (seconds * NANOSECONDS[unit]))
    if len(found) != 1:
        return None
    ((rate_hz, text),) = found.items()
    return StatedRate(rate_hz, text)


def _a_value_each(line: str) -> list[str]:
    """Return a line that says a number of each column as a line for each of these numbers."""
    match = _OF_COLUMNS.fullmatch(line)
    return (
        [line] if match is None else [f"{match[1]};{cell}" for cell in dict.fromkeys(re.split(r"[;\t]", match[2])[1:])]
    )


def _unit(match: re.Match[str]) -> str:
    """Return the unit behind a number, or in brackets before it."""
    bracketed = _BRACKETED.search(match[0])
    return match[2] or (bracketed[1] if bracketed else "")


def _note(found: dict[float, str], match: re.Match[str], rate_hz: float) -> None:
    if _SANE_HZ[0] <= rate_hz <= _SANE_HZ[1]:
        found.setdefault(float(f"{rate_hz:.9g}"), match[0].strip()[:_SHOWN])


def _any_of(key: str) -> str:
    """Return a regular expression that finds each phrase of a list of the lexicon."""
    return "(?:" + "|".join(phrase.replace(" ", r"\W?") for phrase in lexicon().phrases("stated", key)) + ")"

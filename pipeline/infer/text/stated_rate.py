"""Finds the rate that the lines above a table state, such as ``Sample rate: 50.0Hz``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["StatedRate", "stated_rate"]

_RATE = re.compile(
    r"\b(?:rate|frequency|freq)\b[^\d\n]{0,16}?(?<![\d.])(\d+(?:[.,]\d+)?)(?![\d.]) ?([kM]?Hz)?", re.IGNORECASE
)
_OTHER = re.compile(r"baud|filter|cut.?off|carrier|heart|bit.?rate|pwm", re.IGNORECASE)
_FACTORS = {"": 1.0, "hz": 1.0, "khz": 1e3, "mhz": 1e6}
_SANE_HZ = (0.1, 1e5)
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

    Returns ``None`` if the lines state several rates. Lines about the rate of something else (``_OTHER``) are skipped.
    """
    found: dict[float, str] = {}
    for line in lines:
        if _OTHER.search(line):
            continue
        for match in _RATE.finditer(line.replace("_", " ")):
            rate_hz = float(match[1].replace(",", ".")) * _FACTORS[(match[2] or "").lower()]
            if _SANE_HZ[0] <= rate_hz <= _SANE_HZ[1]:
                found.setdefault(rate_hz, match[0].strip()[:_SHOWN])
    if len(found) != 1:
        return None
    ((rate_hz, text),) = found.items()
    return StatedRate(rate_hz, text)

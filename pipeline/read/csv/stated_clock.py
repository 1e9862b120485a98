"""Reads the rate and the start of a recording from the lines above its table."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from vlapipe.pipeline.read.clocks.stamps import parse_stamp
from vlapipe.pipeline.read.text import count_lines
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import Dialect, TimeSpec

__all__ = ["StatedClock", "read_stated_clock"]

_LINE_END = re.compile(rb"\r\n|\n|\r")
_ABOVE_BYTES = 1 << 20  # what stands above a table is no longer
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")


@dataclass(frozen=True, kw_only=True)
class StatedClock:
    """The clock with its rate as the file states it, and the time in nanoseconds that is added to each stamp."""

    time: TimeSpec
    start_ns: int = 0


def read_stated_clock(
    text: bytes, time: TimeSpec, dialect: Dialect, label: str, findings: Findings
) -> StatedClock | None:
    """Returns the clock that the lines of the file state, or ``None`` if they do not, which is reported."""
    found = StatedClock(time=time)
    if time.start_line is not None:
        start = _read_start(text, time, dialect, label, findings)
        if start is None:
            return None
        form = None if time.rate_line is not None else time.format
        found = StatedClock(time=replace(time, format=form), start_ns=start)
    if time.rate_line is None:
        return found
    at, cell = _find(text, time.rate_line)
    number = _NUMBER.search(_plain(cell, dialect)) if cell is not None else None
    rate = float(number[0]) if number is not None else 0.0
    if not 1e-6 <= rate <= 1e9:
        findings.add("csv.bad_time", label, line=at, expected="a rate in Hz", found=_shown(cell))
        return None
    return replace(found, time=replace(found.time, index_rate_hz=rate, rate_line=None))


def _read_start(text: bytes, time: TimeSpec, dialect: Dialect, label: str, findings: Findings) -> int | None:
    assert time.start_line is not None
    at, cell = _find(text, time.start_line)
    expected = f"a time like {time.format!r}" if time.format else f"a time in {time.unit}"
    try:
        if cell is None:
            raise ValueError("no such line")
        if time.format is not None:
            return int(parse_stamp(cell.strip().strip('"'), TimeSpec(format=time.format)))
        number = _NUMBER.search(_plain(cell, dialect))
        return int(parse_stamp(number[0] if number else "", TimeSpec(unit=time.unit, exact=True)))
    except (ValueError, OverflowError):
        findings.add("csv.bad_time", label, line=at, expected=expected, found=_shown(cell))
        return None


def _find(text: bytes, where: int | str) -> tuple[int | None, str | None]:
    """Returns the line that is meant and its number, or the part of it that the regular expression finds."""
    if isinstance(where, int):
        lines = _LINE_END.split(text[:_ABOVE_BYTES], maxsplit=where)
        return where, lines[where - 1].decode() if len(lines) >= where else None
    pattern = re.compile(where.encode())
    for line in re.finditer(rb"[^\r\n]+", text[:_ABOVE_BYTES]):
        found = pattern.search(line[0])
        if found is not None and found[1] is not None:
            return count_lines(text, 0, line.start()) + 1, found[1].decode(errors="replace")
    return None, None


def _plain(cell: str, dialect: Dialect) -> str:
    return cell.replace(",", ".") if dialect.decimal == "," and dialect.delimiter != "," else cell


def _shown(cell: str | None) -> str:
    return "no such line" if cell is None else repr(cell[:60])

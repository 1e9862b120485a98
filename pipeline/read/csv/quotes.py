"""Checks that quotes and escapes stand where they can be read in one way only; pyarrow and others read on regardless.

A quote may open a cell, close it, or stand doubled inside it. Inside a cell that no quote opened, an even number of
them may stand if none is its first or last character (``37'37.8"N 121'2.9"W``): what else could it be? One alone is
refused, for it may as well be a lost or a stray one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.text import count_lines
from vlapipe.schemas.findings import Findings

__all__ = ["check_quotes", "escaped_positions", "quote_positions"]

_BLOCK = 1 << 22


def check_quotes(
    text: bytes,
    span: tuple[int, int],
    *,
    quote: bytes,
    escape: bytes,
    delimiter: bytes,
    first_line: int,
    label: str,
    findings: Findings,
) -> bool:
    """Whether each quote and escape in ``text[start:stop]`` is in order; the first that is not is reported.

    Args:
        text: the file's text.
        span: start and stop of what is looked at; it begins outside quotes.
        quote: the quote, one byte; empty for none.
        escape: makes the next character an ordinary one, one byte; empty for none.
        delimiter: what parts cells, one byte.
        first_line: the line on which ``start`` lies.
        label: how findings call the file.
        findings: takes what is wrong.
    """
    start, stop = span
    fault: tuple[int, str] | None = None
    if escape and text.find(escape, start, stop) >= 0:
        escaped = escaped_positions(text, span, escape)
        if len(escaped) and (escaped[-1] >= stop or text[escaped[-1] :] == b"\n"):
            fault = int(escaped[-1]) - 1, "an escape at the very end"
        else:
            returns = [at for at in escaped.tolist() if text[at] == 0x0D]
            fault = (returns[0] - 1, "an escape before a carriage return") if returns else None
    if fault is None and quote:
        fault = _misplaced(text, span, quote, escape, delimiter)
    if fault is None:
        return True
    at, found = fault
    line_start = max(text.rfind(b"\n", start, at), text.rfind(b"\r", start, at), start - 1) + 1
    line = first_line + count_lines(text, start, line_start)
    character = len(text[line_start:at].decode("utf-8", errors="replace")) + 1
    expected = "quotes around whole cells, doubled inside them"
    findings.add("csv.quotes", label, line=line, expected=expected, found=f"{found} at character {character}")
    return False


def escaped_positions(text: bytes, span: tuple[int, int], escape: bytes) -> NDArray[np.int64]:
    """Positions (in ``text``) of the characters that an escape makes ordinary; in a run every second one is."""
    at = _positions(text, span, escape)
    if not len(at):
        return at
    first = np.flatnonzero(np.concatenate([[True], np.diff(at) != 1]))
    within = np.arange(len(at)) - np.repeat(first, np.diff(np.append(first, len(at))))
    escaped: NDArray[np.int64] = at[within % 2 == 0] + 1
    return escaped


def quote_positions(text: bytes, span: tuple[int, int], quote: bytes, escape: bytes) -> NDArray[np.int64]:
    """Positions (in ``text``) of the quotes that are not escaped; a place is inside quotes after an odd number."""
    if not quote:
        return np.empty(0, dtype=np.int64)
    at = _positions(text, span, quote)
    if escape and len(at):
        at = at[~np.isin(at, escaped_positions(text, span, escape))]
    return at


def _positions(text: bytes, span: tuple[int, int], character: bytes) -> NDArray[np.int64]:
    """Block by block, so that the mask of a large file does not stand in memory."""
    parts = [np.empty(0, dtype=np.int64)]
    for start in range(span[0], span[1], _BLOCK):
        block = np.frombuffer(text, dtype=np.uint8, count=min(_BLOCK, span[1] - start), offset=start)
        parts.append(np.flatnonzero(block == character[0]) + start)
    return np.concatenate(parts)


def _misplaced(
    text: bytes, span: tuple[int, int], quote: bytes, escape: bytes, delimiter: bytes
) -> tuple[int, str] | None:
    """The first quote that is out of place, and what is wrong with it."""
    at = quote_positions(text, span, quote, escape)
    if not len(at):
        return None
    start, stop = span
    data = np.frombuffer(text, dtype=np.uint8)
    edges = np.zeros(256, dtype=np.bool_)
    edges[list(delimiter + b"\r\n")] = True
    opening, closing = at[0::2], at[1::2]
    well_opened = edges[data[opening - 1]]
    if escape:
        well_opened &= ~np.isin(opening - 1, escaped_positions(text, span, escape))
    well_opened |= opening == start
    well_opened[1:] |= opening[1:] == closing[: len(opening) - 1] + 1  # the second of a doubled pair
    well_closed = closing == stop - 1
    well_closed |= edges[data[np.minimum(closing + 1, len(data) - 1)]]
    followed = min(len(closing), len(opening) - 1)
    well_closed[:followed] |= opening[1 : followed + 1] == closing[:followed] + 1
    faults = np.flatnonzero(~(well_opened[: len(closing)] & well_closed))
    for pair in faults.tolist():
        first, second = int(opening[pair]), int(closing[pair])
        if well_opened[pair]:
            cell = pair
            while cell and opening[cell] == closing[cell - 1] + 1:  # back over doubled ones to where the cell begins
                cell -= 1
            begin = int(opening[cell])
            # A quote that lost its end is closed by the next one, which may be lines away.
            if count_lines(text, begin, second):
                return begin, "a quote that is not closed at the end of its cell, opened"
            return second, "text after a closing quote"
        inside = text[first:second]
        if well_closed[pair] or any(byte in inside for byte in delimiter + b"\r\n"):
            return first, "a quote inside a cell"
    if len(opening) > len(closing):
        if well_opened[-1]:
            return int(opening[-1]), "a quote that is never closed, opened"
        return int(opening[-1]), "a quote inside a cell"
    return None

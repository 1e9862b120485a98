"""Checks that quotes and escapes can be read in only one way; pyarrow and other parsers do not check this.

A quote may open a cell, close a cell, or be doubled inside a quoted cell. A cell that does not begin with a quote may
hold an even number of quotes if none is its first or last character (``37'37.8"N 121'2.9"W``), because there is no
other way to read them. One quote alone in such a cell is refused, because it may be a lost or a stray quote.
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
    """Returns whether each quote and escape in ``text[start:stop]`` is in order; the first fault is reported.

    Args:
        text: the file's text.
        span: start and stop of the part that is checked; the part begins outside quotes.
        quote: the quote, one byte; empty for none.
        escape: one byte that makes the next character an ordinary one; empty for none.
        delimiter: the byte between cells.
        first_line: the line of ``start``.
        label: the file's name in findings.
        findings: collects the faults.
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
    """Returns the positions in ``text`` of escaped characters; of consecutive escapes, every second is escaped."""
    at = _positions(text, span, escape)
    if not len(at):
        return at
    first = np.flatnonzero(np.concatenate([[True], np.diff(at) != 1]))
    within = np.arange(len(at)) - np.repeat(first, np.diff(np.append(first, len(at))))
    escaped: NDArray[np.int64] = at[within % 2 == 0] + 1
    return escaped


def quote_positions(text: bytes, span: tuple[int, int], quote: bytes, escape: bytes) -> NDArray[np.int64]:
    """Returns the positions in ``text`` of quotes that are not escaped; after an odd number of them, text is quoted."""
    if not quote:
        return np.empty(0, dtype=np.int64)
    at = _positions(text, span, quote)
    if escape and len(at):
        at = at[~np.isin(at, escaped_positions(text, span, escape))]
    return at


def _positions(text: bytes, span: tuple[int, int], character: bytes) -> NDArray[np.int64]:
    """Returns the positions of ``character``, block by block, so that no mask of the whole file is in memory."""
    parts = [np.empty(0, dtype=np.int64)]
    for start in range(span[0], span[1], _BLOCK):
        block = np.frombuffer(text, dtype=np.uint8, count=min(_BLOCK, span[1] - start), offset=start)
        parts.append(np.flatnonzero(block == character[0]) + start)
    return np.concatenate(parts)


def _misplaced(
    text: bytes, span: tuple[int, int], quote: bytes, escape: bytes, delimiter: bytes
) -> tuple[int, str] | None:
    """Returns the position of the first misplaced quote and a description of the fault."""
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
    well_opened[1:] |= opening[1:] == closing[: len(opening) - 1] + 1  # the second quote of a doubled pair
    well_closed = closing == stop - 1
    well_closed |= edges[data[np.minimum(closing + 1, len(data) - 1)]]
    followed = min(len(closing), len(opening) - 1)
    well_closed[:followed] |= opening[1 : followed + 1] == closing[:followed] + 1
    faults = np.flatnonzero(~(well_opened[: len(closing)] & well_closed))
    for pair in faults.tolist():
        first, second = int(opening[pair]), int(closing[pair])
        if well_opened[pair]:
            cell = pair
            while cell and opening[cell] == closing[cell - 1] + 1:  # back over doubled quotes to the cell's start
                cell -= 1
            begin = int(opening[cell])
            # A quote without its end is closed by the next quote, which may be lines away.
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

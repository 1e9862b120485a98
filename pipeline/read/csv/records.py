"""Finds the lines on which the records of a CSV text begin, and the blank lines, without reading a cell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.csv.quotes import escaped_positions, quote_positions

__all__ = ["RecordLines", "find_records"]

_BLOCK = 1 << 22
_LF, _CR = b"\n\r"


@dataclass(frozen=True, kw_only=True)
class RecordLines:
    """Lines counted from 0 at the start of the text. A blank line has no character and lies before a record."""

    records: NDArray[np.int64]
    blank: NDArray[np.int64]


def find_records(text: bytes, span: tuple[int, int], quote: bytes, escape: bytes) -> RecordLines:
    """Finds the records of ``text[start:stop]``, whose quotes must be in order; quote and escape are empty for none."""
    starts, start_lines, blanks, blank_lines = _line_starts(text, span)
    quotes = quote_positions(text, span, quote, escape)
    escaped = escaped_positions(text, span, escape) if escape else quotes[:0]
    keep = _begins_record(starts, quotes, escaped)
    starts, start_lines = starts[keep], start_lines[keep]
    keep = _begins_record(blanks, quotes, escaped) & (blanks < starts.max(initial=0))
    return RecordLines(records=start_lines, blank=blank_lines[keep])


def _begins_record(
    positions: NDArray[np.int64], quotes: NDArray[np.int64], escaped: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Returns whether the newline before each position ended a record: it is outside quotes and not escaped."""
    outside = np.searchsorted(quotes, positions) % 2 == 0
    return np.asarray(outside & ~np.isin(positions - 1, escaped) if len(escaped) else outside)


def _line_starts(text: bytes, span: tuple[int, int]) -> tuple[NDArray[np.int64], ...]:
    """Returns positions and lines of the lines with content, then of the lines without; works block by block."""
    found: list[list[NDArray[np.int64]]] = [[np.empty(0, dtype=np.int64)] for _ in range(4)]
    line, before = 0, _LF
    for at in range(span[0], span[1], _BLOCK):
        stop = min(at + _BLOCK, span[1])
        data = np.frombuffer(text, dtype=np.uint8, count=stop - at, offset=at)
        is_lf, is_cr = data == _LF, data == _CR
        is_end = is_lf | is_cr
        after_end = np.concatenate([[before in (_LF, _CR)], is_end[:-1]])
        after_cr = np.concatenate([[before == _CR and at > span[0]], is_cr[:-1]])
        first_of_line = after_end & ~(is_lf & after_cr)  # the \n of \r\n begins no line
        lines = line + np.cumsum(first_of_line) - 1
        for i, mask in ((0, first_of_line & ~is_end), (2, first_of_line & is_end)):
            positions = np.flatnonzero(mask)
            found[i].append(positions + at)
            found[i + 1].append(lines[positions])
        line += int(np.count_nonzero(first_of_line))
        before = int(data[-1])
    return tuple(np.concatenate(parts) for parts in found)

"""Removes blanks that separate or pad cells outside quotes, so that one character separates cells. Newlines stay."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.csv.quotes import escaped_positions, quote_positions

__all__ = ["narrow_blanks", "strip_blanks"]

_SPACE, _TAB, _LF, _CR = b" \t\n\r"


def narrow_blanks(text: bytes, quote: bytes, escape: bytes) -> bytes:
    """Replaces each sequence of spaces and tabs by one space, and removes those at line starts and ends."""
    return _without_blanks(text, b"", quote, escape)


def strip_blanks(text: bytes, delimiter: bytes, quote: bytes, escape: bytes) -> bytes:
    """Removes spaces and tabs beside delimiters and at line starts and ends. Blanks within a cell stay."""
    return _without_blanks(text, delimiter, quote, escape)


def _without_blanks(text: bytes, delimiter: bytes, quote: bytes, escape: bytes) -> bytes:
    data = np.frombuffer(text, dtype=np.uint8)
    blank = (data == _SPACE) | (data == _TAB)
    edge = (data == _LF) | (data == _CR)
    if delimiter:
        blank &= data != delimiter[0]
        edge |= data == delimiter[0]
    outside = _outside(text, quote, escape)
    if outside is not None:
        blank &= outside
        edge &= outside
    if not blank.any():
        return text
    starts = np.flatnonzero(blank & ~np.concatenate([[False], blank[:-1]]))
    ends = np.flatnonzero(blank & ~np.concatenate([blank[1:], [False]])) + 1
    at_edge = (starts == 0) | edge[starts - 1] | (ends == len(data)) | edge[np.minimum(ends, len(data) - 1)]
    keep = ~blank
    if delimiter:
        change = np.zeros(len(data) + 1, dtype=np.int8)
        change[starts[~at_edge]] += 1
        change[ends[~at_edge]] -= 1
        keep |= np.cumsum(change[:-1], dtype=np.int8).astype(np.bool_)
    else:
        keep[starts[~at_edge]] = True
        data = np.where(blank, np.uint8(_SPACE), data)
    return bytes(data[keep])


def _outside(text: bytes, quote: bytes, escape: bytes) -> NDArray[np.bool_] | None:
    """Returns a mask of the characters outside quotes that are not escaped, or ``None`` if all characters are such."""
    span = 0, len(text)
    quotes = quote_positions(text, span, quote, escape)
    escaped = escaped_positions(text, span, escape) if escape else quotes[:0]
    if not len(quotes) and not len(escaped):
        return None
    toggles = np.zeros(len(text), dtype=np.uint8)
    toggles[quotes] = 1
    outside: NDArray[np.bool_] = np.cumsum(toggles, dtype=np.uint8) & 1 == 0  # wraps at 256, which keeps the parity
    outside[escaped[escaped < len(text)]] = False  # an escape at the very end escapes nothing
    return outside

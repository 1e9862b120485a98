"""Fills up rows that end early, so that every row has as many cells as there are names. Lines keep their numbers."""

from __future__ import annotations

import numpy as np

from vlapipe.pipeline.read.csv.quotes import escaped_positions, quote_positions

__all__ = ["fill_short_rows"]

_LF, _CR = b"\n\r"


def fill_short_rows(
    text: bytes, span: tuple[int, int], num_cells: int, delimiter: bytes, quote: bytes, escape: bytes
) -> bytes:
    """Returns ``text[start:stop]`` with delimiters at the end of each row that has fewer than ``num_cells`` cells.

    Blank lines, and delimiters and newlines that are quoted or escaped, are left alone. Quotes must be in order.
    """
    start, stop = span
    data = np.frombuffer(text, dtype=np.uint8)[start:stop]
    marks = np.flatnonzero((data == delimiter[0]) | (data == _LF) | (data == _CR))
    quotes = quote_positions(text, span, quote, escape) - start
    if len(quotes):
        marks = marks[np.searchsorted(quotes, marks) % 2 == 0]
    if escape:
        marks = marks[~np.isin(marks, escaped_positions(text, span, escape) - start)]
    is_end = data[marks] != delimiter[0]
    ends = np.append(marks[is_end], len(data))
    starts = np.append(0, ends[:-1] + 1)
    delimiters = marks[~is_end]
    num_found = np.searchsorted(delimiters, ends) - np.searchsorted(delimiters, starts) + 1
    lacking = np.where(ends > starts, np.maximum(num_cells - num_found, 0), 0)
    if not lacking.any():
        return text[start:stop]
    return bytes(np.insert(data, np.repeat(ends, lacking), delimiter[0]))

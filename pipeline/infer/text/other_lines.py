"""Explains the lines of a table that have another number of cells: messages of other kinds, or another table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from vlapipe.pipeline.infer.text.cells import is_number

__all__ = ["kinds_of_lines"]

_MANY = 0.05  # fraction of all lines; fewer such lines are faults, which the reader reports
_ONE_KIND = "a stream reads one of them by row_kind = '...'"
_MAX_SHOWN = 4
_MAX_NAMED = 64  # different first cells that may be names of messages; more of them are texts


def kinds_of_lines(rows: Sequence[Sequence[str]], others: Sequence[tuple[int, Sequence[str]]]) -> str | None:
    """Return a reason to read lines kind by kind if many differ in width from the rows.

    ``others`` holds the number and the cells of each line that is not a row.
    """
    if len(others) <= _MANY * (len(rows) + len(others)):
        return None
    cells = [*rows, *(cells for _, cells in others)]
    kinds = Counter((line[0], len(line)) for line in cells if line)
    widths = dict(kinds)  # number of cells by name; a name with several widths does not name a kind of message
    named = len({name for name, _ in widths}) == len(widths) <= _MAX_NAMED
    if named and len(kinds) > 1 and not any(is_number(name) for name, _ in kinds):
        shown = ", ".join(f"{name} ({width} cells)" for (name, width), _ in kinds.most_common(_MAX_SHOWN))
        more = f" and {len(kinds) - _MAX_SHOWN} more" if len(kinds) > _MAX_SHOWN else ""
        return f"lines of several kinds, as their first cells say: {shown}{more}; {_ONE_KIND}"
    line = others[0][0]
    what = f"from line {line} on lines have other numbers of cells: does another table begin there? then part the file"
    return f"{what}; or say short_rows = true if rows may end early"

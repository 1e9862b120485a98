"""Guesses a table's header: how many lines come before it, how many lines it has, and its names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from vlapipe.pipeline.infer.text.cells import is_list, is_missing, is_number, is_time_text, is_unit, number_of
from vlapipe.pipeline.infer.text.stated_rate import StatedRate
from vlapipe.schemas.schema import WHITESPACE, Dialect

__all__ = ["Header", "find_header"]

_MAX_HEADER_ROWS = 4
_MAX_LOOKED_AT = 300
_MIN_BELOW_LEAD_IN = 6
_EPOCH_S = (9.4e8, 4.2e9)  # seconds since 1970: about the years 2000 to 2100


@dataclass(frozen=True, kw_only=True)
class Header:
    """A header's names and units, the dialect that reads it, and the index of the line of the first row (from 0)."""

    dialect: Dialect
    names: tuple[str, ...]
    units: tuple[str, ...]
    first_row: int
    reasons: tuple[str, ...]
    stated: StatedRate | None = None


@dataclass(frozen=True)
class _Lines:
    """Lines cut into cells, without comments and blank lines. ``number`` holds each line's index in the file."""

    cells: list[list[str]]
    number: list[int]


def find_header(lines: list[str], dialect: Dialect, cut: Callable[[str], list[str]]) -> Header | None:
    """Find the header of a table whose delimiter is known. Returns ``None`` if the table has no rows."""
    kept = [
        (i, line)
        for i, line in enumerate(lines)
        if line.strip() and not (dialect.comment and line.startswith(dialect.comment))
    ]
    cut_up = _Lines([cut(line) for _, line in kept], [i for i, _ in kept])
    if not cut_up.cells:
        return None
    width = _width(cut_up.cells)
    numeric = _numeric_columns(cut_up.cells, width, dialect.decimal)
    start = next((i for i, cells in enumerate(cut_up.cells) if _is_row(cells, numeric, dialect.decimal)), None)
    if not any(numeric):  # all cells are text: the first line with the right number of cells is the header
        first = next((i for i, cells in enumerate(cut_up.cells) if len(cells) == width), None)
        start = None if first is None or first + 1 >= len(cut_up.cells) else first + 1
    if start is None:
        return None
    above = _header_rows(cut_up.cells[:start], width, dialect.quote)
    while above and _is_faulty_row(cut_up.cells[start - 1], cut_up.cells[start - 2] if above > 1 else [], dialect):
        start, above = start - 1, above - 1
    found = _above_properties(cut_up, start, dialect, width) if above else None
    if found is None and above:
        found = _with_header(lines, cut_up, start, above, dialect, width)
    if found is not None:
        return found
    return _commented(lines, cut_up, start, dialect, width, cut) or _without(lines, cut_up, start, dialect, width)


def _width(rows: list[list[str]]) -> int:
    counts = Counter(len(cells) for cells in rows[:_MAX_LOOKED_AT])
    return max(counts, key=lambda n: (counts[n], n == len(rows[-1]), n))


def _numeric_columns(rows: list[list[str]], width: int, decimal: str) -> list[bool]:
    """Return for each column whether most of its cells, in the later half of the lines, are numbers or times."""
    fitting = [cells for cells in rows[:_MAX_LOOKED_AT] if len(cells) == width]
    later = fitting[len(fitting) // 2 :]
    numeric = []
    for column in range(width):
        cells = [row[column] for row in later]
        good = sum(is_number(c, decimal) or is_time_text(c) or is_list(c) for c in cells)
        numeric.append(2 * good > sum(not is_missing(c) for c in cells) > 0)
    return numeric


def _is_row(cells: list[str], numeric: list[bool], decimal: str) -> bool:
    if len(cells) != len(numeric):
        return False
    asked = [c for c, yes in zip(cells, numeric, strict=True) if yes]
    good = sum(is_number(c, decimal) or is_time_text(c) or is_list(c) for c in asked)
    return good > 0 and good + sum(is_missing(c) for c in asked) == len(asked)


def _is_faulty_row(cells: list[str], before: list[str], dialect: Dialect) -> bool:
    """Return True if the last line of a header is really the first row, with a word where a number belongs.

    No row may get lost. A name may be a whole number, but a number with a decimal point is not a name. If the line
    before is already a complete line of names, any number makes this line a row.
    """
    numbers = [cell for cell in cells if is_number(cell, dialect.decimal)]
    if before and all(before) and _are_names(before) and not any(map(is_number, before)):
        return bool(numbers) and len(before) == len(cells)
    return any(not cell.strip().isdigit() for cell in numbers)


def _header_rows(before: list[list[str]], width: int, quote: str) -> int:
    """Count the lines just above the rows that belong to the header."""
    rows = 0
    for cells in reversed(before[-_MAX_HEADER_ROWS:]):
        named = sum(bool(cell) for cell in cells)
        # A quote that opens in one cell and closes in another is prose about the table; no reader takes it for names.
        if quote and sum(cell.count(quote) % 2 for cell in cells) > 1:
            break
        if abs(len(cells) - width) > 1 or named < max(1, width / 2) or sum(map(is_number, cells)) == named:
            break
        rows += 1
    return rows


def _with_header(
    lines: list[str], cut_up: _Lines, start: int, above: int, dialect: Dialect, width: int
) -> Header | None:
    rows = cut_up.cells[start - above : start]
    reasons: list[str] = []
    units: list[str] = []
    skip_after = 0
    while len(rows) > 1 and _are_units(rows[-1]):
        units = units or rows[-1]
        rows, skip_after = rows[:-1], skip_after + 1
        reasons.append("a line of units or types stands below the header")
    names = rows[-1]
    header_rows = 1
    if len(rows) > 1 and (not _are_names(names) or any(map(is_number, names))):
        joined = [" ".join(filter(None, pair)) for pair in zip(rows[-2], rows[-1], strict=False)]
        if _are_names(joined):
            names, header_rows = joined, 2
            reasons.append("the names stand in two rows; they are joined by a blank")
    first = cut_up.number[start - skip_after - header_rows]
    last_of_header = cut_up.number[start - skip_after - 1]
    first_row = cut_up.number[start]
    skip_lines = first if any(line.strip() and not _is_comment(line, dialect) for line in lines[:first]) else 0
    if skip_lines:
        reasons.append(f"{skip_lines} lines stand before the header")
    found = replace(
        dialect,
        header_rows=header_rows,
        skip_lines=skip_lines,
        skip_after_header=first_row - last_of_header - 1 if skip_after else 0,
    )
    found, names = _edges(found, names, cut_up.cells[start:], width, reasons)
    units = units[: len(names)] if len(units) >= len(names) else [""] * len(names)
    if len(names) + found.index_column + found.trailing_delimiter != width:
        return None
    if not all(names) or len(set(names)) < len(names):
        reasons.append("the header names a column twice or not at all; its names stand here, each made its own")
        names = _made_unique(names)
        found = replace(found, header_rows=0, skip_after_header=0, skip_lines=first_row, names=(tuple(names),))
    return Header(dialect=found, names=tuple(names), units=tuple(units), first_row=first_row, reasons=tuple(reasons))


def _above_properties(cut_up: _Lines, start: int, dialect: Dialect, width: int) -> Header | None:
    """Find the names above many lines that describe each column: its type, its scale, its address.

    Returns ``None`` if there are no such lines.
    """
    run = start
    while run and len(cut_up.cells[run - 1]) == width:
        run -= 1
    block = cut_up.cells[run:start]
    if len(block) <= _MAX_HEADER_ROWS or not any(is_number(cell, dialect.decimal) for cell in block[-1]):
        return None
    wordy = [cells for cells in block if all(cells) and not any(is_number(cell, dialect.decimal) for cell in cells)]
    if not wordy or len({cells[0] for cells in block}) < len(block):
        return None
    names = _made_unique(max(wordy, key=lambda cells: len(set(cells))))
    line, first_row = cut_up.number[run] + 1, cut_up.number[start]
    found = replace(dialect, header_rows=0, skip_lines=first_row, names=(tuple(names),))
    reasons = (f"lines {line} to {first_row} say of each column what it is; the names are those that differ most",)
    return Header(dialect=found, names=tuple(names), units=("",) * width, first_row=first_row, reasons=reasons)


def _made_unique(names: list[str]) -> list[str]:
    """Add a number to names that occur again.

    A w after x, y and z gets the number of these, so that a quaternion stays together.
    """
    unique: list[str] = []
    before = 1  # the number given to the column before
    for position, name in enumerate(names):
        base = name or f"c{position + 1}"
        goes_on = base.lower() == "w" and position > 0 and names[position - 1].lower() in ("x", "y", "z")
        number = before if goes_on else 1
        name = base if number == 1 else f"{base}_{number}"
        while name in unique or (name != base and name in names):
            number += 1
            name = f"{base}_{number}"
        unique.append(name)
        before = number
    return unique


def _are_units(cells: list[str]) -> bool:
    named = [cell for cell in cells if cell]
    return bool(named) and 2 * sum(map(is_unit, named)) >= len(named)


def _are_names(cells: list[str]) -> bool:
    """Return True if names are unique, and none is empty except perhaps the first or the last."""
    named = [cell for cell in cells if cell]
    return len(set(named)) == len(named) and all(cells[1:-1])


def _edges(
    dialect: Dialect, names: list[str], rows: list[list[str]], width: int, reasons: list[str]
) -> tuple[Dialect, list[str]]:
    """Detect a trailing delimiter, or an index column without a name. Returns the dialect and the names."""
    rows = [cells for cells in rows[:_MAX_LOOKED_AT] if len(cells) == width]
    last_empty = dialect.delimiter != WHITESPACE and width > 1 and all(not cells[-1] for cells in rows)
    if last_empty and (len(names) == width - 1 or not names[-1]):
        reasons.append("each line ends with a delimiter too many")
        return replace(dialect, trailing_delimiter=True), names[: width - 1]
    if len(names) == width - 1 or (names and not names[0]):
        reasons.append("the first cell of a row is an index that the header has no name for")
        return replace(dialect, index_column=True), names[len(names) - width + 1 :]
    return dialect, names


def _is_comment(line: str, dialect: Dialect) -> bool:
    return bool(dialect.comment) and line.startswith(dialect.comment)


def _commented(
    lines: list[str], cut_up: _Lines, start: int, dialect: Dialect, width: int, cut: Callable[[str], list[str]]
) -> Header | None:
    """Take the last comment before the rows as the header, if it has as many names as there are columns."""
    comments = [line for line in lines[: cut_up.number[start]] if _is_comment(line, dialect)]
    if not comments or start > 0:
        return None
    text = comments[-1].lstrip(dialect.comment).strip()
    names = cut(text)
    if names and not names[-1] and len(names) == width + 1:
        names = names[:-1]
    first_row = cut_up.number[start]
    parted = any(name.endswith((",", ";")) for name in names)
    if len(names) == width and not parted and _are_names(names) and not any(map(is_number, names)):
        found = replace(dialect, header_rows=1, header_commented=True)
        reasons = (f"the header begins with the comment sign {dialect.comment}",)
        return Header(dialect=found, names=tuple(names), units=("",) * width, first_row=first_row, reasons=reasons)
    return _other_cut(text, dialect, width, first_row, skip_lines=0)


def _other_cut(text: str, dialect: Dialect, width: int, first_row: int, *, skip_lines: int) -> Header | None:
    """Take the names of a header that is cut by another delimiter than the rows. The schema then states the names."""
    for delimiter in (",", ";", "\t", None):
        names = [name.strip() for name in text.split(delimiter)]
        if len(names) == width and all(names) and _are_names(names) and not any(map(is_number, names)):
            found = replace(dialect, header_rows=0, names=(tuple(names),), skip_lines=skip_lines)
            reasons = ("the header is cut by another delimiter than the rows; its names stand here instead",)
            return Header(dialect=found, names=tuple(names), units=("",) * width, first_row=first_row, reasons=reasons)
    return None


def _without(lines: list[str], cut_up: _Lines, start: int, dialect: Dialect, width: int) -> Header:
    """Describe a table without a header: columns are called c1, c2, ... by position."""
    lead = _lead_in([cells for cells in cut_up.cells[start:] if len(cells) == width], dialect.decimal)
    start += lead
    first_row = cut_up.number[start]
    skip_lines = first_row if start > 0 else 0
    if start > 0 and len(cut_up.cells[start - 1]) != width:
        other = _other_cut(lines[cut_up.number[start - 1]], dialect, width, first_row, skip_lines=skip_lines)
        if other is not None:
            return other
    rows = [cells for cells in cut_up.cells[start : start + _MAX_LOOKED_AT] if len(cells) == width]
    trailing = dialect.delimiter != WHITESPACE and width > 1 and all(not cells[-1] for cells in rows)
    names = tuple(f"c{i + 1}" for i in range(width - trailing))
    reasons = ["there is no header: columns are called c1, c2, ... by position; rename them as you like"]
    if skip_lines:
        reasons.append(f"{skip_lines} lines stand before the rows")
    if lead:
        said = cut_up.cells[start - lead][0]
        reasons.append(
            f"the first of them says when it began, {said}: that is no row"
            if lead == 1
            else f"they say when it began, {said}, and likely the rate, {cut_up.cells[start - 1][0]}: those are no rows"
        )
    above = cut_up.cells[start - 1] if start > 0 else []
    if len(above) > 1 and not any(map(is_number, above)) and all(above) and len(above) != width:
        line = cut_up.number[start - 1] + 1
        reasons.append(f"line {line} has {len(above)} names for {width} columns: which name is whose is for you to say")
    if trailing:
        reasons.append("each line ends with a delimiter too many")
    found = replace(dialect, header_rows=0, names=(names,), skip_lines=skip_lines, trailing_delimiter=trailing)
    stated = None
    if lead == 2:
        start_line, rate_line = (cut_up.number[start - back] + 1 for back in (2, 1))
        rate_hz = number_of(cut_up.cells[start - 1][0], dialect.decimal)
        text = f"line {start_line} has the start, line {rate_line} the rate"
        stated = StatedRate(rate_hz, text, start_line=start_line, rate_line=rate_line)
    return Header(
        dialect=found,
        names=names,
        units=("",) * len(names),
        first_row=first_row,
        reasons=tuple(reasons),
        stated=stated,
    )


def _lead_in(rows: list[list[str]], decimal: str) -> int:
    """Count the lines (0 to 2) that give the start in seconds since 1970, then the rate, equal in all columns."""
    if len(rows) < _MIN_BELOW_LEAD_IN:
        return 0
    began = {number_of(cell, decimal) for cell in rows[0]}
    below = [abs(number_of(cell, decimal)) for cells in rows[2:_MAX_LOOKED_AT] for cell in cells]
    if len(began) > 1 or not _EPOCH_S[0] <= began.pop() <= _EPOCH_S[1] or any(n > _EPOCH_S[0] / 10 for n in below):
        return 0
    rate = {number_of(cell, decimal) for cell in rows[1]}
    whole = all(n.is_integer() for n in below)
    return 2 if len(rate) == 1 and rate.pop() in range(1, 10_000) and (len(rows[1]) > 1 or not whole) else 1

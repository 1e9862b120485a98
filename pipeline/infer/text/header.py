"""Guesses a table's header: its names and units, which lines above the rows are skipped, and where the rows begin."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from vlapipe.pipeline.infer.choices import Question
from vlapipe.pipeline.infer.text.cells import DATES_S, describes_column, is_summary, is_unit, kind_of_cell, number_of
from vlapipe.pipeline.infer.text.header_lines import Hypothesis, Line, Shape, WeighedLines, come_twice
from vlapipe.pipeline.infer.text.stated_rate import StatedRate
from vlapipe.schemas.schema import WHITESPACE, Dialect

__all__ = ["Header", "find_headers"]

_MAX_LOOKED_AT = 300
_MAX_COUNTED = 64  # rows
_MAX_OPTIONS = 4
_MANY_PROPERTIES = 4
_MIN_BELOW_LEAD_IN = 6
_LIKE_ROW = 8.0  # log-odds
_SHOWN = 40


@dataclass(frozen=True, kw_only=True)
class Header:
    """A header's names and units, the dialect that reads it, and the index of the line of the first row (from 0)."""

    dialect: Dialect
    names: tuple[str, ...]
    units: tuple[str, ...]
    first_row: int
    score: float
    reasons: tuple[str, ...]
    questions: tuple[Question, ...] = ()
    stated: StatedRate | None = None


def find_headers(lines: Sequence[Line], dialect: Dialect, cut: Callable[[str], list[str]]) -> list[Header]:
    """Find the likely headers of a table whose delimiter is known, the likeliest first; none if it has no rows."""
    rows = [line for line in lines if not line.commented]
    if not rows:
        return []
    shape = Shape([line.cells for line in rows[:_MAX_LOOKED_AT]], dialect.decimal)
    properties = _above_properties(rows, dialect, shape)
    if properties is not None:
        return [properties]
    weighed = WeighedLines(lines, shape, cut, dialect)
    found: list[Header] = []
    for each in sorted(weighed.hypotheses(), key=lambda each: -each.score)[:_MAX_OPTIONS]:
        header = _described(weighed, each, lines)
        if not any(other.dialect == header.dialect for other in found):
            found.append(header)
    return found


def _described(weighed: WeighedLines, guess: Hypothesis, lines: Sequence[Line]) -> Header:
    if not guess.num_names:
        return _without(weighed, guess, lines)
    found, first_row = weighed.lines, weighed.lines[guess.first].number
    head, between = found[guess.top : guess.below_names], found[guess.below_names : guess.first]
    dialect, reasons, questions = _skips(weighed, guess)
    names = weighed.are_names(guess.top, guess.num_names)
    rows = [line for line in lines if line.number >= first_row and len(line.cells) == weighed.shape.width]
    edges = _edges(dialect, names, weighed.shape, _counts(rows), head[-1].number + 1)
    if edges is None:
        return _without(weighed, replace(guess, num_names=0, top=guess.first), lines)
    dialect, kept = edges.dialect, edges.names
    in_comments = head[-1].commented and not all(line.commented for line in between)
    filled_up = len(head) == 2 and come_twice(head[1].cells) and not all(head[0].cells)
    widest = max(len(line.cells) for line in lines if line.number >= first_row)
    goes_on = weighed.shape.width < widest <= weighed.shape.width + len(head[-1].remarks)
    is_recut = any(line.recut for line in head) and not goes_on
    if head[-1].recut and is_recut:
        reasons.append("the header is cut by another delimiter than the rows; its names stand here instead")
    elif not all(kept) or come_twice(kept):
        reasons.append("the header names a column twice or not at all; its names stand here, each made its own")
    elif dialect.header_commented:
        reasons.append(f"the header begins with the comment sign {dialect.comment}")
    if in_comments or filled_up or is_recut or not all(kept) or come_twice(kept):
        kept = _made_unique(kept)
        skip_lines = first_row if any(not line.commented for line in found[: guess.first]) else 0
        dialect = replace(dialect, header_rows=0, header_commented=False, skip_after_header=0, skip_lines=skip_lines)
        dialect = replace(dialect, names=(tuple(kept),))
    if goes_on:
        kept = _made_unique([*kept, *head[-1].remarks])
        dialect = replace(dialect, short_rows=True, names=(tuple(kept),) if dialect.names else ())
        reasons.append(f"few rows have a cell below {kept[-1]!r}: the others end early")
    near = [guess.top - 1, *range(guess.below_names, guess.first)]
    units = _units(weighed, max((i for i in near if weighed.has_units(i)), default=-1), len(names))
    units = units[1:] if dialect.index_column and len(names) == weighed.shape.width else units
    return Header(
        dialect=dialect,
        names=tuple(kept),
        units=tuple((units + [""] * len(kept))[: len(kept)]),
        first_row=first_row,
        score=guess.score,
        reasons=(*reasons, *edges.reasons),
        questions=(*questions, *edges.questions),
    )


def _skips(weighed: WeighedLines, guess: Hypothesis) -> tuple[Dialect, list[str], list[Question]]:
    """Return the dialect with the lines that are skipped, the reasons, and a question for each that may be a row."""
    found, first_row, reasons = weighed.lines, weighed.lines[guess.first].number, []
    head, between = found[guess.top : guess.below_names], found[guess.below_names : guess.first]
    plain = [line for line in between if not line.commented]
    skip_lines = head[0].number if any(not line.commented for line in found[: guess.top]) else 0
    skip_after = first_row - head[-1].number - 1 if plain else 0
    if plain:
        reasons.append("a line of units or types stands below the header")
    if guess.num_names == 2:
        reasons.append("the names stand in two rows; they are joined by a blank")
    if skip_lines:
        reasons.append(f"{skip_lines} lines stand before the header")
    questions = _rows_above(weighed, guess.top, skip_lines)
    for line, score in zip(between, weighed.about[guess.below_names : guess.first], strict=True):
        if score < 0 and not line.commented:
            fewer = line.number - head[-1].number - 1
            said = "below the names holds no number"
            questions.append(_is_row(line, said, "skip_after_header", skip_after, fewer))
    commented = head[-1].commented and not plain
    dialect = replace(
        weighed.dialect,
        header_rows=guess.num_names,
        header_commented=commented,
        skip_lines=skip_lines,
        skip_after_header=len(between) if commented else skip_after,
    )
    return dialect, reasons, questions


@dataclass(frozen=True)
class _Edges:
    """The names of the columns, once an index column and a delimiter too many are told."""

    dialect: Dialect
    names: list[str]
    reasons: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()


def _edges(dialect: Dialect, names: list[str], shape: Shape, counts: bool, line: int) -> _Edges | None:
    """Tell a trailing delimiter, or an index column without a name. Returns ``None`` if names and columns differ."""
    width = shape.width
    if shape.last_empty and dialect.delimiter != WHITESPACE and (len(names) == width - 1 or not names[-1]):
        found = replace(dialect, trailing_delimiter=True)
        return _Edges(found, names[: width - 1], ("each line ends with a delimiter too many",))
    if len(names) == width and (names[0] or not counts):
        return _Edges(dialect, list(names))
    if len(names) not in (width, width - 1):
        return None
    reason = "the first cell of a row is an index that the header has no name for"
    others = ", ".join(json.dumps(name) for name in [*names, f"c{width}"])
    about = f"line {line} has {len(names)} names for {width} columns"
    asked = Question(about, "the first has no name", "index_column = true", "the last", f"names = [{others}]")
    kept = names[len(names) - width + 1 :]
    return _Edges(replace(dialect, index_column=True), kept, (reason,), () if counts else (asked,))


def _units(weighed: WeighedLines, line: int, width: int) -> list[str]:
    """Return the units in a line of as many cells; types, ranges and dashes are none."""
    cells = weighed.lines[line].cells if line >= 0 else []
    if len(cells) != width:
        return []
    return [cell if is_unit(cell) or not (describes_column(cell) or is_summary(cell)) else "" for cell in cells]


def _counts(rows: Sequence[Line]) -> bool:
    """Returns True if the first cells count the rows."""
    first = [line.cells[0] for line in rows[:_MAX_COUNTED]]
    return all(map(str.isdecimal, first)) and all(int(b[-9:]) - int(a[-9:]) == 1 for a, b in pairwise(first))


def _is_row(line: Line, what: str, key: str, skipped: int, otherwise: int) -> Question:
    about = f"line {line.number + 1}, {line.text.strip()[:_SHOWN]!r}, {what}"
    return Question(about, "no row", f"{key} = {skipped}", "a row", f"{key} = {otherwise}")


def _rows_above(weighed: WeighedLines, stop: int, skip_lines: int) -> list[Question]:
    """Returns a question about lines that are skipped although they look like rows."""
    rows = [line for line, score in zip(weighed.lines[:stop], weighed.rows, strict=False) if score > _LIKE_ROW]
    said = "stands above the names and looks like a row"
    return [_is_row(line, said, "skip_lines", skip_lines, line.number) for line in rows[:1]]


def _above_properties(rows: Sequence[Line], dialect: Dialect, shape: Shape) -> Header | None:
    """Find the names above many lines that describe each column: its type, its scale, its address."""

    def is_data(cell: str) -> bool:
        return bool(kind_of_cell(cell, dialect.decimal)) or cell.startswith("0x")

    fits = [len(line.cells) == shape.width for line in rows]
    width = shape.width - shape.last_empty
    start = next((i for i, line in enumerate(rows) if fits[i] and is_data(line.cells[0])), 0)
    run = start
    while run and fits[run - 1]:
        run -= 1
    block = [line.cells[:width] for line in rows[run:start]]
    wordy = [cells for cells in block if all(cells) and not any(map(is_data, cells))]
    if not shape.kinds[0] or len(block) <= _MANY_PROPERTIES or len({cells[0] for cells in block}) < len(block):
        return None
    is_header = block[-1] in wordy and not come_twice(block[-1])
    if is_header or not wordy or not any(any(map(is_data, cells)) for cells in block):
        return None
    names = tuple(_made_unique(max(wordy, key=lambda cells: len(set(cells)))))
    units = next((cells for cells in wordy if all(map(is_unit, cells[1:]))), ())
    line, first_row = rows[run].number + 1, rows[start].number
    trailing = shape.last_empty
    return Header(
        dialect=replace(dialect, header_rows=0, skip_lines=first_row, names=(names,), trailing_delimiter=trailing),
        names=names,
        units=("", *units[1:]) if units else ("",) * width,
        first_row=first_row,
        score=0.0,
        reasons=(f"lines {line} to {first_row} say of each column what it is; the names are those that differ most",),
    )


def _made_unique(names: list[str]) -> list[str]:
    """Add a number to names that occur again.

    A w after x, y and z gets the number of these, so that a quaternion stays together.
    """
    unique: list[str] = []
    taken, given, last = set[str](), set(names), dict[str, int]()
    before = 1  # the number given to the column before
    for position, name in enumerate(names):
        base = name or f"c{position + 1}"
        goes_on = base.lower() == "w" and position > 0 and names[position - 1].lower() in ("x", "y", "z")
        number = before if goes_on else last.get(base, 1)
        name = base if number == 1 else f"{base}_{number}"
        while name in taken or (name != base and name in given):
            number += 1
            name = f"{base}_{number}"
        unique.append(name)
        taken.add(name)
        last[base] = before = number
    return unique


def _without(weighed: WeighedLines, guess: Hypothesis, lines: Sequence[Line]) -> Header:
    """Describe a table without a header: columns are called c1, c2, ... by position."""
    shape, found = weighed.shape, weighed.lines[: guess.first]
    rows = [line for line in lines[guess.first :] if not line.commented]
    lead = _lead_in([line.cells for line in rows if len(line.cells) == shape.width], shape.decimal)
    above, first_row = [line for line in found if not line.commented], rows[lead].number
    skip_lines = first_row if above or lead else 0
    trailing = shape.last_empty and weighed.dialect.delimiter != WHITESPACE
    names = tuple(f"c{i + 1}" for i in range(shape.width - trailing))
    reasons = ["there is no header: columns are called c1, c2, ... by position; rename them as you like"]
    if skip_lines:
        reasons.append(f"{skip_lines} lines stand before the rows")
    stated = _stated(rows, lead, shape.decimal, reasons)
    if trailing:
        reasons.append("each line ends with a delimiter too many")
    questions = _rows_above(weighed, guess.first, skip_lines)
    if above and (asked := _fewer_names(above[-1], shape, len(names))):
        reasons.append(f"{asked.about}: which name is whose is for you to say")
        questions.append(asked)
    units = _units(weighed, guess.first - 1 if weighed.has_units(guess.first - 1) else -1, shape.width)
    return Header(
        dialect=replace(
            weighed.dialect, header_rows=0, names=(names,), skip_lines=skip_lines, trailing_delimiter=trailing
        ),
        names=names,
        units=tuple(units[: len(names)]) or ("",) * len(names),
        first_row=first_row,
        score=guess.score,
        reasons=tuple(reasons),
        questions=tuple(questions),
        stated=stated,
    )


def _fewer_names(line: Line, shape: Shape, count: int) -> Question | None:
    """Return a question if the last line above the rows looks like names, but not as many as there are columns."""
    names = [name for name in line.cells if name]
    if len(names) < 2 or len(line.cells) == shape.width or any(kind_of_cell(name, shape.decimal) for name in names):
        return None
    about = f"line {line.number + 1} has {len(names)} names for {count} columns"
    return Question(
        about, "none fits", 'names = ["c1", ...]', "the first ones fit", f"names = {json.dumps(names[:count])}"
    )


def _stated(rows: Sequence[Line], lead: int, decimal: str, reasons: list[str]) -> StatedRate | None:
    """Say what the lines of the start and the rate are, and return the rate."""
    if lead:
        began, rate = rows[0].cells[0], rows[1].cells[0]
        two = f"they say when it began, {began}, and likely the rate, {rate}: those are no rows"
        reasons.append(two if lead == 2 else f"the first of them says when it began, {began}: that is no row")
    if lead < 2:
        return None
    start_line, rate_line = rows[0].number + 1, rows[1].number + 1
    text = f"line {start_line} has the start, line {rate_line} the rate"
    return StatedRate(number_of(rate, decimal), text, start_line=start_line, rate_line=rate_line)


def _lead_in(rows: list[list[str]], decimal: str) -> int:
    """Count the lines (0 to 2) that give the start in seconds since 1970, then the rate, equal in all columns."""
    if len(rows) < _MIN_BELOW_LEAD_IN:
        return 0
    began = {number_of(cell, decimal) for cell in rows[0]}
    below = [abs(number_of(cell, decimal)) for cells in rows[2:_MAX_LOOKED_AT] for cell in cells]
    if len(began) > 1 or not DATES_S[0] <= began.pop() <= DATES_S[1] or any(n > DATES_S[0] / 10 for n in below):
        return 0
    rate = {number_of(cell, decimal) for cell in rows[1]}
    whole = all(n.is_integer() for n in below)
    return 2 if len(rate) == 1 and rate.pop() in range(1, 10_000) and (len(rows[1]) > 1 or not whole) else 1

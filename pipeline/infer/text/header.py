"""Guesses a table's header: which lines have the names, which lines describe the columns, and where the rows begin.

Each of the first lines gets evidence for being names, a description or a row. A header is a guess about all of them at
once, and its score is the sum of what the lines score as what it takes them for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

from vlapipe.pipeline.infer.choices import Question
from vlapipe.pipeline.infer.evidence import Evidence, log_odds
from vlapipe.pipeline.infer.text.cells import describes_column, is_missing, is_summary, is_unit, kind_of_cell, number_of
from vlapipe.pipeline.infer.text.stated_rate import StatedRate
from vlapipe.schemas.schema import WHITESPACE, Dialect

__all__ = ["Header", "Line", "find_headers"]

_MAX_LOOKED_AT = 300
_MAX_WEIGHED = 64  # lines
_MAX_DESCRIBED = 4  # lines of units, types and ranges
_MAX_OPTIONS = 4
_MANY_PROPERTIES = 4
_MIN_BELOW_LEAD_IN = 6
_EPOCH_S = (9.4e8, 4.2e9)  # seconds since 1970: about the years 2000 to 2100
_LIKE_ROW, _LIKE_NAMES = 8.0, 1.0  # log-odds
_SHOWN = 40
_OTHER_CUTS = (",", ";", r"\t+", r"\t|\s{2,}", r"\s+")


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


@dataclass(frozen=True)
class Line:
    """A line that is not blank: its index in the file, its cells, and whether it is a comment."""

    number: int
    text: str
    cells: list[str]
    commented: bool = False
    recut: bool = False  # cut by another delimiter than the rows


class _Shape:
    """What most rows of a table have in common: the number of cells, and the kind of data of each column."""

    def __init__(self, rows: Sequence[list[str]], decimal: str) -> None:
        counts = Counter(len(cells) for cells in rows)
        self.decimal = decimal
        self.width = max(counts, key=lambda n: (counts[n], n == len(rows[-1]), n))
        self.rows = [cells for cells in rows if len(cells) == self.width]
        later = self.rows[len(self.rows) // 2 :]
        self.kinds = [self._kind([row[column] for row in later]) for column in range(self.width)]
        self.last_empty = self.width > 1 and not any(row[-1] for row in later if not is_summary(row[0]))

    def _kind(self, cells: list[str]) -> str:
        kinds = Counter(kind for cell in cells if (kind := kind_of_cell(cell, self.decimal)))
        kind = max(kinds, key=lambda kind: kinds[kind], default="")
        return kind if 2 * kinds[kind] > sum(not is_missing(cell) for cell in cells) else ""

    @cached_property
    def fractional(self) -> float:
        """The share of the columns that hold numbers with a fraction."""
        later = self.rows[len(self.rows) // 2 :]
        return sum(any(not cell.isdigit() for cell in column) for column in zip(*later, strict=True)) / self.width

    def evidence(self, line: Line, *, is_first: bool) -> Iterator[Evidence]:
        """Yields what a line looks like beside the rows."""
        cells, fits = line.cells, len(line.cells) == self.width
        pairs = list(zip(cells, self.kinds, strict=True)) if fits else [(cell, "number") for cell in cells]
        under = [(cell, kind) for cell, kind in pairs if kind]
        given = [(cell, kind) for cell, kind in under if not is_missing(cell)]
        data = [cell for cell, kind in given if kind_of_cell(cell, self.decimal) == kind]
        named = [cell for cell in cells if cell]
        yield Evidence("numbers_in_it", len(data) / max(1, len(given)))
        yield Evidence("words_over_numbers", (len(given) - len(data)) / max(1, len(under)))
        yield Evidence("fraction_in_it", float(any(not cell.isdigit() for cell in data)))
        yield Evidence("word_first", float(bool(given) and given[0][0] == cells[0] and cells[0] not in data))
        yield Evidence("all_different", float(len(set(named)) == len(named) > 0 and all(cells[1:-1])))
        yield Evidence("cells_empty", 1 - len(named) / len(cells))
        yield Evidence("all_missing", float(bool(under) and not given))
        described = sum(map(describes_column, named)) / max(1, len(named))
        yield Evidence("describes_columns", max(0.0, 2 * described - 1))
        yield Evidence("sums_up", float(is_summary(cells[0])))
        yield Evidence("width_of_rows", float(fits))
        off = abs(len(cells) - self.width)
        yield Evidence("other_width", 0.0 if fits else 0.3 if off == 1 else 1.0)
        yield Evidence("cut_otherwise", float(line.recut))
        counted = is_first and self.width > 2 and cells in ([str(i + k) for i in range(self.width)] for k in (0, 1))
        yield Evidence("counts_columns", (0.5 + self.fractional / 2) if counted else 0.0)


@dataclass(frozen=True)
class _Hypothesis:
    """From ``top`` on stand ``num_names`` lines of names, then lines that are no rows, and from ``first`` on rows."""

    score: float
    top: int
    num_names: int
    first: int


class _Weighed:
    """The first lines of a table, weighed as names, as a description, and as a row."""

    def __init__(self, lines: Sequence[Line], shape: _Shape, cut: Callable[[str], list[str]], dialect: Dialect) -> None:
        self.shape, self.dialect = shape, dialect
        self.lines = [self._recut(line, cut) for line in lines[:_MAX_WEIGHED]]
        found = [list(shape.evidence(line, is_first=i == 0)) for i, line in enumerate(self.lines)]
        self.described = [next(e.strength for e in each if e.feature == "describes_columns") for each in found]
        self.names = [log_odds("names_line", each) for each in found]
        self.about = [log_odds("described_line", each) for each in found]
        rows = [log_odds("row_line", each) for each in found]
        self.rows = [0.0 if line.commented else score for line, score in zip(self.lines, rows, strict=True)]
        self.below = [*reversed(list(accumulate(reversed(self.rows)))), 0.0]  # score of all rows from a line on

    def _recut(self, line: Line, cut: Callable[[str], list[str]]) -> Line:
        text = line.text.lstrip(self.dialect.comment).strip() if line.commented else line.text
        cells = (cut(text) or [""]) if line.commented else line.cells
        if len(cells) > self.shape.width and not any(cells[self.shape.width :]):  # delimiters that the rows lack
            return replace(line, cells=cells[: self.shape.width], recut=True)
        parted = self.dialect.delimiter == WHITESPACE and sum(cell.endswith((",", ";")) for cell in cells) > 1
        if len(cells) != self.shape.width or parted:
            for delimiter in _OTHER_CUTS:
                others = [name.strip() for name in re.split(delimiter, text.strip())]
                if len(others) == self.shape.width > 1 and not any(kind_of_cell(c, ".") or not c for c in others):
                    return replace(line, cells=others, recut=True)
        return replace(line, cells=cells)

    def are_names(self, top: int, count: int) -> list[str]:
        """The names in one line, or in two lines joined; a group's name goes on over empty cells."""
        if count == 1:
            return self.lines[top].cells
        upper, lower = self.lines[top].cells, self.lines[top + 1].cells
        if _come_twice(lower):
            upper = list(accumulate(upper, _or_before))
        return [" ".join(filter(None, pair)) for pair in zip(upper, lower, strict=False)]

    def hypotheses(self) -> Iterator[_Hypothesis]:
        """Yields each header that is possible."""
        quote = self.dialect.quote
        for top, line in enumerate(self.lines):
            # A quote that opens in one cell and closes in another is prose about the table.
            prose = bool(quote) and sum(cell.count(quote) % 2 for cell in line.cells) > 1
            if prose or len(line.cells) < self.shape.width / 2:
                continue
            for count in (1, 2):
                if top + count >= len(self.lines):
                    break
                names = self.are_names(top, count)
                pair = self.lines[top : top + count]
                apart = any(line.commented or line.recut for line in pair)
                if count == 2 and (apart or len(pair[0].cells) != len(pair[1].cells)):
                    break
                twice = _come_twice(names)
                lower = pair[-1].cells
                apart = count == 2 and not twice and self.names[top + 1] > _LIKE_NAMES
                apart = apart and (_come_twice(lower) or any(kind_of_cell(cell, ".") for cell in lower))
                own = [
                    Evidence("two_lines", float(count == 2)),
                    Evidence("names_twice", float(twice)),
                    Evidence("joined_differ", (1 - self.described[top + 1]) if apart else 0.0),
                ]
                score = log_odds("header", own) + max(self.names[top : top + count]) + self.about_above(top)
                yield from self._with_rows(top, count, score)
        none = log_odds("header", [Evidence("no_names")])
        for first, line in enumerate(self.lines):
            if not line.commented and any(self.shape.kinds):
                yield _Hypothesis(none + self.about_above(first) + self.below[first], first, 0, first)

    def about_above(self, top: int) -> float:
        """What the line above scores if it has units or types."""
        return self.about[top - 1] if top and self.described[top - 1] > 0 else 0.0

    def _with_rows(self, top: int, count: int, score: float) -> Iterator[_Hypothesis]:
        for first in range(top + count, min(top + count + _MAX_DESCRIBED + 1, len(self.lines))):
            if not self.lines[first].commented:
                yield _Hypothesis(score + self.below[first], top, count, first)
            score += self.about[first]


def find_headers(lines: Sequence[Line], dialect: Dialect, cut: Callable[[str], list[str]]) -> list[Header]:
    """Find the likely headers of a table whose delimiter is known, the likeliest first; none if it has no rows."""
    rows = [line for line in lines if not line.commented]
    if not rows:
        return []
    shape = _Shape([line.cells for line in rows[:_MAX_LOOKED_AT]], dialect.decimal)
    properties = _above_properties(rows, dialect, shape)
    if properties is not None:
        return [properties]
    weighed = _Weighed(lines, shape, cut, dialect)
    found: list[Header] = []
    for each in sorted(weighed.hypotheses(), key=lambda each: -each.score)[:_MAX_OPTIONS]:
        header = _described(weighed, each, lines)
        if not any(other.dialect == header.dialect for other in found):
            found.append(header)
    return found


def _described(weighed: _Weighed, guess: _Hypothesis, lines: Sequence[Line]) -> Header:
    if not guess.num_names:
        return _without(weighed, guess, lines)
    found, shape, reasons, questions = weighed.lines, weighed.shape, list[str](), list[Question]()
    head = found[guess.top : guess.top + guess.num_names]
    between = found[guess.top + guess.num_names : guess.first]
    first_row, names = found[guess.first].number, weighed.are_names(guess.top, guess.num_names)
    rows = [line for line in lines if line.number >= first_row and len(line.cells) == shape.width]
    counts = _counts(rows)
    explicit = any(line.recut for line in head) or (
        len(head) == 2 and _come_twice(head[1].cells) and not all(head[0].cells)
    )
    if head[-1].recut:
        reasons.append("the header is cut by another delimiter than the rows; its names stand here instead")
    if guess.num_names == 2:
        reasons.append("the names stand in two rows; they are joined by a blank")
    said = [i for i in range(len(found)) if weighed.described[i] > 0 and len(found[i].cells) == len(names)]
    near = [i for i in said if guess.top - 1 == i or guess.top + guess.num_names <= i < guess.first]
    units = _units(found[near[-1]].cells if near else [])
    if any(not line.commented for line in between):
        reasons.append("a line of units or types stands below the header")
    above = [line for line in found[: guess.top] if not line.commented]
    commented = head[-1].commented and all(line.commented for line in between)
    explicit |= head[-1].commented and not commented
    skip_lines = head[0].number if above else 0
    if skip_lines:
        reasons.append(f"{skip_lines} lines stand before the header")
    questions += _rows_above(weighed, guess.top, skip_lines)
    skip_after = first_row - head[-1].number - 1 if any(not line.commented for line in between) else 0
    for i in range(guess.top + guess.num_names, guess.first):
        if weighed.about[i] < 0 and not found[i].commented:
            fewer = found[i].number - head[-1].number - 1
            questions.append(
                _is_row(found[i], "below the names holds no number", "skip_after_header", skip_after, fewer)
            )
    dialect = replace(
        weighed.dialect,
        header_rows=guess.num_names,
        header_commented=commented,
        skip_lines=skip_lines,
        skip_after_header=len(between) if commented else skip_after,
    )
    if commented and not explicit:
        reasons.append(f"the header begins with the comment sign {dialect.comment}")
    kept = list(names)
    trailing = shape.last_empty and dialect.delimiter != WHITESPACE and (len(names) < shape.width or not names[-1])
    if trailing:
        reasons.append("each line ends with a delimiter too many")
        dialect, kept = replace(dialect, trailing_delimiter=True), names[: shape.width - 1]
    elif (len(names) == shape.width - 1 or not names[0]) and (counts or len(names) < shape.width):
        reasons.append("the first cell of a row is an index that the header has no name for")
        dialect, kept = replace(dialect, index_column=True), names[len(names) - shape.width + 1 :]
        if not counts:
            about = f"line {head[-1].number + 1} has {len(names)} names for {shape.width} columns"
            other = ", ".join([*(f'"{name}"' for name in names), f'"c{shape.width}"'])
            questions.append(
                Question(about, "the first has no name", "index_column = true", "the last", f"names = [{other}]")
            )
    if len(kept) + dialect.index_column + dialect.trailing_delimiter != shape.width:
        return _without(weighed, replace(guess, num_names=0, top=guess.first), lines)
    if explicit or not all(kept) or len(set(kept)) < len(kept):
        if not explicit:
            reasons.append("the header names a column twice or not at all; its names stand here, each made its own")
        kept = _made_unique(kept)
        skip = first_row if any(not line.commented for line in found[: guess.first]) else 0
        dialect = replace(
            dialect, header_rows=0, header_commented=False, skip_after_header=0, skip_lines=skip, names=(tuple(kept),)
        )
    shift = len(names) - len(kept) if dialect.index_column else 0
    units = (units[shift:] + [""] * len(kept))[: len(kept)]
    return Header(
        dialect=dialect,
        names=tuple(kept),
        units=tuple(units),
        first_row=first_row,
        score=guess.score,
        reasons=tuple(reasons),
        questions=tuple(questions),
    )


def _units(cells: list[str]) -> list[str]:
    """Returns the units in a line that describes the columns; types, ranges and dashes are none."""
    return [cell if is_unit(cell) or not (describes_column(cell) or is_summary(cell)) else "" for cell in cells]


def _or_before(before: str, cell: str) -> str:
    return cell or before


def _come_twice(names: list[str]) -> bool:
    named = [name for name in names if name]
    return len(set(named)) < len(named)


def _counts(rows: Sequence[Line]) -> bool:
    """Returns True if the first cells count the rows."""
    first = [line.cells[0] for line in rows[:_MAX_WEIGHED]]
    return all(map(str.isdecimal, first)) and all(int(b[-9:]) - int(a[-9:]) == 1 for a, b in pairwise(first))


def _is_row(line: Line, what: str, key: str, skipped: int, otherwise: int) -> Question:
    about = f"line {line.number + 1}, {line.text.strip()[:_SHOWN]!r}, {what}"
    return Question(about, "no row", f"{key} = {skipped}", "a row", f"{key} = {otherwise}")


def _rows_above(weighed: _Weighed, stop: int, skip_lines: int) -> list[Question]:
    """Returns a question about lines that are skipped although they look like rows."""
    rows = [line for line, score in zip(weighed.lines[:stop], weighed.rows, strict=False) if score > _LIKE_ROW]
    said = "stands above the names and looks like a row"
    return [_is_row(line, said, "skip_lines", skip_lines, line.number) for line in rows[:1]]


def _above_properties(rows: Sequence[Line], dialect: Dialect, shape: _Shape) -> Header | None:
    """Find the names above many lines that describe each column: its type, its scale, its address."""
    start = next(
        (
            i
            for i, line in enumerate(rows)
            if len(line.cells) == shape.width and kind_of_cell(line.cells[0], dialect.decimal)
        ),
        0,
    )
    run = start
    while run and len(rows[run - 1].cells) == shape.width:
        run -= 1
    block = [line.cells for line in rows[run:start]]
    if not shape.kinds[0] or len(block) <= _MANY_PROPERTIES or len({cells[0] for cells in block}) < len(block):
        return None
    wordy = [cells for cells in block if all(cells) and not any(kind_of_cell(cell, dialect.decimal) for cell in cells)]
    if not wordy or not any(kind_of_cell(cell, dialect.decimal) for cell in block[-1]):
        return None
    names = _made_unique(max(wordy, key=lambda cells: len(set(cells))))
    line, first_row = rows[run].number + 1, rows[start].number
    return Header(
        dialect=replace(dialect, header_rows=0, skip_lines=first_row, names=(tuple(names),)),
        names=tuple(names),
        units=("",) * shape.width,
        first_row=first_row,
        score=0.0,
        reasons=(f"lines {line} to {first_row} say of each column what it is; the names are those that differ most",),
    )


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


def _without(weighed: _Weighed, guess: _Hypothesis, lines: Sequence[Line]) -> Header:
    """Describe a table without a header: columns are called c1, c2, ... by position."""
    shape, first, found = weighed.shape, guess.first, weighed.lines
    rows = [line for line in lines[first:] if not line.commented]
    lead = _lead_in([line.cells for line in rows if len(line.cells) == shape.width], shape.decimal)
    above, first_row = [line for line in found[:first] if not line.commented], rows[lead].number
    skip_lines = first_row if above or lead else 0
    reasons = ["there is no header: columns are called c1, c2, ... by position; rename them as you like"]
    if skip_lines:
        reasons.append(f"{skip_lines} lines stand before the rows")
    stated, questions = None, _rows_above(weighed, first, skip_lines)
    if lead:
        began, rate = rows[0].cells[0], rows[1].cells[0]
        only = f"the first of them says when it began, {began}: that is no row"
        reasons.append(
            only if lead == 1 else f"they say when it began, {began}, and likely the rate, {rate}: those are no rows"
        )
    if lead == 2:
        start_line, rate_line = rows[0].number + 1, rows[1].number + 1
        text = f"line {start_line} has the start, line {rate_line} the rate"
        stated = StatedRate(number_of(rate, shape.decimal), text, start_line=start_line, rate_line=rate_line)
    trailing = shape.last_empty and weighed.dialect.delimiter != WHITESPACE
    if trailing:
        reasons.append("each line ends with a delimiter too many")
    count = shape.width - trailing
    names = tuple(f"c{i + 1}" for i in range(count))
    last = above[-1].cells if above else []
    if (
        len(last) > 1
        and all(last)
        and len(last) != shape.width
        and not any(kind_of_cell(c, shape.decimal) for c in last)
    ):
        said = f"line {above[-1].number + 1} has {len(last)} names for {count} columns"
        reasons.append(f"{said}: which name is whose is for you to say")
        given = ", ".join(f'"{name}"' for name in last[:count])
        questions.append(Question(said, "none fits", 'names = ["c1", ...]', "the first ones fit", f"names = [{given}]"))
    units = _units(found[first - 1].cells if first and weighed.described[first - 1] > 0 else [])
    return Header(
        dialect=replace(
            weighed.dialect, header_rows=0, names=(names,), skip_lines=skip_lines, trailing_delimiter=trailing
        ),
        names=names,
        units=tuple(units[:count]) if len(units) >= count else ("",) * count,
        first_row=first_row,
        score=guess.score,
        reasons=tuple(reasons),
        questions=tuple(questions),
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

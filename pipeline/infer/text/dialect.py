"""Guesses how a text table is cut into cells, from its first few hundred kilobytes: the cut on which most lines agree.

Each guess leaves a reason, which becomes a comment in the schema.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from vlapipe.pipeline.infer.text.cells import cell_score, is_list, is_missing, is_number, is_time_text
from vlapipe.pipeline.infer.text.header import Header, find_header
from vlapipe.pipeline.infer.text.other_lines import kinds_of_lines
from vlapipe.pipeline.infer.text.stated_rate import StatedRate, stated_rate
from vlapipe.pipeline.infer.text.text_head import NoTextError, TextHead, read_text_head
from vlapipe.pipeline.read.csv.json_rows import are_json_lines, cells_of_object, parse_object
from vlapipe.schemas.schema import WHITESPACE, Dialect

__all__ = ["COMMENT_SIGNS", "Table", "look_at_table"]

_SCORED_LINES = 400
_DELIMITERS = (",", ";", "\t", "|", WHITESPACE)
COMMENT_SIGNS = ("#", "%", "//")
_MAX_BROKEN = 32  # lines over which one quoted row may be broken


@dataclass(frozen=True, kw_only=True)
class Table:
    """The first rows of one table. ``units`` has one entry a column, empty if the header names no unit."""

    path: str
    dialect: Dialect
    names: tuple[str, ...]
    units: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    first_line: int  # line of the first row, counted from 1
    num_rows: int  # rows of the whole file; an estimate if the file is packed or large
    whole: bool
    reasons: tuple[str, ...]
    stated: StatedRate | None = None  # the rate of the rows, if the lines above the rows state one


def look_at_table(path: Path, label: str) -> Table | None:
    """Guess a file's dialect and cut its first rows. Returns ``None`` if the file is not a table."""
    try:
        head = read_text_head(path)
    except NoTextError:
        return None
    if head.lines and are_json_lines(head.lines[0].encode()):
        return _objects(head, label)
    lines = _with_broken_cells(list(head.lines))
    reasons = list(head.reasons)
    comment = _guess_comment(lines)
    body = [line for line in lines if line.strip() and not (comment and line.startswith(comment))]
    dialect = _guess_delimiter(body, reasons)
    if dialect is None:
        return None
    dialect = replace(dialect, encoding=head.encoding, comment=comment)
    header = find_header(lines, dialect, lambda line: _cut_line(line, dialect))
    if header is None or not header.names:
        return None
    table = _cut_rows(label, lines, header, reasons)
    footer = _footer(head, table, lines)
    num_rows = len(table.rows) + head.num_lines_below()
    if footer:
        reasons.append(f"the last {footer} lines are no rows")
    return replace(
        table,
        dialect=replace(table.dialect, skip_footer=footer),
        rows=table.rows[: len(table.rows) - footer] if head.whole and footer else table.rows,
        num_rows=num_rows,
        whole=head.whole,
        reasons=tuple(reasons),
        stated=header.stated or stated_rate(lines[: header.first_row]),
    )


def _objects(head: TextHead, label: str) -> Table:
    """Describes a file with a JSON object a line. Lines that are none are left to the reader."""
    rows = []
    for line in head.lines:
        try:
            value = parse_object(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            rows.append(cells_of_object(value))
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    return Table(
        path=label,
        dialect=Dialect(),
        names=names,
        units=("",) * len(names),
        rows=tuple(tuple(row.get(name, "") for name in names) for row in rows),
        first_line=1,
        num_rows=len(rows) + head.num_lines_below(),
        whole=head.whole,
        reasons=("each line is a JSON object: its keys are the columns",),
    )


def _with_broken_cells(lines: list[str]) -> list[str]:
    """Join lines whose quoted cells continue on the next lines, as in printed arrays.

    Blank lines take the place of the joined lines, so that line numbers stay the same. A quote that does not close
    within ``_MAX_BROKEN`` lines is left alone: the reader refuses it.
    """
    joined = list(lines)
    open_at = -1
    for i in [i for i, line in enumerate(lines) if line.count('"') % 2]:
        if open_at < 0 or i - open_at > _MAX_BROKEN:
            open_at = i
            continue
        joined[open_at : i + 1] = [" ".join(lines[open_at : i + 1]), *[""] * (i - open_at)]
        open_at = -1
    return joined


def _guess_comment(lines: list[str]) -> str:
    """Return the comment sign that the first line begins with, or an empty string."""
    first = next((line for line in lines if line.strip()), "")
    return next((sign for sign in COMMENT_SIGNS if first.startswith(sign)), "")


def _cut_line(line: str, dialect: Dialect) -> list[str]:
    """Return the cells of one line, without surrounding blanks."""
    if dialect.delimiter == WHITESPACE:
        return line.split()
    if not dialect.quote or dialect.quote not in line:
        return [cell.strip() for cell in line.split(dialect.delimiter)]
    try:
        cells = next(
            csv.reader([line], delimiter=dialect.delimiter, quotechar=dialect.quote, skipinitialspace=True), []
        )
    except csv.Error:
        return []
    return [cell.strip() for cell in cells]


def _guess_delimiter(body: list[str], reasons: list[str]) -> Dialect | None:
    """Find the delimiter and decimal sign with which most lines have equally many cells, and cells are numbers."""
    sample = body[:_SCORED_LINES]
    if not sample:
        return None
    quote = _guess_quote(sample)
    best, best_score = None, 0.0
    for delimiter in _DELIMITERS:
        for decimal in (".", ","):
            if delimiter == decimal:
                continue
            dialect = Dialect(delimiter=delimiter, decimal="," if decimal == "," else ".", quote=quote)
            score = _score(sample, dialect)
            if score > best_score + 1e-9:
                best, best_score = dialect, score
    if best is None:
        return _single_column(sample)
    if best.quote and any(re.search(rf"{re.escape(best.delimiter)} +{best.quote}", line) for line in sample):
        best = replace(best, skip_blanks=True)
        reasons.append("blanks before a quote belong to the delimiter")
    what = {"\t": "tab", WHITESPACE: "runs of blanks"}.get(best.delimiter, repr(best.delimiter))
    if best.delimiter != ",":
        reasons.append(f"delimiter {what}: under it most lines have the same number of cells")
    if best.decimal == ",":
        reasons.append("decimal comma: cells such as '1,5' are numbers by it")
    if quote != '"':
        reasons.append(f"quote {quote}: cells begin and end with it")
    return best


def _guess_quote(sample: list[str]) -> str:
    """Return the single quote if most lines, or all names of the first, wrap cells in it; else the double quote."""
    if any('"' in line for line in sample):
        return '"'
    wrapped = sum(1 for line in sample if re.search(r"(^|[,;\t|])\s*'[^']*'\s*($|[,;\t|])", line))
    names = re.fullmatch(r"\s*'[^']*'(\s*[,;\t|]\s*'[^']*')+\s*", sample[0])
    return "'" if wrapped > len(sample) / 2 or names else '"'


def _score(sample: list[str], dialect: Dialect) -> float:
    rows = [_cut_line(line, dialect) for line in sample]
    counts = Counter(len(row) for row in rows if len(row) > 1)
    if not counts:
        return 0.0
    # On a tie, the width of the last line wins: a preamble comes first, and rows come later.
    width = max(counts, key=lambda n: (counts[n], n == len(rows[-1]), n))
    fitting = [row for row in rows if len(row) == width]
    body = fitting[1:] or fitting  # the first line is likely a header
    # An empty last cell is left out: otherwise a trailing tab would speak for blanks as the delimiter.
    cells = [cell for row in body for cell in (row if row[-1] else row[:-1])]
    score = sum(cell_score(cell, dialect.decimal) for cell in cells) / len(cells)
    return score * (len(fitting) / len(sample)) ** 2


def _single_column(sample: list[str]) -> Dialect | None:
    """Return a plain dialect if each line holds one number or time, as in a file of stamps."""
    rows = [line.strip() for line in sample]
    good = sum(1 for row in rows if is_number(row) or is_time_text(row))
    return Dialect() if good >= max(1, len(rows) - 1) and len(rows) > 1 else None


def _cut_rows(label: str, lines: list[str], header: Header, reasons: list[str]) -> Table:
    dialect = header.dialect
    reasons += header.reasons
    width = len(header.names) + dialect.index_column + dialect.trailing_delimiter
    rows: list[tuple[str, ...]] = []
    others: list[tuple[int, list[str]]] = []
    for number, line in enumerate(lines[header.first_row :], header.first_row + 1):
        if not line.strip() or (dialect.comment and line.startswith(dialect.comment)):
            continue
        cells = _cut_line(line, dialect)
        if len(cells) == width:
            first = int(dialect.index_column)
            rows.append(tuple(cells[first : first + len(header.names)]))
        else:
            others.append((number, cells))
    if kinds := kinds_of_lines(rows, others):
        reasons.append(kinds)
    return Table(
        path=label,
        dialect=dialect,
        names=header.names,
        units=header.units,
        rows=tuple(rows),
        first_line=header.first_row + 1,
        num_rows=len(rows),
        whole=True,
        reasons=(),
    )


def _footer(head: TextHead, table: Table, lines: list[str]) -> int:
    """Count the lines at the end of the file that are complete lines of text but not rows."""
    last, ended = (lines, head.ended) if head.whole else head.last_lines()
    width = len(table.names) + table.dialect.index_column + table.dialect.trailing_delimiter
    count = 0
    for line in reversed(last):
        cells = _cut_line(line, table.dialect)
        like_row = [c for c in cells if is_number(c, table.dialect.decimal) or is_list(c)]
        comment = table.dialect.comment
        if len(cells) == width or not line.strip() or (comment and line.startswith(comment)):
            break
        # A row that was cut off begins with numbers. That is a fault to report, not a footer to skip.
        if not ended or (like_row and not (cells and not is_number(cells[0]) and not is_missing(cells[0]))):
            return 0
        count += 1
    return count if count < len(last) / 2 else 0

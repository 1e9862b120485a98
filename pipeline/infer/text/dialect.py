"""Guesses how a text table is cut into cells, from its first few hundred kilobytes.

Each way to cut (delimiter, decimal sign, thousands sign, header) is an option with a score; the likeliest comes first.
"""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from vlapipe.pipeline.infer.choices import Option, Question
from vlapipe.pipeline.infer.evidence import Evidence, log_odds, said
from vlapipe.pipeline.infer.lexicon import Lexicon, lexicon
from vlapipe.pipeline.infer.text.cells import (
    THOUSANDS,
    cell_score,
    is_missing,
    is_number,
    is_summary,
    is_time_text,
    kind_of_cell,
    number_of,
    without_groups,
)
from vlapipe.pipeline.infer.text.header import Header, Line, find_headers
from vlapipe.pipeline.infer.text.other_lines import kinds_of_lines
from vlapipe.pipeline.infer.text.stated_rate import StatedRate, stated_rate
from vlapipe.pipeline.infer.text.text_head import NoTextError, TextHead, read_text_head
from vlapipe.pipeline.read.csv.json_rows import are_json_lines, cells_of_object, parse_object
from vlapipe.schemas.schema import WHITESPACE, Dialect

__all__ = ["COMMENT_SIGNS", "Table", "look_at_table", "table_options"]

_SCORED_LINES = 400
_SCORED_CELLS = 20_000
_DELIMITERS = (",", ";", "\t", "|", WHITESPACE)
_NAMED = {"\t": "tab", WHITESPACE: "runs of blanks"}
COMMENT_SIGNS = ("#", "%", "//", ";")
_MAX_BROKEN = 32  # lines over which one quoted row may be broken
_SHOWN = 60
_WORTH_READING = 6.0  # log-odds behind the likeliest
_STATED_DELIMITER = re.compile(r"sep=(.)\s*\Z")  # as spreadsheets write
_WORDS = re.compile(r"'[^']*'|\"[^\"]*\"|\S+")


@dataclass(frozen=True, kw_only=True)
class Table:
    """The first rows of one table. ``units`` has one entry a column, empty if the header names no unit.

    The cells of ``rows`` have no thousands signs. ``questions`` are about lines that are left out and may be rows or
    names. The likeliest table of a file has all ``options`` to cut it, itself first.
    """

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
    questions: tuple[Question, ...] = ()
    options: tuple[Option[Table], ...] = field(default=(), repr=False, compare=False)


def look_at_table(path: Path, label: str) -> Table | None:
    """Cut a file's first rows in the likeliest way. Returns ``None`` if the file is not a table."""
    options = table_options(path, label)
    return replace(options[0].value, options=options) if options else None


def table_options(path: Path, label: str) -> tuple[Option[Table], ...]:
    """Cut a file's first rows in each likely way, the likeliest first. Returns none if the file is not a table."""
    try:
        return _options(read_text_head(path), label, lexicon())
    except NoTextError:
        return ()


@lru_cache(maxsize=32)
def _options(head: TextHead, label: str, _words: Lexicon) -> tuple[Option[Table], ...]:
    if head.lines and are_json_lines(head.lines[0].encode()):
        table = _objects(head, label)
        return (Option(value=table, score=0.0, says="a JSON object a line", line="", reasons=table.reasons),)
    lines = _with_broken_cells(list(head.lines))
    comment = _guess_comment(lines)
    found: list[tuple[float, Table]] = []
    for score, dialect, reasons in _cuts(lines, comment):
        dialect = replace(dialect, encoding=head.encoding, comment=comment)
        headers = find_headers(_cut_lines(lines, dialect), dialect, partial(_cut_line, dialect=dialect))
        # Beside the likeliest header of the likeliest cut, either the cut or the header is another.
        for header in headers[: 1 if found else None]:
            behind = score - (headers[0].score - header.score)
            if not found or found[0][0] - behind < _WORTH_READING:
                found.append((behind, _cut_rows(head, label, lines, header, [*head.reasons, *reasons])))
    found.sort(key=lambda each: -each[0])
    facts = [_facts(table) for _, table in found]
    differ = [key for key in (facts[0] if facts else ()) if len({str(each[key]) for each in facts}) > 1]
    return tuple(
        Option(
            value=table,
            score=score,
            says=", ".join(filter(None, (fact[key][0] for key in differ))),
            line=", ".join(f"{key} = {fact[key][1]}" for key in differ),
            reasons=table.reasons,
        )
        for (score, table), fact in zip(found, facts, strict=True)
    )


def _facts(table: Table) -> dict[str, tuple[str, str]]:
    """Returns what a schema says of the cut, each in words and as a value of TOML."""
    dialect = table.dialect
    header = f"names in line {table.first_line - dialect.skip_after_header - 1}" if dialect.header_rows else "no names"
    named = _NAMED.get(dialect.delimiter, repr(dialect.delimiter))
    groups = f"thousands parted by {dialect.thousands!r}" if dialect.thousands else "no thousands sign"
    shown = ", ".join(table.names[:3])
    return {
        "delimiter": (f"cells between {named}", json.dumps(dialect.delimiter)),
        "decimal": (f"a decimal {'comma' if dialect.decimal == ',' else 'point'}", json.dumps(dialect.decimal)),
        "thousands": (groups, json.dumps(dialect.thousands)),
        "header": (header, str(dialect.header_rows or "false")),
        "skip_lines": (f"the first row in line {table.first_line}", str(dialect.skip_lines)),
        "skip_after_header": ("", str(dialect.skip_after_header)),
        "names": (f"columns called {shown}", json.dumps(table.names)[:_SHOWN] if dialect.names else "..."),
    }


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
    """Return the sign with which the first line begins, or with which some but less than half of the others do."""
    given = [line for line in lines if line.strip()]
    for sign in COMMENT_SIGNS:
        marked = [
            line for line in given if line.startswith(sign) and line[len(sign) :].lstrip()[:1] not in (",", ";", "|")
        ]
        parts = sign == ";" and (marked[:1] != given[:1] or sum(sign in line for line in given) > len(marked))
        if marked and not parts and (marked[0] is given[0] or 2 * len(marked) < len(given)):
            return sign
    return ""


def _cut_lines(lines: list[str], dialect: Dialect) -> list[Line]:
    """Cut the lines that are not blank. Comments stay whole, and count only above the first row."""
    found = []
    for number, line in enumerate(lines):
        if line.strip():
            commented = bool(dialect.comment) and line.startswith(dialect.comment)
            found.append(Line(number, line, [line] if commented else _cut_line(line, dialect), commented))
    return found


def _cut_line(line: str, dialect: Dialect) -> list[str]:
    """Return the cells of one line, without surrounding blanks and thousands signs."""
    quoted = bool(dialect.quote) and dialect.quote in line
    if dialect.delimiter == WHITESPACE:
        cells = [word.strip(dialect.quote) for word in _WORDS.findall(line)] if quoted else line.split()
    elif not quoted:
        cells = line.split(dialect.delimiter)
    else:
        try:
            reader = csv.reader([line], delimiter=dialect.delimiter, quotechar=dialect.quote, skipinitialspace=True)
            cells = next(reader, [line])
        except csv.Error:
            cells = [line]
    return [without_groups(cell.strip(), dialect.decimal, dialect.thousands) for cell in cells]


def _cuts(lines: list[str], comment: str) -> list[tuple[float, Dialect, list[str]]]:
    """Weigh each delimiter with each decimal and thousands sign. Returns the likely ones, the likeliest first."""
    sample = [line for line in lines if line.strip() and not (comment and line.startswith(comment))][:_SCORED_LINES]
    if not sample:
        return []
    stated = _STATED_DELIMITER.match(sample[0])
    sample = sample[1:] if stated else sample
    quote = _guess_quote(sample)
    found = []
    for delimiter in dict.fromkeys([*_DELIMITERS, *([stated[1]] if stated else [])]):
        plain = Dialect(delimiter=delimiter, quote=quote)
        cut = [_cut_line(line, plain) for line in sample]
        counts = Counter(len(row) for row in cut if len(row) > 1)
        if not counts:
            continue
        # On a tie, the width of the last line wins: a preamble comes first, and rows come later.
        width = max(counts, key=lambda n: (counts[n], n == len(cut[-1]), n))
        fitting = [row for row in cut if len(row) == width]
        rows = (fitting[1:] or fitting)[: max(20, _SCORED_CELLS // width)]  # the first line is likely a header
        share = len(fitting) / len(sample)
        about = [
            Evidence("tabs_alike", _tabs_alike(sample) if delimiter == "\t" else 0.0),
            Evidence("delimiter_stated", float(stated is not None and stated[1] == delimiter)),
        ]
        for decimal, thousands in _notations(rows):
            if decimal == delimiter and not any(decimal in cell for row in rows for cell in row):
                continue
            evidence = [*about, *_read_as(rows, share, delimiter, decimal, thousands)]
            found.append(
                (
                    log_odds("cut", evidence),
                    replace(plain, decimal=decimal, thousands=thousands),
                    list(said("cut", evidence)),
                )
            )
    found = sorted((each for each in found if each[0] > 0), key=lambda each: -each[0])
    if not found:
        return [(0.0, single, [])] if (single := _single_column(sample)) else []
    best = [each for each in found if found[0][0] - each[0] < _WORTH_READING]
    return [_with_quote(each, sample) for each in best]


def _with_quote(cut: tuple[float, Dialect, list[str]], sample: list[str]) -> tuple[float, Dialect, list[str]]:
    score, dialect, reasons = cut
    parts = re.escape(dialect.delimiter)
    if dialect.quote and any(re.search(rf"{parts} +{dialect.quote}", line) for line in sample):
        dialect = replace(dialect, skip_blanks=True)
        reasons = [*reasons, "blanks before a quote belong to the delimiter"]
    if dialect.quote != '"':
        reasons = [*reasons, f"quote {dialect.quote}: cells begin and end with it"]
    return score, dialect, reasons


def _guess_quote(sample: list[str]) -> str:
    """Return the single quote if most lines, or all names of the first, wrap cells in it; else the double quote."""
    if any('"' in line for line in sample):
        return '"'
    wrapped = sum(1 for line in sample if re.search(r"(^|[,;\t|])\s*'[^']*'\s*($|[,;\t|])", line))
    names = re.fullmatch(r"\s*'[^']*'(\s*[,;\t|]\s*'[^']*')+\s*", sample[0])
    return "'" if wrapped > len(sample) / 2 or names else '"'


def _tabs_alike(sample: list[str]) -> float:
    """Returns how clearly the lines have as many tabs each: 1 if all do, 0 if one in five does not."""
    counts = Counter(line.count("\t") for line in sample if "\t" in line)
    return max(0.0, 1 - 5 * (1 - max(counts.values()) / len(sample))) if counts else 0.0


def _notations(rows: list[list[str]]) -> Iterator[tuple[Any, Any]]:
    """Yields the pairs of a decimal sign and a thousands sign with which some cells are numbers."""
    yield ".", ""
    if any("," in cell and is_number(cell, ",") for row in rows for cell in row):
        yield ",", ""
    signs = {sign for _, sign in THOUSANDS if any(sign in cell for row in rows for cell in row)}
    commas = any("," in cell for row in rows for cell in row)
    for (decimal, sign), pattern in THOUSANDS.items():
        if (
            sign in signs
            and (decimal == "." or sign == "." or commas)
            and any(pattern.match(cell) for row in rows for cell in row if sign in cell)
        ):
            yield decimal, sign


def _read_as(rows: list[list[str]], share: float, delimiter: str, decimal: str, thousands: str) -> Iterator[Evidence]:
    """Yields how well the cells are numbers by two signs. ``share`` is that of the lines cut alike."""
    # An empty last cell is left out: otherwise a trailing tab would speak for blanks as the delimiter.
    cells = [cell for row in rows for cell in (row if row[-1] else row[:-1])]
    score = sum(cell_score(without_groups(cell, decimal, thousands), decimal) for cell in cells) / max(1, len(cells))
    shown = (
        ""
        if delimiter == ","
        else f"delimiter {_NAMED.get(delimiter, repr(delimiter))}: under it most lines have the same number of cells"
    )
    yield Evidence("cells_alike", score * share**2, shown)
    if not thousands:
        if decimal == ",":
            yield Evidence("decimal_comma", 1.0, "decimal comma: cells such as '1,5' are numbers by it")
        return
    pattern, jumps = THOUSANDS[decimal, thousands], []
    grouped = [[cell for cell in column if pattern.match(cell)] for column in zip(*rows, strict=True)]
    example = next((column[0] for column in grouped if column), "")
    yield Evidence("thousands_sign", 1.0)
    for column in (column for column, some in zip(zip(*rows, strict=True), grouped, strict=True) if some):
        given = [cell for cell in column if not is_missing(cell)]
        broken = sum(thousands in cell and not pattern.match(cell) and not is_time_text(cell) for cell in given)
        broken += sum(cell.lstrip("+-").isdigit() and len(cell.lstrip("+-")) > 3 for cell in given)
        yield Evidence("groups_broken", min(1.0, 10 * broken / len(given)))
        jumps += _jumps(given, decimal, thousands)
    clear = sum(jumps) / len(jumps) if jumps else 0.2 if thousands in {",", "."} else 0.6
    yield Evidence(
        "groups_of_three",
        max(0.0, clear),
        f"{thousands!r} parts thousands: {example!r} goes on from numbers below 1000",
    )


def _jumps(cells: Sequence[str], decimal: str, thousands: str) -> list[float]:
    """Returns for neighbours of which one has a thousands sign how much nearer they are if it is one: from -1 to 1."""
    found = []
    for pair in pairwise(cells):
        if (thousands in pair[0]) == (thousands in pair[1]):
            continue
        far = []
        for read in (
            lambda cell: without_groups(cell, decimal, thousands),
            lambda cell: cell.replace(thousands, decimal, 1),
        ):
            one, other = (number_of(read(cell), decimal) for cell in pair)
            far.append(abs(math.log10(1 + abs(one)) - math.log10(1 + abs(other))))
        if not any(map(math.isnan, far)) and sum(far) > 0:
            found.append((far[1] - far[0]) / (far[1] + far[0]))
    return found


def _single_column(sample: list[str]) -> Dialect | None:
    """Return a plain dialect if each line holds one number or time, as in a file of stamps."""
    rows = [line.strip() for line in sample]
    good = sum(1 for row in rows if is_number(row) or is_time_text(row))
    return Dialect() if good >= max(1, len(rows) - 1) and len(rows) > 1 else None


def _cut_rows(head: TextHead, label: str, lines: list[str], header: Header, reasons: Sequence[str]) -> Table:
    dialect = header.dialect
    num_names, first = len(header.names), int(dialect.index_column)
    width = num_names + dialect.index_column + dialect.trailing_delimiter
    rows: list[tuple[str, ...]] = []
    others: list[tuple[int, list[str]]] = []
    for number, line in enumerate(lines[header.first_row :], header.first_row + 1):
        if not line.strip() or (dialect.comment and line.startswith(dialect.comment)):
            continue
        cells = _cut_line(line, dialect)
        if len(cells) == width:
            rows.append(tuple(cells[first : first + num_names]))
        else:
            others.append((number, cells))
    kinds = kinds_of_lines(rows, others)
    footer, lost = _footer(head, header, lines, width)
    ended = [f"the last {footer} lines are no rows"] if footer else []
    return Table(
        path=label,
        dialect=replace(dialect, skip_footer=footer),
        names=header.names,
        units=header.units,
        rows=tuple(rows[: len(rows) - lost] if head.whole and lost else rows),
        first_line=header.first_row + 1,
        num_rows=len(rows) - lost + head.num_lines_below(),
        whole=head.whole,
        reasons=(*reasons, *header.reasons, *([kinds] if kinds else []), *ended),
        stated=header.stated or stated_rate(lines[: header.first_row]),
        questions=(*header.questions, *_encodings(head, header)),
    )


def _encodings(head: TextHead, header: Header) -> list[Question]:
    """Returns a question about the encoding if no bytes tell which it is."""
    if not head.is_doubtful:
        return []
    shown = next((name for name in header.names if not name.isascii()), "")
    line = f'encoding = "{head.encoding}"'
    return [Question("encoding", f"names read as {shown!r}", line, "other letters", 'encoding = "..."')]


def _footer(head: TextHead, header: Header, lines: list[str], width: int) -> tuple[int, int]:
    """Count the lines at the end of the file that are no rows, and how many of them have as many cells as rows."""
    last, ended = (lines[header.first_row :], head.ended) if head.whole else head.last_lines()
    dialect, count, wide = header.dialect, 0, 0
    for line in reversed(last):
        cells = _cut_line(line, dialect)
        if not line.strip():
            continue
        if dialect.comment and line.startswith(dialect.comment):
            break
        given = [cell for cell in cells if not is_missing(cell)]
        data = [cell for cell in given if kind_of_cell(cell, dialect.decimal)]
        if len(cells) == width and width > 1:
            if not (given and is_summary(given[0])) and (data or not given or 2 * len(given) > width):
                break
            wide += 1
        # A row that was cut off begins with numbers. That is a fault to report, not a footer to skip.
        elif data and (not ended or kind_of_cell(given[0], dialect.decimal)):
            return 0, 0
        count, ended = count + 1, True
    return (count, wide) if count < len(last) / 2 else (0, 0)

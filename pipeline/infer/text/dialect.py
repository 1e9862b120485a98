"""Guesses how a text table is cut into cells, from its first few hundred kilobytes.

Each way to cut (delimiter, decimal sign, thousands sign, header) is an option with a score; the likeliest comes first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

from vlapipe.pipeline.infer.choices import Option, Question
from vlapipe.pipeline.infer.lexicon import Lexicon, lexicon
from vlapipe.pipeline.infer.text.cells import is_missing, is_summary, kind_of_cell
from vlapipe.pipeline.infer.text.cuts import NAMED, WORTH_READING, cut_line, cut_lines, guess_comment, likely_cuts
from vlapipe.pipeline.infer.text.header import Header, find_headers
from vlapipe.pipeline.infer.text.other_lines import kinds_of_lines
from vlapipe.pipeline.infer.text.stamped_lines import stamped_lines
from vlapipe.pipeline.infer.text.stated_rate import StatedRate, stated_rate
from vlapipe.pipeline.infer.text.text_head import NoTextError, TextHead, read_text_head
from vlapipe.pipeline.read.csv.json_rows import are_json_lines, cells_of_object, parse_object
from vlapipe.schemas.schema import Dialect

__all__ = ["Table", "look_at_table"]

_MAX_BROKEN = 32  # lines over which one quoted row may be broken
_SHOWN = 60


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
    try:
        options = _options(read_text_head(path), label, lexicon())
    except NoTextError:
        return None
    return replace(options[0].value, options=options) if options else None


@lru_cache(maxsize=32)
def _options(head: TextHead, label: str, _words: Lexicon) -> tuple[Option[Table], ...]:
    if head.lines and are_json_lines(head.lines[0].encode()):
        table = _objects(head, label)
        return (Option(value=table, score=0.0, says="a JSON object a line", line="", reasons=table.reasons),)
    stamped = stamped_lines(head.lines)
    lines = _with_broken_cells(list(head.lines if stamped is None else stamped.lines))
    comment = guess_comment(lines)
    found: list[tuple[float, Table]] = []
    for score, dialect, reasons in likely_cuts(lines, comment):
        dialect = replace(dialect, encoding=head.encoding, comment=comment)
        headers = find_headers(cut_lines(lines, dialect), dialect, partial(cut_line, dialect=dialect))
        # Beside the likeliest header of the likeliest cut, either the cut or the header is another.
        for header in headers[: 1 if found else None]:
            behind = score - (headers[0].score - header.score)
            if found and found[0][0] - behind >= WORTH_READING:
                continue
            about = [*head.reasons, *reasons]
            if stamped is None:
                found.append((behind, _cut_rows(head, label, lines, header, about)))
            else:
                with_stamps, stamped_rows = stamped.put_back(header)
                table = _cut_rows(head, label, stamped_rows, with_stamps, about)
                found.append((behind, replace(table, dialect=stamped.row_line(table.dialect, header.first_row))))
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
    named = NAMED.get(dialect.delimiter, repr(dialect.delimiter))
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


def _cut_rows(head: TextHead, label: str, lines: list[str], header: Header, reasons: Sequence[str]) -> Table:
    dialect = header.dialect
    num_names, first = len(header.names), int(dialect.index_column)
    width = num_names + dialect.index_column + dialect.trailing_delimiter
    rows: list[tuple[str, ...]] = []
    others: list[tuple[int, list[str]]] = []
    for number, line in enumerate(lines[header.first_row :], header.first_row + 1):
        if not line.strip() or (dialect.comment and line.startswith(dialect.comment)):
            continue
        cells = cut_line(line, dialect)
        cells += [""] * (width - len(cells)) if dialect.short_rows else []
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
        cells = cut_line(line, dialect)
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

"""Guesses the signs by which a text is cut into numbers: comment, quote, delimiter, decimal and thousands sign."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from vlapipe.pipeline.infer.evidence import Evidence, log_odds, said
from vlapipe.pipeline.infer.lexicon import lexicon, words_in
from vlapipe.pipeline.infer.text.cells import (
    THOUSANDS,
    cell_score,
    is_missing,
    is_number,
    is_time_text,
    number_of,
    without_groups,
)
from vlapipe.pipeline.infer.text.header_lines import Line
from vlapipe.schemas.schema import WHITESPACE, Dialect

__all__ = ["COMMENT_SIGNS", "NAMED", "WORTH_READING", "cut_line", "cut_lines", "guess_comment", "likely_cuts"]

COMMENT_SIGNS = ("#", "%", "//", ";")
NAMED = {"\t": "tab", WHITESPACE: "runs of blanks"}
WORTH_READING = 6.0  # log-odds behind the likeliest
_DELIMITERS = (",", ";", "\t", "|", WHITESPACE)
_SCORED_LINES = 400
_SCORED_CELLS = 20_000
_STATED_DELIMITER = re.compile(r"sep=(.)\s*\Z")  # as spreadsheets write
_WORDY_LINES = 40
_COMMA_IN_TIME = re.compile(r"\d:\d\d,\d")
_WORDS = re.compile(r"'[^']*'|\"[^\"]*\"|\S+")


def likely_cuts(lines: list[str], comment: str) -> list[tuple[float, Dialect, list[str]]]:
    """Weigh each delimiter with each decimal and thousands sign. Returns the likely ones, the likeliest first."""
    sample = [line for line in lines if line.strip() and not (comment and line.startswith(comment))][:_SCORED_LINES]
    if not sample:
        return []
    stated = _STATED_DELIMITER.match(sample[0])
    sample = sample[1:] if stated else sample
    quote = _guess_quote(sample)
    commas = _written_with_commas(lines[:_SCORED_LINES])
    found = []
    for delimiter in dict.fromkeys([*_DELIMITERS, *([stated[1]] if stated else [])]):
        plain = Dialect(delimiter=delimiter, quote=quote)
        cut = [cut_line(line, plain) for line in sample]
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
            evidence += commas if decimal == "," else []
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
    best = [each for each in found if found[0][0] - each[0] < WORTH_READING]
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
    """Returns how clearly the later lines have as many tabs each: 1 if all do, 0 if one in five does not."""
    sample = sample[len(sample) // 2 :]  # lines above the rows have other numbers of them
    counts = Counter(line.count("\t") for line in sample if "\t" in line)
    return max(0.0, 1 - 5 * (1 - max(counts.values()) / len(sample))) if counts else 0.0


def _written_with_commas(lines: list[str]) -> list[Evidence]:
    """Says how clearly words of a language with decimal commas, and times of day with commas, stand in the lines."""
    known = lexicon().phrases("languages", "decimal_comma")
    words = sorted({word for line in lines[:_WORDY_LINES] for word in words_in(line)} & set(known))
    said = f"decimal comma: {', '.join(words[:3])} are words of a language that writes it"
    return [
        Evidence("comma_language", min(1.0, len(words) / 2), said),
        Evidence("comma_in_time", float(any(map(_COMMA_IN_TIME.search, lines)))),
    ]


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
        else f"delimiter {NAMED.get(delimiter, repr(delimiter))}: under it most lines have the same number of cells"
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


def guess_comment(lines: list[str]) -> str:
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


def cut_lines(lines: list[str], dialect: Dialect) -> list[Line]:
    """Cut the lines that are not blank. Comments stay whole, and count only above the first row."""
    found = []
    for number, line in enumerate(lines):
        if line.strip():
            commented = bool(dialect.comment) and line.startswith(dialect.comment)
            found.append(Line(number, line, [line] if commented else cut_line(line, dialect), commented))
    return found


def cut_line(line: str, dialect: Dialect) -> list[str]:
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

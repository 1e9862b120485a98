"""Explains why a file that looks like a table of numbers is not one: the line, its content, and the cure."""

from __future__ import annotations

import re
from pathlib import Path

from vlapipe.pipeline.infer.columns.columns import columns_of
from vlapipe.pipeline.infer.text.cells import is_fortran_number
from vlapipe.pipeline.infer.text.cuts import COMMENT_SIGNS
from vlapipe.pipeline.infer.text.dialect import look_at_table
from vlapipe.pipeline.infer.text.text_head import NoTextError, read_text_head

__all__ = ["why_no_table"]

_SHOWN = 60
_NAMED_NUMBER = re.compile(r"\s*[A-Za-z_]\w*\s*[:=]\s*[+-]?(\d|\.\d)")


def why_no_table(path: Path, label: str) -> tuple[str, str]:
    """Return why the file at ``path`` cannot be read as a table of numbers, and the cure."""
    try:
        head = read_text_head(path)
    except NoTextError as error:
        return f"{label} {error}", ""
    given = [(number, line) for number, line in enumerate(head.lines, 1) if line.strip()]
    if not given:
        return f"{label} holds nothing but blanks", ""
    first_line, first = given[0]
    sign = next((sign for sign in COMMENT_SIGNS if all(line.startswith(sign) for _, line in given)), "")
    if sign:
        shown = _shown(first)
        return f"{label}: each line begins with {sign!r}, as comments do, such as line {first_line}: {shown}", (
            f"take the {sign!r} away from the lines that are rows"
        )
    table = look_at_table(path, label)
    if table is None:
        what = "there is one line only" if len(given) == 1 else "no delimiter cuts the lines into as many cells each"
        return (
            f"{label}: {what}; line {first_line} is {_shown(first)}",
            "write a row a sample, its cells between commas",
        )
    if not table.rows or not table.names:
        return f"{label}: line {first_line} names columns, and no row stands below", ""
    columns = columns_of(table)
    if any(column.kind == "number" for column in columns):
        texts = [column for column in columns if column.kind == "text"]
        if not texts:
            return f"{label}: only its clock holds numbers", ""
        found = f"{texts[0].name!r} holds text, such as {_shown(texts[0].cells[0])} in line {table.first_line}"
        return f"{label}: only its clock holds numbers; {found}", "write its cells as plain numbers"
    row = table.rows[0]
    cell = next((cell for cell in row if is_fortran_number(cell) or _NAMED_NUMBER.match(cell)), row[0])
    found = f"{label}, line {table.first_line}: no cell is a number, such as {_shown(cell)}"
    if is_fortran_number(cell):
        return f"{found} with Fortran's D for an exponent", "write E for D"
    if _NAMED_NUMBER.match(cell):
        return f"{found}, which has its name beside it", "write the names once, in a header"
    return found, ""


def _shown(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")

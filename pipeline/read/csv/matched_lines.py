"""Makes a table of the lines in which a regular expression finds something; its groups are the cells."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import Dialect

__all__ = ["rows_of_matched_lines"]

_LINE_END = re.compile(r"\r\n|\n|\r")
_SHOWN = 60


def rows_of_matched_lines(
    text: bytes, dialect: Dialect, label: str, findings: Findings
) -> tuple[bytes, Dialect] | None:
    """Returns a plain table and its dialect. Other lines are left blank, so that each row stands on its own line.

    Returns ``None`` if no line is a row, which is reported.
    """
    assert dialect.row_line is not None
    find = re.compile(dialect.row_line).search
    lines = _LINE_END.split(text.decode())
    page = io.StringIO()
    write = csv.writer(page, lineterminator="\n").writerow
    has_rows = False
    for line in lines:
        found = find(line)
        if found is None:
            page.write("\n")
        else:
            has_rows = True
            write([group or "" for group in found.groups()])
    if not has_rows:
        first = next((line for line in lines if line.strip()), "")
        expected = f"lines in which {dialect.row_line!r} finds a row"
        findings.add("csv.no_such_kind", label, expected=expected, found=f"none; the first is {first[:_SHOWN]!r}")
        return None
    plain = Dialect(header_rows=0, names=dialect.names, row_line=dialect.row_line, decimal=dialect.decimal)
    return page.getvalue().encode(), replace(plain, quote='"')

"""Makes a table of JSON objects, a row each. Keys are columns, those of inner objects as ``a.b``; a list is a cell."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import Dialect

__all__ = ["are_json_lines", "cells_of_object", "parse_object", "rows_of_json_lines", "table_of_objects"]

_LINE_END = re.compile(rb"\r\n|\n|\r")
_SHOWN = 60


def are_json_lines(text: bytes) -> bool:
    """Returns whether the first line that is not blank is a JSON object, which no line of a CSV table is."""
    first = next((line for line in _LINE_END.split(text.lstrip(), maxsplit=1) if line), b"")
    if not first.startswith(b"{"):
        return False
    try:
        return isinstance(parse_object(first), dict)
    except (ValueError, RecursionError):
        return False


def rows_of_json_lines(
    text: bytes, label: str, findings: Findings, *, keep_bad: bool = False
) -> tuple[bytes, Dialect] | None:
    """Returns a plain table of a text with an object a line, and its dialect. Row and object stand on the same line.

    A line that is no object is reported, and the result is ``None``. With ``keep_bad`` it becomes a row with another
    number of cells, which the reader of tables leaves out and counts.
    """
    rows: list[dict[str, str] | None] = []  # None for a blank line
    bad = set()
    lines = _LINE_END.split(text)
    for number, line in enumerate(lines if lines[-1].strip() else lines[:-1], 1):
        if not line.strip():
            rows.append(None)
            continue
        try:
            value = parse_object(line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            rows.append(cells_of_object(value))
        else:
            shown = repr(line[:_SHOWN].decode(errors="replace"))
            if not keep_bad:
                findings.add("csv.bad_json", label, line=number, expected="a JSON object", found=shown)
            bad.add(len(rows))
            rows.append({})
    if bad and not keep_bad:
        return None
    return table_of_objects(rows, bad)


def parse_object(text: bytes | str) -> Any:
    """Returns the value of a JSON text with its numbers as they are printed.

    Raises:
        ValueError: the text is no JSON.
        RecursionError: the text is nested too deeply.
    """
    return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)


def table_of_objects(
    rows: Sequence[dict[str, str] | None], bad: set[int] | frozenset[int] = frozenset()
) -> tuple[bytes, Dialect]:
    """Returns the rows as a plain table without a header, and its dialect. A key that a row lacks is an empty cell."""
    names = tuple(dict.fromkeys(name for row in rows if row is not None for name in row))
    page = io.StringIO()
    write = csv.writer(page, lineterminator="\n").writerow
    for number, row in enumerate(rows):
        if row is None:
            page.write("\n")
        elif number in bad:
            write([""] * (len(names) + 1))
        else:
            write([row.get(name, "") for name in names])
    return page.getvalue().encode(), Dialect(header_rows=0, names=(names,))


def cells_of_object(value: dict[str, Any]) -> dict[str, str]:
    """Returns the name and the text of each value."""
    return dict(_cells(value))


def _cells(value: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _cells(item, f"{above}{key}.")
        elif isinstance(item, list):
            yield f"{above}{key}", " ".join(["[", ", ".join(map(_plain, item)), "]"])
        else:
            yield f"{above}{key}", _plain(item)


def _plain(item: Any) -> str:
    text = item if isinstance(item, str) else "" if item is None else json.dumps(item)
    return re.sub(r"[\r\n]+", " ", text)

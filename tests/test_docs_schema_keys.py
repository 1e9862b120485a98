"""docs/schema-keys.md lists every key that the schema's parser asks for, with its kind of value and its default."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from schema_keys import Asked, keys_in_the_code, keys_of_the_parser

from vlapipe.schemas.toml_table import REQUIRED

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "schema-keys.md").read_text(encoding="utf-8")
ASKED = keys_of_the_parser()
WITH_ROWS, IMAGES = ("streams.* csv", "streams.* array"), "streams.* image"
CSV_FIELD, ARRAY_FIELD = "streams.*.fields.* csv", "streams.*.fields.* array"
# What a table lists: the keys that all of the first have, but those that all of the second have.
TABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "At the top": (("",), ()),
    "Episodes": (("episodes",), ()),
    "Instruction": (("instruction",), ()),
    "Every stream": ((*WITH_ROWS, IMAGES), ()),
    "Streams with rows": (WITH_ROWS, (IMAGES,)),
    "Streams of text tables": (("streams.* csv",), ("streams.* array",)),
    "Streams of arrays": (("streams.* array",), ("streams.* csv",)),
    "Streams of images and videos": ((IMAGES,), WITH_ROWS),
    "Every field": ((CSV_FIELD, ARRAY_FIELD), ()),
    "Fields of text tables": ((CSV_FIELD,), (ARRAY_FIELD,)),
    "Fields of arrays": ((ARRAY_FIELD,), (CSV_FIELD,)),
    "Windows in an array": (("streams.*.fields.*.window",), ()),
    "A gripper": (("streams.*.fields.*.gripper",), ()),
    "Derived fields": (("streams.*.derived.*",), ()),
    "Clocks": (("streams.*.time",), ()),
    "Parts of a time": (("streams.*.time.parts",), ()),
    "Action": (("action",), ()),
    "Appended to an action": (("action.append.*",), ()),
    "Sample": (("sample",), ()),
    "Split": (("split",), ()),
    "Checks": (("checks",), ()),
}
NAMED = {
    "text": "text",
    "texts": "text or texts",
    "number": "number",
    "numbers": "number or numbers",
    "count": "whole number",
    "flag": "`true`, `false`",
    "table": "table",
    "tables": "table",
}


def common(names: tuple[str, ...]) -> set[str]:
    """Keys that all of these kinds of tables have."""
    return set.intersection(*(set(ASKED[name]) for name in names)) if names else set()


def rows(heading: str) -> dict[str, list[str]]:
    """Cells of the table below a heading by its keys, in the order of the page."""
    section = re.split(rf"^##+ {heading}$", PAGE, flags=re.MULTILINE)[1].partition("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    assert all(len(row) == 4 for row in cells), cells
    return {key.strip("`"): rest for key, *rest in cells}


def literals(cell: str) -> list[Any]:
    """The values that a cell lists, or the one that it is; empty if it says anything in words."""
    parts = cell.split(", `")
    if not re.fullmatch(r"`[^`]*`(, `[^`]*`)*", cell):
        return []
    return [tomllib.loads(f"x = {part.strip('`')}")["x"] for part in parts]


def is_value(cell: str, asked: set[Asked]) -> bool:
    choices = {each.choices for each in asked if each.choices}
    if choices:
        return literals(cell) == list(choices.pop())
    words = {NAMED[each.kind] for each in asked if each.kind in NAMED}
    return cell in words if words and all(each.kind != "get" for each in asked) else bool(cell)


def is_default(cell: str, asked: set[Asked]) -> bool:
    defaults = {each.default for each in asked}
    if defaults == {REQUIRED}:
        return cell == "needed"
    if len(defaults) == 1 and not defaults & {None, "", (), ("",), REQUIRED}:
        return literals(cell) == list(defaults)
    return bool(cell) and cell != "needed" and not literals(cell)


@pytest.mark.parametrize("heading", TABLES)
def test_every_key_has_its_row_with_value_and_default(heading: str) -> None:
    of, without = TABLES[heading]
    wanted = common(of) - common(without)
    table = rows(heading)
    assert set(table) == wanted
    for key, (value, default, meaning) in table.items():
        asked = set.union(*(ASKED[name][key] for name in of))
        assert is_value(value, asked), f"{key}: {value}: {asked}"
        assert is_default(default, asked), f"{key}: {default}: {asked}"
        assert meaning.endswith("."), key


def test_tables_of_the_page_are_all_that_there_are() -> None:
    listed = {name for of, _ in TABLES.values() for name in of}
    assert listed == set(ASKED)
    assert re.findall(r"^##+ (.*)$", PAGE, re.MULTILINE) == list(TABLES)


def test_every_key_in_the_parsers_source_was_asked_for() -> None:
    """A key that no schema here leads to would be missing on the page too."""
    asked = {key for keys in ASKED.values() for key in keys}
    assert len(asked) > 120
    assert keys_in_the_code() - asked == set()

"""Which keys a schema may have, as its parser asks for them: each with its kind of value and its default."""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from vlapipe.schemas.parse import parse_schema
from vlapipe.schemas.schema import ArrayKind
from vlapipe.schemas.toml_table import REQUIRED, TomlTable

SCHEMAS = Path(__file__).resolve().parents[1] / "schemas"
KINDS = ("get", "text", "number", "numbers", "count", "flag", "texts", "choice", "table", "tables")
OF_NAMES = {"streams", "fields", "derived", "append", "severity", "sensors", "delta_timestamps", "named_by"}
# What the built-in schemas have not.
EVERY_KIND = """
[episodes]
layout = "lerobot"
[streams.base]
kind = "csv"
files = ["*.csv"]
on_missing = "mask"
align = "last"
time.parts = { hour = "h", minute = "m", second = "s" }
derived.r = { kind = "rotation_6d", of = "q" }
[streams.base.fields]
x = { regex = "x(.)", count = 1, words = { a = 1 } }
g = { columns = "g", gripper = { open = 1, closed = 0 } }
[streams.base.fields.q]
columns = ["a", "b", "c", "d"]
quaternion = "xyzw"
[streams.base.fields.t]
columns = ["t"]
dtype = "text"
[streams.lines]
kind = "csv"
files = ["*.log"]
row_line = "(?P<t>.)(?P<x>.)"
time.column = "t"
fields.x.columns = ["x"]
[streams.arm]
kind = "npz"
files = ["*.npz"]
rate_hz = 1
align = "last"
time.array = "t"
fields.q = { array = "q", shape = [4], quaternion = "wxyz" }
fields.g = { array = "g", gripper = { open = 1, closed = 0 } }
fields.x = { array = "x", words = { a = 1 } }
fields.w = { array = "g", window = { array = "w", columns = [0, 1] } }
fields.s = { arrays = ["g", "h"], shape = [2] }
fields.t = { array = "t", dtype = "text" }
derived.r = { kind = "rotation_6d", of = "q" }
[streams.topic]
kind = "bag"
files = ["*.mcap"]
topic = "/t"
time.array = "t"
fields.q.array = "q"
[streams.camera]
kind = "images"
files = ["{camera}/*.bmp"]
on_bad = "drop"
convert = "png"
named_by = { a = "b" }
[action]
kind = "column"
of = "arm/g"
append = { g = { field = "arm/g", threshold = 1 } }
[sample]
state = "arm/g"
cameras = ["camera"]
rotation = "6d"
"""


class Asked(NamedTuple):
    """One question of the parser's: ``kind`` is the method of ``TomlTable``.

    ``default`` is ``REQUIRED`` only if the parser asks every such table for the key; a key that it asks for only where
    it is given has the default ``None``.
    """

    kind: str
    default: Any
    choices: tuple[str, ...]


@contextmanager
def recorded() -> Iterator[dict[tuple[str, str], dict[str, set[Asked]]]]:
    """Records what is asked of every table: {(path with * for names, kind of the stream): {key: questions}}."""
    seen: dict[tuple[str, str], dict[str, set[Asked]]] = defaultdict(lambda: defaultdict(set))
    tables: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    originals = {kind: getattr(TomlTable, kind) for kind in KINDS}
    streams: dict[str, str] = {}
    depth = 0

    def wrapped(kind: str) -> Any:
        @functools.wraps(originals[kind])
        def ask(table: TomlTable, key: str, *values: Any, **named: Any) -> Any:
            nonlocal depth
            if depth == 0:
                parts = table.path.split(".") if table.path else []
                names = [i for i, part in enumerate(parts) if i and parts[i - 1] in OF_NAMES]
                path = ".".join("*" if i in names else part for i, part in enumerate(parts))
                if path == "streams.*":
                    streams[parts[1]] = str(table.values.get("kind"))
                stream = streams.get(parts[1], "") if path.startswith("streams.*") else ""
                choices, rest = ((), values) if kind != "choice" else (tuple(values[0]), values[1:])
                default = {"numbers": (), "tables": REQUIRED}.get(kind, REQUIRED)
                default = named.get("default", rest[0] if rest else default)
                if not parts or parts[-1] not in OF_NAMES:
                    default = {list: tuple, dict: lambda _: None}.get(type(default), lambda same: same)(default)
                    seen[path, stream][key].add(Asked(kind, default, choices))
                    tables[path, stream][key].add(f"{table.source} {table.path}")
            depth += 1
            try:
                return originals[kind](table, key, *values, **named)
            finally:
                depth -= 1

        return ask

    for kind in KINDS:
        setattr(TomlTable, kind, wrapped(kind))
    try:
        yield seen
        for place, keys in seen.items():
            every = set.union(*tables[place].values())
            for key, asked in keys.items():
                if tables[place][key] != every:
                    keys[key] = {each._replace(default=None) if each.default is REQUIRED else each for each in asked}
    finally:
        for kind, method in originals.items():
            setattr(TomlTable, kind, method)


def keys_of_the_parser() -> dict[str, dict[str, set[Asked]]]:
    """Returns the keys of each kind of table: ``episodes``, ``streams.* csv``, ``streams.*.fields.* array``, ..."""
    with recorded() as seen:
        parse_schema(EVERY_KIND, "every_kind.toml")
        for path in sorted((SCHEMAS / "robots").glob("*.toml")):
            parse_schema(path.read_text(), str(path))
    found: dict[str, dict[str, set[Asked]]] = defaultdict(lambda: defaultdict(set))
    for (place, stream), keys in seen.items():
        family = "array" if stream in ArrayKind.__args__ else "image" if stream in ("images", "video") else stream
        name = f"{place} {family}" if place in ("streams.*", "streams.*.fields.*") else place
        for key, asked in keys.items():
            found[name][key] |= asked
    return found


def keys_in_the_code() -> set[str]:
    """Returns every key that the parser's source asks for by a literal."""
    found = set()
    for path in SCHEMAS.glob("parse*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            method = isinstance(node.func, ast.Attribute) and node.func.attr in KINDS
            helper = isinstance(node.func, ast.Name) and re.match(r"_parse_|_character", node.func.id)
            literals = [a.value for a in node.args[: 2 if helper else 1] if isinstance(a, ast.Constant)]
            if method or helper:
                found |= {each for each in literals if isinstance(each, str)}
    return found

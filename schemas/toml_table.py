"""Reads one TOML table with every key checked: a mistake is named with its table and the nearest right key."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from vlapipe.schemas.errors import UsageError

__all__ = ["REQUIRED", "TomlTable", "did_you_mean"]

REQUIRED: Any = object()
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_MAX_LISTED = 12


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A cure for an unknown word: the nearest known one, or all of them if they are few."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known: {', '.join(known[:_MAX_LISTED])}{', ...' if len(known) > _MAX_LISTED else ''}"


class TomlTable:
    """One TOML table being read: hands out typed values and refuses what nobody asked for."""

    def __init__(self, source: str, path: str, values: dict[str, Any]) -> None:
        self.source, self.path, self.values = source, path, values
        self.asked: set[str] = set()

    def fail(self, problem: str, cure: str = "") -> NoReturn:
        place = f"[{self.path}]" if self.path else "top level"
        raise UsageError(f"schema {self.source}: {place}: {problem}", cure)

    def get(self, key: str, default: Any) -> Any:
        self.asked.add(key)
        if key in self.values:
            return self.values[key]
        if default is REQUIRED:
            self.done_asking_for(key)
        return default

    def done_asking_for(self, key: str) -> NoReturn:
        near = difflib.get_close_matches(key, [k for k in self.values if k not in self.asked], n=1)
        self.fail(f"missing key {key!r}", f"is {near[0]!r} a misspelling of it?" if near else "add it")

    def text(self, key: str, default: Any = REQUIRED) -> Any:
        value = self.get(key, default)
        if value is not default and not isinstance(value, str):
            self.fail(f"{key}: expected text, found {value!r}")
        return value

    def number(self, key: str, default: Any = REQUIRED, *, least: float | None = None) -> Any:
        value = self.get(key, default)
        if value is default:
            return value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.fail(f"{key}: expected a number, found {value!r}")
        if not math.isfinite(value):
            self.fail(f"{key}: expected a finite number, found {value!r}")
        if least is not None and value < least:
            self.fail(f"{key}: expected {least:g} or more, found {value!r}")
        return value

    def count(self, key: str, default: int, *, least: int = 1) -> int:
        value = self.number(key, default, least=least)
        if not isinstance(value, int):
            self.fail(f"{key}: expected a whole number, found {value!r}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            self.fail(f"{key}: expected true or false, found {value!r}")
        return value

    def texts(self, key: str, default: Any = REQUIRED) -> tuple[str, ...]:
        value = self.get(key, default)
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
            self.fail(f"{key}: expected text or a list of texts, found {value!r}")
        return tuple(value)

    def choice(self, key: str, choices: Iterable[str], default: Any = REQUIRED) -> Any:
        value = self.text(key, default)
        if value not in choices:
            self.fail(f"{key}: unknown value {value!r}", did_you_mean(value, choices))
        return value

    def table(self, key: str, default: Any = REQUIRED) -> TomlTable:
        value = self.get(key, default)
        if not isinstance(value, dict):
            self.fail(f"{key}: expected a table, found {value!r}")
        return TomlTable(self.source, f"{self.path}.{key}" if self.path else key, value)

    def tables(self, key: str) -> dict[str, TomlTable]:
        table = self.table(key)
        names = {name: table.table(name) for name in table.values}
        for name in names:
            if not _NAME.match(name):
                table.fail(f"{name!r} cannot be a name", "letters, digits and _ only, a letter first")
        return names

    def finish(self) -> None:
        for key in self.values:
            if key not in self.asked:
                self.fail(f"unknown key {key!r}", did_you_mean(key, self.asked))

    def numbers(self, key: str) -> tuple[float, ...]:
        """One number or a list of them, each 0 or more."""
        value = self.get(key, [])
        value = [value] if isinstance(value, (int, float)) else value
        if not isinstance(value, list) or not all(
            isinstance(v, (int, float)) and math.isfinite(v) and v >= 0 for v in value
        ):
            self.fail(f"{key}: expected a number or a list of numbers, 0 or more, found {value!r}")
        return tuple(float(v) for v in value)

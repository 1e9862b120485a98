"""Reads one TOML table and checks every key. An error names the table and the nearest correct key."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from typing import Any, NoReturn

from vlapipe.schemas.errors import UsageError

__all__ = ["REQUIRED", "TomlTable", "did_you_mean", "is_number", "is_whole"]

REQUIRED: Any = object()
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_MAX_LISTED = 40  # more than a training run has options


def did_you_mean(word: str, known: Iterable[str], *, page: str = "") -> str:
    """Returns a cure for an unknown word: the nearest known word, or a list of the known words.

    If there are more than 40 known words, the rest is counted. ``page`` is the docs page that describes the words.
    """
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    left_out = f" and {len(known) - _MAX_LISTED:,} more" if len(known) > _MAX_LISTED else ""
    described = f"; {page} describes each" if page else ""
    return f"known: {', '.join(known[:_MAX_LISTED])}{left_out}{described}"


class TomlTable:
    """One TOML table. Its methods return typed values; ``finish`` refuses keys that were never asked for.

    Every refusal is a ``UsageError`` that names the table and the key.
    """

    def __init__(self, source: str, path: str, values: dict[str, Any]) -> None:
        self.source, self.path, self.values = source, path, values
        self.asked: set[str] = set()

    def fail(self, problem: str, cure: str = "") -> NoReturn:
        """Refuses the schema; the message names this table."""
        place = f"[{self.path}]" if self.path else "top level"
        raise UsageError(f"schema {self.source}: {place}: {problem}", cure)

    def get(self, key: str, default: Any) -> Any:
        """Returns the value as TOML has it. A key that is missing and has no default is refused."""
        self.asked.add(key)
        if key in self.values:
            return self.values[key]
        if default is REQUIRED:
            self._fail_missing(key)
        return default

    def _fail_missing(self, key: str) -> NoReturn:
        near = difflib.get_close_matches(key, [k for k in self.values if k not in self.asked], n=1)
        self.fail(f"missing key {key!r}", f"is {near[0]!r} a misspelling of it?" if near else "add it")

    def text(self, key: str, default: Any = REQUIRED) -> Any:
        """Returns a string."""
        value = self.get(key, default)
        if value is not default and not isinstance(value, str):
            self.fail(f"{key}: expected text, found {value!r}")
        return value

    def number(self, key: str, default: Any = REQUIRED, *, least: float | None = None) -> Any:
        """Returns a finite number that is ``least`` or more."""
        value = self.get(key, default)
        if key not in self.values:
            return value
        if not is_number(value):
            self.fail(f"{key}: expected a number, found {value!r}")
        if not math.isfinite(value):
            self.fail(f"{key}: expected a finite number, found {value!r}")
        if least is not None and value < least:
            self.fail(f"{key}: expected {least:g} or more, found {value!r}")
        return value

    def numbers(self, key: str) -> tuple[float, ...]:
        """Returns one number or a list of numbers as a tuple, each 0 or more; empty if the key is missing."""
        value = self.get(key, [])
        value = value if isinstance(value, list) else [value]
        if not all(is_number(v) and math.isfinite(v) and v >= 0 for v in value):
            self.fail(f"{key}: expected a number or a list of numbers, 0 or more, found {self.values[key]!r}")
        return tuple(float(v) for v in value)

    def count(self, key: str, default: int, *, least: int = 1) -> int:
        """Returns a whole number that is ``least`` or more; the default may be less."""
        value = self.number(key, default, least=least)
        if not isinstance(value, int):
            self.fail(f"{key}: expected a whole number, found {value!r}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Returns ``true`` or ``false``."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            self.fail(f"{key}: expected true or false, found {value!r}")
        return value

    def texts(self, key: str, default: Any = REQUIRED) -> tuple[str, ...]:
        """Returns one string or a list of strings as a tuple."""
        value = self.get(key, default)
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
            self.fail(f"{key}: expected text or a list of texts, found {value!r}")
        return tuple(value)

    def choice(self, key: str, choices: Iterable[str], default: Any = REQUIRED) -> Any:
        """Returns one of ``choices``."""
        value = self.text(key, default)
        if value not in choices:
            self.fail(f"{key}: unknown value {value!r}", did_you_mean(value, choices))
        return value

    def table(self, key: str, default: Any = REQUIRED) -> TomlTable:
        """Returns the table called ``key`` in this table."""
        value = self.get(key, default)
        if not isinstance(value, dict):
            self.fail(f"{key}: expected a table, found {value!r}")
        return TomlTable(self.source, f"{self.path}.{key}" if self.path else key, value)

    def tables(self, key: str) -> dict[str, TomlTable]:
        """Returns the tables in table ``key`` by name; each name must be valid as an array's name."""
        table = self.table(key)
        names = {name: table.table(name) for name in table.values}
        for name in names:
            if not _NAME.match(name):
                table.fail(f"{name!r} cannot be a name", "letters, digits and _ only, a letter first")
        return names

    def finish(self) -> None:
        """Refuses keys that were not asked for."""
        for key in self.values:
            if key not in self.asked:
                self.fail(f"unknown key {key!r}", did_you_mean(key, self.asked))


def is_number(value: Any) -> bool:
    """Returns whether ``value`` is a TOML number; ``true`` and integers beyond 64 bits are not."""
    return isinstance(value, float) or (is_whole(value) and -(2**63) <= value < 2**63)


def is_whole(value: Any) -> bool:
    """Returns whether ``value`` is an integer; ``true`` is not."""
    return isinstance(value, int) and not isinstance(value, bool)

"""Reads one TOML table with every key checked: a mistake is named with its table and the nearest right key."""

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
    """A cure for an unknown word: the nearest known one, or all that are known.

    If there are more than 40 the rest is counted. ``page`` is the page of the docs that describes them.
    """
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    left_out = f" and {len(known) - _MAX_LISTED:,} more" if len(known) > _MAX_LISTED else ""
    described = f"; {page} describes each" if page else ""
    return f"known: {', '.join(known[:_MAX_LISTED])}{left_out}{described}"


class TomlTable:
    """One TOML table being read: hands out typed values and refuses what nobody asked for.

    Every refusal is a ``UsageError`` that names the table and the key.
    """

    def __init__(self, source: str, path: str, values: dict[str, Any]) -> None:
        self.source, self.path, self.values = source, path, values
        self.asked: set[str] = set()

    def fail(self, problem: str, cure: str = "") -> NoReturn:
        """Refuse the schema; the message names this table."""
        place = f"[{self.path}]" if self.path else "top level"
        raise UsageError(f"schema {self.source}: {place}: {problem}", cure)

    def get(self, key: str, default: Any) -> Any:
        """The value as TOML has it; a key that is missing and has no default is refused."""
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
        """A string."""
        value = self.get(key, default)
        if value is not default and not isinstance(value, str):
            self.fail(f"{key}: expected text, found {value!r}")
        return value

    def number(self, key: str, default: Any = REQUIRED, *, least: float | None = None) -> Any:
        """A finite number, ``least`` or more."""
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
        """One number or a list of them, each 0 or more; empty where the key is not there."""
        value = self.get(key, [])
        value = value if isinstance(value, list) else [value]
        if not all(is_number(v) and math.isfinite(v) and v >= 0 for v in value):
            self.fail(f"{key}: expected a number or a list of numbers, 0 or more, found {self.values[key]!r}")
        return tuple(float(v) for v in value)

    def count(self, key: str, default: int, *, least: int = 1) -> int:
        """A whole number, ``least`` or more; the default may be less."""
        value = self.number(key, default, least=least)
        if not isinstance(value, int):
            self.fail(f"{key}: expected a whole number, found {value!r}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """``true`` or ``false``."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            self.fail(f"{key}: expected true or false, found {value!r}")
        return value

    def texts(self, key: str, default: Any = REQUIRED) -> tuple[str, ...]:
        """One string or a list of them."""
        value = self.get(key, default)
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
            self.fail(f"{key}: expected text or a list of texts, found {value!r}")
        return tuple(value)

    def choice(self, key: str, choices: Iterable[str], default: Any = REQUIRED) -> Any:
        """One of ``choices``."""
        value = self.text(key, default)
        if value not in choices:
            self.fail(f"{key}: unknown value {value!r}", did_you_mean(value, choices))
        return value

    def table(self, key: str, default: Any = REQUIRED) -> TomlTable:
        """The table below this one."""
        value = self.get(key, default)
        if not isinstance(value, dict):
            self.fail(f"{key}: expected a table, found {value!r}")
        return TomlTable(self.source, f"{self.path}.{key}" if self.path else key, value)

    def tables(self, key: str) -> dict[str, TomlTable]:
        """The tables in that table by their names, which must be such as arrays may have."""
        table = self.table(key)
        names = {name: table.table(name) for name in table.values}
        for name in names:
            if not _NAME.match(name):
                table.fail(f"{name!r} cannot be a name", "letters, digits and _ only, a letter first")
        return names

    def finish(self) -> None:
        """Refuse the keys that were not asked for."""
        for key in self.values:
            if key not in self.asked:
                self.fail(f"unknown key {key!r}", did_you_mean(key, self.asked))


def is_number(value: Any) -> bool:
    """Whether a value is a TOML number; ``true`` is none, nor a whole one beyond TOML's 64 bits."""
    return isinstance(value, float) or (is_whole(value) and -(2**63) <= value < 2**63)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number; ``true`` is none."""
    return isinstance(value, int) and not isinstance(value, bool)

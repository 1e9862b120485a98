"""Reads the lexicon: the names and units that recordings use, as data. A user's own file is added to it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.schema import TimeUnit

__all__ = ["Lexicon", "bare_name", "lexicon", "time_unit", "use_lexicon", "words_in"]

_WORD = re.compile(r"\d+|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+")


class Lexicon:
    """The tables of the lexicon, by name."""

    def __init__(self, tables: Mapping[str, Any]) -> None:
        self._tables = tables
        self._phrases: dict[tuple[str, str], tuple[tuple[str, ...], ...]] = {}
        self._likeness: dict[tuple[str, str, str], float] = {}  # wide tables ask the same of many names

    def phrases(self, table: str, key: str) -> Sequence[str]:
        """Returns a list of phrases, such as those of ``names``, ``command``."""
        found: Sequence[str] = self._tables.get(table, {}).get(key, ())
        return found

    def table(self, table: str) -> Mapping[str, Any]:
        """Returns a whole table."""
        found: Mapping[str, Any] = self._tables.get(table, {})
        return found

    def likeness(self, name: str, table: str, key: str) -> float:
        """Returns how much a name is like the phrases of a list.

        1 if the name is one of the phrases, 0.8 if its last words are one, 0.5 if a phrase stands anywhere in it, or 0.
        """
        found = self._likeness.get((name, table, key))
        if found is None:
            found = self._likeness[name, table, key] = self._like(words_in(name), table, key)
        return found

    def _like(self, words: tuple[str, ...], table: str, key: str) -> float:
        known = self._phrases.get((table, key))
        if known is None:
            known = tuple(tuple(phrase.split()) for phrase in self.phrases(table, key))
            self._phrases[table, key] = known
        best = 0.0
        for parts in known:
            if words == parts:
                return 1.0
            if words[-len(parts) :] == parts:
                best = max(best, 0.8)
            elif len(parts) < len(words) and any(words[i : i + len(parts)] == parts for i in range(len(words))):
                best = max(best, 0.5)
        return best


@lru_cache(maxsize=4096)
def words_in(name: str) -> tuple[str, ...]:
    """Returns the words and numbers of a name in lower case: ``actualTCP_pose.x1`` is actual, tcp, pose, x, 1."""
    return tuple(word.lower() for word in _WORD.findall(name))


def bare_name(name: str) -> str:
    """Returns a name without its numbers and the quantities at its end: ``cmd_vel_0`` is cmd."""
    words = [word for word in words_in(name) if not word.isdecimal()]
    quantities = [lexicon().phrases("roles", key) for key in ("joint", "place", "pose", "rate")]
    while len(words) > 1 and any(words[-1] in known for known in quantities):
        words.pop()
    return " ".join(words)


def time_unit(text: str) -> TimeUnit | None:
    """Returns the unit of a clock that a text spells, or ``None``."""
    small = text.strip().lower()
    return next((unit for unit in get_args(TimeUnit) if small in lexicon().phrases("time_units", unit)), None)


def _built_in() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("lexicon.toml").read_text(encoding="utf-8"))


_current: ContextVar[Lexicon] = ContextVar("lexicon")


def lexicon() -> Lexicon:
    """Returns the lexicon of the guess that is being made."""
    found = _current.get(None)
    if found is None:
        found = Lexicon(_built_in())
        _current.set(found)
    return found


@contextmanager
def use_lexicon(path: Path | None) -> Iterator[None]:
    """Add a user's own lexicon to the built-in one while the block runs.

    Raises:
        UsageError: the file cannot be read, or is not of the lexicon's form.
    """
    tables = _built_in()
    if path is not None:
        _add(tables, path)
    token = _current.set(Lexicon(tables))
    try:
        yield
    finally:
        _current.reset(token)


def _add(tables: dict[str, Any], path: Path) -> None:
    try:
        own = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}", "give a TOML file in the form of the built-in lexicon") from error
    for name, table in own.items():
        known = tables.get(name)
        if known is None or not isinstance(table, dict):
            raise UsageError(f"{path}: {name}: no table of the lexicon", f"its tables are {', '.join(tables)}")
        for key, value in table.items():
            built_in = known.get(key)
            if isinstance(built_in, list) and isinstance(value, list) and all(isinstance(each, str) for each in value):
                known[key] = [*built_in, *value]
            elif built_in is None or type(built_in) is type(value):
                known[key] = value
            else:
                problem = f"expected {type(built_in).__name__}, found {type(value).__name__}"
                raise UsageError(f"{path}: {name}.{key}: {problem}", "see the built-in lexicon")

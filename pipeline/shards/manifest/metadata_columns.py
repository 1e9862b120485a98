"""The columns ``metadata/<key>`` of the episodes table: what an episode's JSON says, as values of one type a column.

Limits keep the table small whatever the JSON holds: of a value's length, of the keys of an episode, and of all columns.
"""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import pyarrow as pa

from vlapipe.schemas.errors import is_text, printable

__all__ = [
    "PREFIX",
    "MetadataKinds",
    "chosen_names",
    "flat_metadata",
    "holds_json",
    "metadata_columns",
    "metadata_text",
]

PREFIX = "metadata/"
_MOST_IN_A_TABLE = 100  # keys; a larger table is one value, as JSON text: it is a list of things by their names
_MOST_KEYS = 256  # of one episode
_MOST_COLUMNS = 1000  # of a dataset; the keys that the most episodes have
_MOST_CHARACTERS = 10_000  # of one value, as JSON
_MOST_NAME = 200  # characters of a column's name
_EXACT = 1 << 53  # whole numbers up to here are float64 numbers too
_HOLDS = b"holds"  # key of a column's Arrow metadata; the value is b"json" if its texts are JSON


def flat_metadata(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Returns the values of an episode's metadata by column name, and the names of those that are not kept.

    A value in nested tables is called ``a.b``. Lists, and tables that are empty or large, are one value. If two keys
    give the same name, the key that lies less deep keeps it, and the other one gets a digest at its end.
    """
    flat: dict[str, Any] = {}
    not_kept: list[str] = []
    waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), metadata)])
    while waiting:  # table by table, so that the keys that lie deepest are the ones beyond the limit
        path, value = waiting.popleft()
        if isinstance(value, dict) and (not path or 0 < len(value) <= _MOST_IN_A_TABLE):
            waiting.extend(((*path, key), inner) for key, inner in sorted(value.items()))
            continue
        name = _name(path, flat)
        if len(flat) >= _MOST_KEYS or not _is_short(value):
            not_kept.append(name)
        elif isinstance(value, float) and not math.isfinite(value):
            flat[name] = None  # NaN and Infinity are no JSON, and no value
        else:
            flat[name] = printable(value) if isinstance(value, str) and not is_text(value) else value
    return flat, not_kept


def _name(path: tuple[str, ...], taken: Mapping[str, Any]) -> str:
    name = printable(".".join(path)).strip() or "_"
    if len(name) <= _MOST_NAME and name not in taken:
        return name
    return f"{name[:_MOST_NAME]}~{sha256(json.dumps(path).encode()).hexdigest()[:6]}"


def _is_short(value: Any) -> bool:
    if isinstance(value, str | bool | float) or value is None:
        return not isinstance(value, str) or len(value) <= _MOST_CHARACTERS
    try:
        return len(json.dumps(value)) <= _MOST_CHARACTERS
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        return False


class MetadataKinds:
    """What is known of each key of the flat metadata of some episodes: how many have it, and of what kinds it is."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self._counts: Counter[str] = Counter()
        self._kinds: dict[str, set[type]] = {}
        self._limits: dict[str, tuple[int, int]] = {}  # the smallest and the largest whole number
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add the flat metadata of an episode."""
        for name, value in row.items():
            self._counts[name] += 1
            kinds = self._kinds.setdefault(name, set())
            if value is not None:
                kinds.add(type(value))
            if type(value) is int:
                low, high = self._limits.get(name, (value, value))
                self._limits[name] = min(low, value), max(high, value)

    def names(self) -> tuple[list[str], list[str]]:
        """Returns the names that become columns, and the names beyond the limit, each sorted.

        The names that the most episodes have come first.
        """
        by_count = sorted(self._counts, key=lambda name: (-self._counts[name], name))
        return sorted(by_count[:_MOST_COLUMNS]), sorted(by_count[_MOST_COLUMNS:])

    def type_of(self, name: str) -> tuple[pa.DataType, bool]:
        """Returns the type of a column and whether its texts are JSON."""
        kinds, (low, high) = self._kinds[name], self._limits.get(name, (0, 0))
        if kinds <= {str}:
            return pa.string(), False
        if kinds == {bool}:
            return pa.bool_(), False
        if kinds == {int} and low >= -(1 << 63) and high < 1 << 63:
            return pa.int64(), False
        if kinds <= {int, float} and low >= -_EXACT and high <= _EXACT:
            return pa.float64(), False
        return pa.string(), True


def chosen_names(rows: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Returns the names that become columns, and the names beyond the limit, each sorted.

    ``rows`` holds the flat metadata of each episode. The names that the most episodes have come first.
    """
    return MetadataKinds(rows).names()


def metadata_columns(
    rows: Sequence[Mapping[str, Any]], taken: Iterable[str], kinds: MetadataKinds | None = None
) -> list[tuple[pa.Field, pa.Array]]:
    """Returns the columns for the flat metadata of each episode, sorted by name; null where an episode lacks the key.

    A column has one type: bool, int64, float64 or text. If the values are of several types, or lists, it is JSON text.

    Args:
        rows: the flat metadata of each episode.
        taken: the names of the table's other columns; a stream may be called ``metadata`` too.
        kinds: those of all episodes, if these are only a part of a table.
    """
    kinds = MetadataKinds(rows) if kinds is None else kinds
    taken = set(taken)
    columns = []
    for name in kinds.names()[0]:
        values = [row.get(name) for row in rows]
        column = PREFIX + name
        while column in taken:
            column += "~"
        taken.add(column)
        kind, is_json = kinds.type_of(name)
        if is_json:
            values = [None if value is None else metadata_text(value, quoted=True) for value in values]
        marks = {_HOLDS: b"json"} if is_json else None
        columns.append((pa.field(column, kind, metadata=marks), pa.array(values, kind)))
    return columns


def holds_json(column: pa.Field) -> bool:
    """Returns whether the texts of a column are JSON."""
    return bool(column.metadata) and column.metadata.get(_HOLDS) == b"json"


def metadata_text(value: Any, *, quoted: bool = False) -> str:
    """Returns a value as text: ``true``, ``3``, lists as JSON; a text as it is, or as JSON if ``quoted``."""
    if isinstance(value, str) and not quoted:
        return value
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if is_text(text) else json.dumps(value, sort_keys=True)

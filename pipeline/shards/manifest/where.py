"""The language of ``where``: says which episodes are meant, by their metadata and by columns of the episodes table.

An expression such as ``success and operator != "test"`` is parsed by Python's own parser and then made into functions.
Only the nodes that this file names are accepted, so an expression can read values and compare them, and nothing else.

Logic has three values. A comparison with a missing value is unknown, and so is ``not`` of it; an episode is meant only
if the expression is true.
"""

from __future__ import annotations

import ast
import json
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlapipe.pipeline.shards.arrow_numpy import as_numpy
from vlapipe.pipeline.shards.manifest.metadata_columns import PREFIX, holds_json, metadata_text
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.toml_table import did_you_mean

__all__ = ["EpisodeColumns", "Where", "masks"]

_MOST_CHARACTERS = 10_000
_CURE = 'write for example: success and operator != "test"'
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "none": None}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_SHOWN = 3  # values of a name that a message shows

_Values = Mapping[str, Any]
_Function = Callable[[_Values], Any]  # returns a value; of a condition True, False, or None if it is unknown


class EpisodeColumns(Protocol):
    """Where the columns of the episodes table come from: a ``Dataset``."""

    @property
    def episode_fields(self) -> pa.Schema:
        """The names and types of the columns."""

    def episode_column(self, name: str) -> pa.ChunkedArray:
        """A column."""


@dataclass(frozen=True, kw_only=True)
class Where:
    """A parsed expression. ``names`` are the names in it, each once, as they are written."""

    text: str
    names: tuple[str, ...]
    what: str  # what the expression is called in messages
    _function: _Function

    @classmethod
    def parse(cls, text: str, what: str = "where") -> Where:
        """Parse an expression.

        Raises:
            UsageError: the text is no expression of this language.
        """
        if not isinstance(text, str):
            raise UsageError(f"{what}: expected text, found {text!r:.60}", _CURE)
        if len(text) > _MOST_CHARACTERS:
            raise UsageError(f"{what}: expected at most {_MOST_CHARACTERS:,} characters, found {len(text):,}")
        names: dict[str, None] = {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about escapes in texts
                tree = ast.parse(text.strip(), mode="eval")
            function = _Compiler(text.strip(), what, names).condition(tree.body)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"{what}: cannot be read: {text:.200}", f"{_equals_sign(text)}{_CURE}") from None
        return cls(text=text.strip(), names=tuple(names), what=what, _function=function)

    def holds(self, values: _Values) -> bool:
        """Returns whether the expression is true. ``values`` has the value of each name; a missing one is ``None``.

        Raises:
            UsageError: a text stands where true or false is expected.
        """
        return self._function(values) is True

    def columns(self, keys: Iterable[str], columns: Iterable[str]) -> dict[str, str]:
        """Returns the column that each name of the expression means: a metadata key comes before a column.

        Args:
            keys: the metadata keys.
            columns: the other columns of the episodes table.

        Raises:
            UsageError: a name is neither.
        """
        keys, columns = set(keys), set(columns)
        found = {}
        for name in self.names:
            bare = name.removeprefix("metadata.").removeprefix(PREFIX)
            if name in keys or bare in keys:
                found[name] = PREFIX + (name if name in keys else bare)
            elif name in columns:
                found[name] = name
            else:
                raise UsageError(f"{self.what}: no metadata key or column {name!r}", did_you_mean(bare, keys | columns))
        return found

    def none_fits(self, num_episodes: int, values: Mapping[str, Iterable[Any]]) -> UsageError:
        """Returns the error that no episode fits. ``values`` has some values of each name, to be shown."""
        shown = []
        for name in self.names:
            distinct = dict.fromkeys(metadata_text(value, quoted=True) for value in values.get(name, ()))
            more = ", ..." if len(distinct) > _SHOWN else ""
            shown.append(f"{name} is {', '.join([*distinct][:_SHOWN])}{more}")
        return UsageError(f"{self.what} {self.text}: fits none of {num_episodes:,} episodes", "; ".join(shown))


def _equals_sign(text: str) -> str:
    return "write == to compare; " if "=" in text.replace("==", "").replace("!=", "").replace(">=", "") else ""


class _Compiler:
    """Makes a function of each node of the syntax tree that the language has, and refuses all others."""

    def __init__(self, text: str, what: str, names: dict[str, None]) -> None:
        self._text, self._what, self._names = text, what, names

    def _refuse(self, node: ast.AST, why: str) -> NoReturn:
        part = ast.get_source_segment(self._text, node) or self._text
        raise UsageError(f"{self._what}: {why}: {part:.200}", _CURE)

    def condition(self, node: ast.expr) -> _Function:
        """Returns a function that is true, false, or ``None`` if it is unknown."""
        if isinstance(node, ast.BoolOp):
            parts = [self.condition(value) for value in node.values]
            return _all_of(parts) if isinstance(node.op, ast.And) else _any_of(parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return _negated(self.condition(node.operand))
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = zip(node.ops, sides, sides[1:], strict=False)
            return _all_of([self._comparison(node, op, left, right) for op, left, right in pairs])
        name = self._name(node)
        if name is None:
            if isinstance(node, ast.Constant) and isinstance(node.value, bool):
                return self.value(node)
            self._refuse(node, "expected a comparison")
        return self._truth(self.value(node), name)

    def _truth(self, value: _Function, name: str) -> _Function:
        def truth(values: _Values) -> bool | None:
            found = value(values)
            if isinstance(found, bool | int | float):
                return bool(found)
            if found is None:
                return None
            shown = f"{metadata_text(found, quoted=True):.60}"
            raise UsageError(f"{self._what}: {name} is not true or false but {shown}", f"write {name} == {shown}")

        return truth

    def _comparison(self, node: ast.expr, op: ast.cmpop, left: ast.expr, right: ast.expr) -> _Function:
        first, second = self.value(left), self.value(right)
        of_null = _is_null(left) or _is_null(right)
        if isinstance(op, ast.Is | ast.IsNot):
            if not of_null:
                self._refuse(node, "is compares with null only")
            other = second if _is_null(left) else first
            return _is_missing(other, isinstance(op, ast.Is))
        if of_null:
            self._refuse(node, "a comparison with null is never true, write is null")
        if isinstance(op, ast.In | ast.NotIn):
            inside = _is_in(first, second)
            return inside if isinstance(op, ast.In) else _negated(inside)
        return _compared(_COMPARE[type(op)], first, second)

    def value(self, node: ast.expr) -> _Function:
        """Returns a function that returns the node's value."""
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            items = [self._constant(item) for item in node.elts]
            return lambda _: items
        name = self._name(node)
        if name is None:
            constant = self._constant(node)
            return lambda _: constant
        if name.lower() in _WORDS:
            word = _WORDS[name.lower()]
            return lambda _: word
        self._names[name] = None
        return lambda values: values.get(name)

    def _constant(self, node: ast.expr) -> Any:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = self._constant(node.operand)
            if isinstance(number, int | float):
                return -number
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bool | int | float | None):
            return node.value
        if isinstance(node, ast.Name) and node.id.lower() in _WORDS:
            return _WORDS[node.id.lower()]
        return self._refuse(node, "expected a name, a number, a text, true or false")

    def _name(self, node: ast.expr) -> str | None:
        """Returns ``a``, ``a.b`` or ``robot/rows``; ``metadata["a b"]`` is ``metadata/a b``. Else ``None``."""
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Attribute):
            of = self._name(node.value)
            return None if of is None else f"{of}.{node.attr}"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            left, right = self._name(node.left), self._name(node.right)
            return None if left is None or right is None else f"{left}/{right}"
        if isinstance(node, ast.Subscript) and self._name(node.value) == "metadata":
            key = self._constant(node.slice)
            return f"{PREFIX}{key}"
        return None


def _is_null(node: ast.expr) -> bool:
    is_word = isinstance(node, ast.Name) and node.id.lower() in _WORDS and _WORDS[node.id.lower()] is None
    return is_word or (isinstance(node, ast.Constant) and node.value is None)


def _all_of(parts: list[_Function]) -> _Function:
    def conjunction(values: _Values) -> bool | None:
        found = [part(values) for part in parts]
        return False if False in found else None if None in found else True

    return conjunction


def _any_of(parts: list[_Function]) -> _Function:
    def disjunction(values: _Values) -> bool | None:
        found = [part(values) for part in parts]
        return True if True in found else None if None in found else False

    return disjunction


def _negated(part: _Function) -> _Function:
    def negation(values: _Values) -> bool | None:
        found = part(values)
        return None if found is None else not found

    return negation


def _is_missing(value: _Function, wanted: bool) -> _Function:
    return lambda values: (value(values) is None) is wanted


def _compared(compare: Callable[[Any, Any], bool], left: _Function, right: _Function) -> _Function:
    def comparison(values: _Values) -> bool | None:
        first, second = left(values), right(values)
        if first is None or second is None or not _are_alike(first, second):
            return None
        try:
            return bool(compare(first, second))
        except TypeError:  # a smaller or larger table
            return None

    return comparison


def _are_alike(first: Any, second: Any) -> bool:
    """Returns whether two values can be compared: numbers (and truth) with each other, texts, lists or tables."""
    for kind in (bool | int | float, str, list, dict):
        if isinstance(first, kind):
            return isinstance(second, kind)
    return False


def _is_in(item: _Function, whole: _Function) -> _Function:
    def inside(values: _Values) -> bool | None:
        wanted, found = item(values), whole(values)
        if wanted is None or found is None:
            return None
        if isinstance(found, list):
            return any(_are_alike(wanted, each) and wanted == each for each in found)
        return wanted in found if isinstance(wanted, str) and isinstance(found, str | dict) else None

    return inside


def masks(where: Where, tables: Sequence[EpisodeColumns]) -> list[NDArray[np.bool_]]:
    """Returns, for each table, which of its episodes are meant; a name that one table lacks is missing there.

    Raises:
        UsageError: a name is in no table, or no episode of any table is meant.
    """
    fields = [{field.name: field for field in table.episode_fields} for table in tables]
    every = {name for of_table in fields for name, field in of_table.items() if not pa.types.is_nested(field.type)}
    keys = {name.removeprefix(PREFIX) for name in every if name.startswith(PREFIX)}
    columns = where.columns(keys, every)
    found, seen = [], dict[tuple[Any, ...], bool]()
    for table, of_table in zip(tables, fields, strict=True):
        rows, row_of_episode = _distinct(table, [of_table.get(name) for name in columns.values()])
        for row in rows:
            if row not in seen:
                seen[row] = where.holds(dict(zip(columns, map(_decoded, row), strict=True)))
        found.append(np.array([seen[row] for row in rows], dtype=bool)[row_of_episode])
    if not any(mask.any() for mask in found):
        shown = {name: [_decoded(row[i]) for row in [*seen][:100]] for i, name in enumerate(columns)}
        raise where.none_fits(sum(map(len, found)), shown)
    return found


@dataclass(frozen=True)
class _Json:
    """A value that is stored as JSON text; hashable, unlike the value."""

    text: str


def _decoded(value: Any) -> Any:
    return json.loads(value.text) if isinstance(value, _Json) else value


def _distinct(
    table: EpisodeColumns, fields: Sequence[pa.Field | None]
) -> tuple[list[tuple[Any, ...]], NDArray[np.int64]]:
    """Returns the distinct rows of some columns, and the row of each episode; a column that is ``None`` has no value.

    Of a million episodes few differ in these columns, and only distinct values become Python objects.
    """
    columns = [_encoded(table.episode_column(field.name)) for field in fields if field is not None]
    if not columns:
        return [(None,) * len(fields)], np.zeros(len(table.episode_column("id")), dtype=np.int64)
    row_of_episode = columns[0][1]
    for values, index in columns[1:]:
        _, row_of_episode = np.unique(row_of_episode, return_inverse=True)
        row_of_episode = row_of_episode * (len(values) + 1) + index
    _, first, row_of_episode = np.unique(row_of_episode, return_index=True, return_inverse=True)
    picked = iter([[values[i] for i in index[first].tolist()] for values, index in columns])
    texts = [[None] * len(first) if field is None else _marked(next(picked), field) for field in fields]
    return [*zip(*texts, strict=True)], row_of_episode


def _encoded(column: pa.ChunkedArray) -> tuple[list[Any], NDArray[np.int64]]:
    """Returns the distinct values, and the index of each row's value; the last value is ``None``."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    encoded = encoded.unify_dictionaries().combine_chunks()
    values = [*encoded.dictionary.to_pylist(), None]
    return values, as_numpy(encoded.indices.fill_null(len(values) - 1)).astype(np.int64)


def _marked(values: list[Any], field: pa.Field) -> list[Any]:
    return [None if value is None else _Json(value) for value in values] if holds_json(field) else values

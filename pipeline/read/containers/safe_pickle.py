"""Reads a pickle as data: plain Python values and NumPy arrays. No code that the file names is imported or called.

A pickle is a program for a small stack machine, which may call any function of any module. This module runs that
machine itself. The few NumPy functions that a pickled array needs are known by name and stand for constructors of our
own; every other name is refused with its place in the file.

Operations: Python's ``pickletools`` documents them all. Arrays: ``numpy.ndarray.__reduce__`` and ``__setstate__``.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PickleError", "load_plain"]

_MOST_OPERATIONS = 20_000_000
_MOST_DEPTH = 64
_KINDS = "biufcSU"  # of numbers and texts; O holds Python values, which are read as a list
_MARK = object()


class PickleError(ValueError):
    """A pickle that is damaged, or holds more than data. The message names the place."""


@dataclass
class _Dtype:
    name: str
    order: str = "="

    def plain(self) -> np.dtype[Any]:
        dtype = np.dtype(self.name)
        if dtype.kind not in _KINDS or dtype.fields is not None or dtype.subdtype is not None:
            raise PickleError(f"an array of dtype {self.name}")
        return dtype if self.order in "|=" else dtype.newbyteorder(self.order)  # type: ignore[arg-type]


@dataclass
class _Array:
    """An array whose content follows in a later operation."""

    state: tuple[Any, ...] | None = None
    value: Any = field(default=None)

    def plain(self) -> Any:
        if self.state is None:
            raise PickleError("an array without content")
        if self.value is None:
            _, shape, dtype, by_column, content = self.state
            self.value = _filled(content, dtype, shape, "F" if by_column else "C")
        return self.value


def _filled(content: Any, dtype: Any, shape: Any, order: str) -> Any:
    if not isinstance(dtype, _Dtype) or not _is_shape(shape):
        raise PickleError("an array of no shape or dtype")
    if dtype.name.lstrip("<>|=").startswith("O"):
        if not isinstance(content, list) or len(content) != math.prod(shape):
            raise PickleError("an array of Python values that are not there")
        return content
    kind = dtype.plain()
    if isinstance(content, str):  # as Python 2 wrote bytes
        content = content.encode("latin-1")
    if not isinstance(content, bytes | bytearray) or math.prod(shape) * kind.itemsize != len(content):
        found = f"{len(content)} bytes" if isinstance(content, bytes | bytearray) else "none"
        raise PickleError(f"{found} for an array of shape {shape} and dtype {kind}")
    array: NDArray[Any] = np.frombuffer(content, dtype=kind).reshape(shape, order=order)  # type: ignore[call-overload]
    return array


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and all(isinstance(size, int) and 0 <= size < 1 << 40 for size in shape)


def _dtype(name: Any, *_: Any) -> _Dtype:
    if not isinstance(name, str) or len(name) > 16:
        raise PickleError(f"an array of dtype {name!r:.60}")
    return _Dtype(name)


def _scalar(dtype: Any, content: Any = b"") -> Any:
    filled = _filled(content, dtype, (), "C")
    return filled[()] if isinstance(filled, np.ndarray) else filled


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any = "C") -> Any:
    return _Array(value=_filled(content, dtype, shape, "F" if order == "F" else "C"), state=())


def _encoded(text: Any, encoding: Any = "") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise PickleError("bytes in an encoding that pickle does not write")
    return text.encode("latin-1")


def _empty_array(*_: Any) -> _Array:
    return _Array()


def _no_call(*_: Any) -> Any:
    raise PickleError("a call of a class")


def _plain_bytes(content: Any = b"", *_: Any) -> bytes:
    if not isinstance(content, bytes | bytearray):
        raise PickleError("bytes made of something else")
    return bytes(content)


def _ordered(*pairs: Any) -> dict[Any, Any]:
    if pairs and pairs[0]:
        raise PickleError("a dictionary made of pairs")
    return {}


_NUMPY = ("numpy.core", "numpy._core")
_KNOWN: dict[str, Callable[..., Any]] = {
    **{f"{room}.multiarray _reconstruct": _empty_array for room in _NUMPY},
    **{f"{room}.multiarray scalar": _scalar for room in _NUMPY},
    **{f"{room}.numeric _frombuffer": _from_buffer for room in _NUMPY},
    "numpy ndarray": _no_call,
    "numpy dtype": _dtype,
    "_codecs encode": _encoded,
    "collections OrderedDict": _ordered,
    **{f"{room} {name}": _plain_bytes for room in ("builtins", "__builtin__") for name in ("bytes", "bytearray")},
}


class _Machine:
    """The stack, the memo, and one method for each group of operations."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise PickleError("a value that is not there")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                values = self.stack[at + 1 :]
                del self.stack[at:]
                return values
        raise PickleError("a mark that is not there")

    def call(self, function: Any, arguments: Any) -> Any:
        if not any(function is known for known in _KNOWN.values()) or not isinstance(arguments, tuple):
            raise PickleError("a call of something that is no function")
        try:
            return function(*arguments)
        except TypeError:
            raise PickleError("a call with arguments that do not fit") from None

    def build(self, state: Any) -> None:
        target = self.stack[-1] if self.stack else None
        if isinstance(target, _Array) and isinstance(state, tuple) and len(state) == 5 and target.state is None:
            target.state = state
        elif isinstance(target, _Dtype) and isinstance(state, tuple) and len(state) >= 5:
            if any(each is not None for each in state[2:5]) or state[1] not in ("<", ">", "|", "="):
                raise PickleError("an array of records")
            target.order = state[1]
        else:
            raise PickleError("an object of a class")

    def fill(self, values: list[Any]) -> None:
        target = self.stack[-1] if self.stack else None
        if isinstance(target, list):
            target.extend(values)
        else:
            raise PickleError("values of something that is no list")

    def set_items(self, values: list[Any]) -> None:
        target = self.stack[-1] if self.stack else None
        if not isinstance(target, dict) or len(values) % 2:
            raise PickleError("entries of something that is no dictionary")
        target.update(self._pairs(values))

    @staticmethod
    def _pairs(values: list[Any]) -> list[tuple[Any, Any]]:
        keys = [key.decode("latin-1") if isinstance(key, bytes) else key for key in values[::2]]
        if not all(isinstance(key, str | int | float | bool) or key is None for key in keys):
            raise PickleError("a dictionary with keys that are no texts or numbers")
        return [*zip(keys, values[1::2], strict=True)]

    def run(self, name: str, argument: Any) -> None:
        """Runs one operation."""
        stack = self.stack
        if name in _IGNORED:
            return
        if name in _PUSHED:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("POP", "POP_MARK"):
            if name == "POP_MARK" or (stack and stack[-1] is _MARK):
                self.pop_to_mark()
            else:
                self.pop()
        elif name == "DUP":
            stack.append(self.pop())
            stack.append(stack[-1])
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self._top()
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self._top()
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            if argument not in self.memo:
                raise PickleError("a value that was not kept")
            stack.append(self.memo[argument])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            values = [self.pop() for _ in range(int(name[-1]))]
            stack.append(tuple(values[::-1]))
        elif name in ("TUPLE", "LIST"):
            values = self.pop_to_mark()
            stack.append(tuple(values) if name == "TUPLE" else values)
        elif name == "DICT":
            values = self.pop_to_mark()
            stack.append({})
            self.set_items(values)
        elif name == "APPEND":
            value = self.pop()
            self.fill([value])
        elif name == "APPENDS":
            self.fill(self.pop_to_mark())
        elif name == "SETITEM":
            value, key = self.pop(), self.pop()
            self.set_items([key, value])
        elif name == "SETITEMS":
            self.set_items(self.pop_to_mark())
        elif name == "GLOBAL":
            stack.append(self.named(argument))
        elif name == "STACK_GLOBAL":
            inner, module = self.pop(), self.pop()
            stack.append(self.named(f"{module} {inner}"))
        elif name == "REDUCE":
            arguments, function = self.pop(), self.pop()
            stack.append(self.call(function, arguments))
        elif name == "BUILD":
            self.build(self.pop())
        else:
            raise PickleError(f"operation {name}, which plain data does not need")

    def _top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise PickleError("a value that is not there")
        return self.stack[-1]

    @staticmethod
    def named(name: str) -> Callable[..., Any]:
        """Returns what stands here for a name; nothing is imported."""
        if name not in _KNOWN:
            raise PickleError(f"the name {name.replace(' ', '.'):.80}, which would be imported and may do anything")
        return _KNOWN[name]


_IGNORED = {"PROTO", "FRAME"}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_PUSHED = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}


def load_plain(data: bytes) -> Any:
    """Returns the value of a pickle: numbers, texts, bytes, lists, tuples, dictionaries and arrays.

    Raises:
        PickleError: the pickle is damaged, or would run code.
    """
    machine, place = _Machine(), 0
    try:
        for count, (operation, argument, position) in enumerate(pickletools.genops(data)):
            place = position or 0
            if operation.name == "STOP":
                return _plain(machine.pop(), 0, {})
            if count > _MOST_OPERATIONS:
                raise PickleError("more operations than any recording needs")
            machine.run(operation.name, argument)
    except PickleError as error:
        raise PickleError(f"{error}, at byte {place}") from None
    except (ValueError, OverflowError, TypeError, IndexError, UnicodeError) as error:
        raise PickleError(f"damage behind byte {place}: {str(error)[:80]}") from None
    raise PickleError("no end")


def _plain(value: Any, depth: int, seen: dict[int, Any]) -> Any:
    """Returns the value with every array in its place. A value that occurs twice stays one."""
    if isinstance(value, _Array):
        value = value.plain()
    if isinstance(value, _Dtype) or callable(value):
        raise PickleError("a type or a function as a value")
    if not isinstance(value, list | tuple | dict):
        return value
    if depth > _MOST_DEPTH:
        raise PickleError(f"values nested more than {_MOST_DEPTH} deep")
    if id(value) not in seen:
        seen[id(value)] = None  # a value inside itself becomes None
        if isinstance(value, dict):
            plain: Any = {key: _plain(each, depth + 1, seen) for key, each in value.items()}
        else:
            plain = [_plain(each, depth + 1, seen) for each in value]
        seen[id(value)] = (plain, value)  # kept, so that no other value gets its address
    found = seen[id(value)]
    return None if found is None else found[0]

"""Turns messages that are JSON into arrays, one row a message. Paths are those of ROS messages.

A time is an object of seconds and nanoseconds, as JSON in MCAP has it: ``{"sec": 1, "nsec": 5}``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.bags.messages import NAMES, pick_of
from vlapipe.pipeline.read.bags.topics import Topic
from vlapipe.pipeline.read.refused import RefusedError

__all__ = ["JsonMessages"]

_TIMES = ({"sec", "nsec"}, {"sec", "nanosec"}, {"secs", "nsecs"})
_MOST_PATHS = 4096


class JsonMessages:
    """The messages of one topic that is written as JSON."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic

    @cached_property
    def _objects(self) -> list[Any]:
        objects = []
        for row, payload in enumerate(self.topic.payloads):
            try:
                objects.append(json.loads(payload))
            except (ValueError, RecursionError) as error:
                raise self._fault(row, "a message of JSON", str(error)) from None
        return objects

    def _fault(self, row: int, expected: str, found: str) -> RefusedError:
        return RefusedError("bag.message", expected, f"{found} in {self.topic.place(row)}")

    def paths(self) -> Iterator[str]:
        """Yields the path of each member of the first message, but not those of objects in lists."""
        pending = [("", self._objects[0])]
        for _ in range(_MOST_PATHS):
            if not pending:
                return
            start, value = pending.pop()
            if start:
                yield start
            if isinstance(value, dict) and not _is_time(value):
                pending += [(f"{start}.{key}" if start else key, each) for key, each in value.items()]

    def has(self, path: str) -> bool:
        """Returns whether the first message has a value at the path."""
        picked = pick_of(path)
        return any(_at(self._objects[0], each) is not None for each in (path, picked[0] if picked else path))

    def array(self, path: str) -> NDArray[Any]:
        """Returns the values at a path, ``(messages, ...)``; times are int64 ns.

        Raises:
            RefusedError: a message has no such value, or not as many as the others.
        """
        picked = pick_of(path)
        rows: list[Any] = []
        for row, each in enumerate(self._objects):
            found = _at(each, path)
            if found is None and picked is not None:
                found = self._pick(row, each, *picked)
            if found is None:
                raise self._fault(row, f"a value of {path}", "none")
            flat = _flat(found)
            if rows and (isinstance(flat, list) != isinstance(rows[0], list) or _size(flat) != _size(rows[0])):
                raise self._fault(row, f"{_size(rows[0])} values of {path}, as before", f"{_size(flat)}")
            rows.append(flat)
        try:
            array = np.array(rows)
        except ValueError:  # lists within lists, of several lengths
            array = np.array(None)
        if array.dtype == object:
            raise RefusedError(
                "bag.path", f"numbers or a text at {path}", "lists of several lengths, or values of no kind"
            )
        return array

    def _pick(self, row: int, message: Any, path: str, picked: tuple[str, ...]) -> Any:
        values = _at(message, path)
        if not isinstance(values, list):
            return None
        start = path.rpartition(".")[0]
        lists = (_at(message, f"{start}.{name}" if start else name) for name in NAMES)
        names = next((each for each in lists if isinstance(each, list)), [])
        if not all(each.isdecimal() for each in picked) and len(names) != len(values):
            raise self._fault(row, f"{len(values)} names beside {path}", f"{len(names)}")
        found: list[Any] = []
        for each in picked:
            at = int(each) if each.isdecimal() else names.index(each) if each in names else None
            if at is not None and at >= len(values):
                raise self._fault(row, f"{at + 1} values of {path}", f"{len(values)}")
            found.append(np.nan if at is None else values[at])
        return found[0] if len(found) == 1 else found


def _is_time(value: Any) -> bool:
    return isinstance(value, dict) and set(value) in _TIMES and all(type(each) is int for each in value.values())


def _flat(value: Any) -> Any:
    """Returns a number, a text or a list; an object becomes the list of its values, a time becomes nanoseconds."""
    if _is_time(value):
        seconds, nanoseconds = (each for _, each in sorted(value.items(), key=lambda item: item[0].startswith("n")))
        return seconds * 1_000_000_000 + nanoseconds
    if isinstance(value, dict):
        return [each for inner in value.values() for each in np.ravel(_flat(inner)).tolist()]
    return value


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list) else 1


def _at(message: Any, path: str) -> Any:
    found = message
    for part in path.split("."):
        name, bracket, index = part.partition("[")
        found = found.get(name) if isinstance(found, dict) else None
        if bracket:
            place = index[:-1]
            is_element = isinstance(found, list) and place.isdecimal() and int(place) < len(found)
            found = found[int(place)] if isinstance(found, list) and is_element else None
    return found

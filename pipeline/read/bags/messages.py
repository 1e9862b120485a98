"""Turns the messages of a topic into arrays, one row a message. Messages of one shape are read together.

A path names a member: ``position``, ``header.stamp``, ``twist.linear.x``, ``points[0].positions``. A path of a message
stands for its numbers in their order: ``pose.pose.position``. ``position[2]`` is one element of an array, and
``position[shoulder, elbow]`` are those whose names stand in the message's own list of names, in whatever order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.read.bags.definitions import TIMES, Types
from vlapipe.pipeline.read.bags.topics import Topic
from vlapipe.pipeline.read.bags.walk import Leaf, Shape, dtype_of, walk
from vlapipe.pipeline.read.refused import RefusedError

__all__ = ["NAMES", "Messages", "pick_of"]

_PICK = re.compile(r"(?P<path>.+)\[(?P<picked>[^\[\]]+)\]\Z", re.DOTALL)
NAMES = ("name", "joint_names", "names")  # where a message may list the names of an array's elements
_SEPARATE = 4096  # larger messages are never joined
_MOST_TEXT = 256 << 20  # bytes of an array of texts


@dataclass(frozen=True)
class _Group:
    """Messages of one shape: their numbers, ascending."""

    shape: Shape
    rows: NDArray[np.int64]


def pick_of(path: str) -> tuple[str, tuple[str, ...]] | None:
    """Returns the array and the elements of ``position[shoulder, elbow]``; ``None`` if nothing is picked."""
    match = _PICK.match(path)
    return None if match is None else (match["path"], tuple(each.strip() for each in match["picked"].split(",")))


class Messages:
    """The messages of one topic of ROS 1 or ROS 2."""

    def __init__(self, topic: Topic, types: Types) -> None:
        self.topic = topic
        self.types = types
        self._shapes: dict[int, Shape] = {}  # of messages that are not joined

    @cached_property
    def _groups(self) -> list[_Group]:
        """Returns the messages by their shapes.

        Raises:
            RefusedError: a message does not fit its type.
        """
        by_size: dict[int, list[int]] = {}
        for row, size in enumerate(self.topic.payloads.sizes):
            by_size.setdefault(size, []).append(row)
        groups: list[_Group] = []
        for size, rows in by_size.items():
            left = np.array(rows, dtype=np.int64)
            while len(left):
                shape = self.shape_of(int(left[0]))
                if size > _SEPARATE:
                    self._shapes[int(left[0])] = shape
                same = self._like(shape, left) if size <= _SEPARATE else np.arange(len(left)) == 0
                groups.append(_Group(shape, left[same]))
                left = left[~same]
        return groups

    def shape_of(self, row: int) -> Shape:
        """Returns where the members of one message stand.

        Raises:
            RefusedError: the message does not fit its type.
        """
        if row in self._shapes:
            return self._shapes[row]
        try:
            return walk(self.topic.payloads[row], self.types)
        except (ValueError, IndexError) as error:
            raise self.fault(row, f"a message of type {self.types.root}", str(error)) from None

    def _like(self, shape: Shape, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns which messages, all of the shape's size, state the same lengths as the first of them."""
        joined = b"".join([self.topic.payloads[row] for row in rows.tolist()])
        table = np.frombuffer(joined, dtype=np.uint8).reshape(len(rows), shape.num_bytes)
        same = np.ones(len(rows), dtype=np.bool_)
        for at in shape.lengths:
            same &= (table[:, at : at + 4] == table[0, at : at + 4]).all(axis=1)
        return same

    def fault(self, row: int, expected: str, found: str) -> RefusedError:
        """Returns the error of one message."""
        return RefusedError("bag.message", expected, f"{found} in {self.topic.place(row)}")

    def array(self, path: str) -> NDArray[Any]:
        """Returns the values at a path, ``(messages, ...)``; times are int64 ns.

        Raises:
            RefusedError: a message has no such value, or not as many as the others.
        """
        picked = pick_of(path) if self.types.find(path) is None else None
        if picked is not None:
            return self._pick(*picked)
        parts = [(group, self._values(group, path)) for group in self._groups]
        return self._join(parts, path)

    def _join(self, parts: list[tuple[_Group, NDArray[Any]]], path: str) -> NDArray[Any]:
        first = parts[0][1]
        for group, values in parts:
            if values.shape[1:] != first.shape[1:]:
                one, other = (int(np.prod(each.shape[1:])) for each in (first, values))
                raise self.fault(int(group.rows[0]), f"{one} values of {path}, as before", f"{other}")
        dtype = np.result_type(*{values.dtype for _, values in parts})
        joined = np.empty((len(self.topic.payloads), *first.shape[1:]), dtype=dtype)
        for group, values in parts:
            joined[group.rows] = values
        return joined

    def _values(self, group: _Group, path: str) -> NDArray[Any]:
        leaf = group.shape.leaves.get(path)
        if leaf is not None:
            return self._of_leaf(group, leaf)
        starts = (f"{path}.", f"{path}[")
        inner = {name: each for name, each in group.shape.leaves.items() if name.startswith(starts)}
        for name, each in inner.items():
            if each.type in ("string", *TIMES):
                what = "a text" if each.type == "string" else "a time"
                raise RefusedError(
                    "bag.path", f"a path of numbers, such as {self._numbers(inner)}", f"{what} in {name}"
                )
        if not inner:
            raise self.fault(int(group.rows[0]), path, "no value of it")
        columns = [self._of_leaf(group, each).reshape(len(group.rows), -1) for each in inner.values()]
        return np.concatenate(columns, axis=1)

    def _numbers(self, leaves: dict[str, Leaf]) -> str:
        return next((name for name, leaf in leaves.items() if leaf.type not in ("string", *TIMES)), "none here")

    def _of_leaf(self, group: _Group, leaf: Leaf) -> NDArray[Any]:
        rows = len(group.rows)
        if leaf.type == "string":
            return self._texts(group, leaf)
        raw = self._cut(group, leaf.offset, leaf.offset + leaf.size)
        counts = () if leaf.count is None else (leaf.count,)
        order = group.shape.order
        if leaf.type in TIMES:
            # ROS 1 has times without a sign and spans with two; in ROS 2 only the seconds have a sign.
            padded = self.types.padded
            signs = (
                "i4" if padded or leaf.type == "duration" else "u4",
                "u4" if padded or leaf.type == "time" else "i4",
            )
            pairs = np.frombuffer(
                raw, dtype=np.dtype([(name, order + sign) for name, sign in zip("sn", signs, strict=True)])
            )
            stamps: NDArray[np.int64] = pairs["s"].astype(np.int64) * 1_000_000_000 + pairs["n"]
            return stamps.reshape(rows, *counts)
        values = np.frombuffer(raw, dtype=dtype_of(leaf.type, order)).reshape(rows, *counts)
        return values.astype(values.dtype.newbyteorder("="))

    def _cut(self, group: _Group, start: int, stop: int) -> bytes:
        payloads = self.topic.payloads
        return b"".join([payloads[row][start:stop] for row in group.rows.tolist()])

    def _texts(self, group: _Group, leaf: Leaf) -> NDArray[Any]:
        widest = max((stop - start for start, stop in zip(leaf.starts, leaf.ends, strict=True)), default=0)
        if widest * 4 * max(1, len(leaf.starts)) * len(group.rows) > _MOST_TEXT:
            raise self.fault(int(group.rows[0]), "short texts", f"one of {widest} bytes")
        payloads = self.topic.payloads
        spans = list(zip(leaf.starts, leaf.ends, strict=True))
        try:
            texts = [[payloads[row][a:b].decode() for a, b in spans] for row in group.rows.tolist()]
        except UnicodeDecodeError:
            raise self.fault(int(group.rows[0]), "texts in UTF-8", "another text") from None
        together = np.array(texts, dtype=np.str_).reshape(len(group.rows), len(spans))
        return together[:, 0] if leaf.count is None else together

    def _pick(self, path: str, picked: tuple[str, ...]) -> NDArray[Any]:
        """Returns elements of an array by their places or by their names, ``(messages, picked)``, or one a message."""
        by_place = all(each.isdecimal() for each in picked)
        parts = []
        for group in self._groups:
            leaf = group.shape.leaves.get(path)
            if leaf is None or leaf.count is None:
                raise RefusedError("bag.path", f"{path} to be an array", "something else")
            values = self._of_leaf(group, leaf)
            if by_place:
                places = [int(each) for each in picked]
                if max(places) >= leaf.count:
                    raise self.fault(int(group.rows[0]), f"{max(places) + 1} values of {path}", f"{leaf.count}")
                parts.append((group, values[:, places]))
            else:
                parts.append((group, self._by_name(group, path, leaf, values, picked)))
        joined = self._join(parts, path)
        if not by_place:
            lacking = np.isnan(joined).all(axis=0) if joined.dtype.kind == "f" else np.zeros(len(picked), np.bool_)
            for name, is_in_none in zip(picked, lacking.tolist(), strict=True):
                if is_in_none:
                    known = ", ".join(sorted({each for names in self._all_names(path) for each in names})[:40])
                    raise RefusedError("bag.path", f"{name!r} among the names of {self.topic.name}", f"only {known}")
        return joined[:, 0] if len(picked) == 1 else joined

    def _by_name(
        self, group: _Group, path: str, leaf: Leaf, values: NDArray[Any], picked: tuple[str, ...]
    ) -> NDArray[Any]:
        found = np.full((len(group.rows), len(picked)), np.nan, dtype=np.result_type(values.dtype, np.float32))
        for names, rows in self._orders(group, path):
            first = int(group.rows[rows[0]])
            if leaf.count and len(names) != leaf.count:
                raise self.fault(first, f"{len(names)} values of {path}, one a name", f"{leaf.count}")
            for column, name in enumerate(picked):
                if names.count(name) > 1:
                    raise self.fault(first, f"{name!r} once", f"{names.count(name)} times")
                if name in names and leaf.count:
                    found[rows, column] = values[rows, names.index(name)]
        return found

    def _all_names(self, path: str) -> Iterator[list[str]]:
        for group in self._groups:
            for names, _ in self._orders(group, path):
                yield names

    def _orders(self, group: _Group, path: str) -> Iterator[tuple[list[str], NDArray[np.int64]]]:
        """Yields each list of names that messages of the group have, and which of the group's messages have it."""
        start = path.rpartition(".")[0]
        places = [f"{start}.{name}" if start else name for name in NAMES]
        at = next((place for place in places if place in group.shape.leaves), None)
        leaf = group.shape.leaves[at] if at is not None else None
        if leaf is None or leaf.type != "string" or leaf.count is None:
            raise RefusedError("bag.path", f"names beside {path}: {' or '.join(places)}", f"none in {self.types.root}")
        if not leaf.count:
            yield [], np.arange(len(group.rows))
            return
        first, last = leaf.starts[0], leaf.ends[-1]
        raw = np.frombuffer(self._cut(group, first, last), dtype=np.uint8).reshape(len(group.rows), last - first)
        left = np.arange(len(group.rows))
        while len(left):
            same = (raw[left] == raw[left[0]]).all(axis=1)
            here = raw[left[0]].tobytes()
            spans = zip(leaf.starts, leaf.ends, strict=True)
            yield [here[a - first : b - first].decode("utf-8", "replace") for a, b in spans], left[same]
            left = left[~same]

"""Finds the members of one message in its bytes: ROS 1's own encoding, and ROS 2's CDR.

ROS 1: http://wiki.ros.org/msg#Serialization. CDR: OMG formal/02-06-51, section 15.3: a number stands at a multiple of
its size, counted from the first byte after the encapsulation header.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlapipe.pipeline.read.bags.definitions import SIZES, TIMES, Member, Types

__all__ = ["Leaf", "Shape", "dtype_of", "walk"]

_MOST_PARTS = 1 << 18  # members of one message; each costs a few microseconds
_ENCAPSULATION = 4  # bytes before a CDR message
_DTYPES = {"bool": "u1", "byte": "i1", "char": "u1", "string": "S"}
_MOST_PADDING = 3  # bytes that may follow a CDR message


@dataclass(frozen=True)
class Leaf:
    """A number, a text or a time of a message, or an array of them, at ``offset``.

    ``count`` is ``None`` for a single one. ``ends`` are the ends of the texts; text ``i`` begins 4 bytes after the end
    of the one before (plus padding), so ``starts`` are kept too.
    """

    type: str
    offset: int
    count: int | None = None
    starts: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Returns the number of bytes."""
        each = 8 if self.type in TIMES else SIZES.get(self.type, 0)
        return each * (1 if self.count is None else self.count)


@dataclass(frozen=True)
class Shape:
    """Where the members of a message stand. Messages of equal length and equal ``lengths`` have the same shape."""

    num_bytes: int
    order: str  # "<" little-endian, ">" big-endian
    leaves: dict[str, Leaf]
    lengths: tuple[int, ...]  # where the lengths of texts and arrays stand: 4 bytes each


def walk(payload: bytes, types: Types) -> Shape:
    """Returns where the members of a message stand.

    Raises:
        ValueError: the bytes are no message of the type; the text says why.
    """
    walked = _Walk(payload, types)
    walked.message(types.root, "")
    left = walked.end - walked.at
    if left > (_MOST_PADDING if types.padded else 0):
        raise ValueError(f"{left} bytes more than {types.root} has")
    return Shape(len(payload), walked.order, walked.leaves, tuple(walked.lengths))


class _Walk:
    def __init__(self, payload: bytes, types: Types) -> None:
        self.payload, self.types, self.padded = payload, types, types.padded
        self.at, self.end, self.order = 0, len(payload), "<"
        self.leaves: dict[str, Leaf] = {}
        self.lengths: list[int] = []
        self._num_parts = 0
        if types.padded:
            head = payload[:2]
            if head not in (b"\0\0", b"\0\1") or len(payload) < _ENCAPSULATION:
                raise ValueError(f"bytes {head!r} before it, where plain CDR has 0 and 0 or 1")
            self.order = "<" if head[1] else ">"
            self.at = _ENCAPSULATION
            self.lengths.append(0)
        self._endian = "little" if self.order == "<" else "big"

    def message(self, of: str, start: str) -> None:
        """Passes over one message; its members' paths begin with ``start``."""
        members = self.types.members[of]
        if not members and self.padded:
            self._take(1, 1)  # CDR has no message without a byte
        for member in members:
            path = start + member.name
            if member.many == "one":
                self._one(member.type, path)
            else:
                self._many(member, path)

    def _one(self, of: str, path: str) -> None:
        self._count()
        if of in SIZES:
            self.leaves[path] = Leaf(of, self._take(SIZES[of], SIZES[of]))
        elif of in TIMES:
            self.leaves[path] = Leaf(of, self._take(8, 4))
        elif of == "string":
            start, stop = self._text()
            self.leaves[path] = Leaf(of, start, None, (start,), (stop,))
        else:
            self.message(of, f"{path}.")

    def _many(self, member: Member, path: str) -> None:
        self._count()
        of, count = member.type, member.length if member.many == "array" else self._length()
        if of in SIZES or of in TIMES:
            size, aligned = (8, 4) if of in TIMES else (SIZES[of], SIZES[of])
            self.leaves[path] = Leaf(of, self._take(size * count, aligned) if count else self.at, count)
        elif of == "string":
            spans = []
            for _ in range(count):
                self._count()
                spans.append(self._text())
            starts, stops = tuple(start for start, _ in spans), tuple(stop for _, stop in spans)
            self.leaves[path] = Leaf(of, starts[0] if starts else self.at, count, starts, stops)
        else:
            for index in range(count):
                self._count()
                self.message(of, f"{path}[{index}].")

    def _count(self) -> None:
        self._num_parts += 1
        if self._num_parts > _MOST_PARTS:
            raise ValueError(f"more than {_MOST_PARTS} members")

    def _take(self, count: int, aligned: int) -> int:
        """Passes over ``count`` bytes and returns where they begin."""
        at = self.at
        if self.padded and aligned > 1:
            at += -(at - _ENCAPSULATION) % aligned
        if at + count > self.end:
            raise ValueError(f"{self.end} bytes, fewer than {self.types.root} has")
        self.at = at + count
        return at

    def _length(self) -> int:
        at = self._take(4, 4)
        self.lengths.append(at)
        return int.from_bytes(self.payload[at : at + 4], self._endian)  # type: ignore[arg-type]

    def _text(self) -> tuple[int, int]:
        length = self._length()
        start = self._take(length, 1)
        return start, start + max(0, length - 1 if self.padded else length)  # CDR ends a text by a zero byte


def dtype_of(of: str, order: str) -> np.dtype[np.generic]:
    """Returns the dtype of a number in a message."""
    name = _DTYPES.get(of) or {"f": "f", "i": "i", "u": "u"}[of[0]] + str(SIZES[of])
    return np.dtype(order + name)

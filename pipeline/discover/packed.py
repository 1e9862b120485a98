"""Episodes that lie compressed in memory: a million of them take a few hundred megabytes."""

from __future__ import annotations

import itertools
import operator
import pickle
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar, overload

__all__ = ["Packed"]

_BLOCK = 64  # items that are compressed together: names in them are alike
_LEVEL = 1

T = TypeVar("T")


class Packed(Sequence[T], Generic[T]):
    """A sequence that is unpacked block by block as it is read. Its items are never changed."""

    __slots__ = ("_blocks", "_last", "_num_items")

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._blocks: list[bytes] = []
        self._num_items = 0
        self._last: tuple[int, list[T]] | None = None  # the block that was unpacked for a single item
        rest = iter(items)
        while block := list(itertools.islice(rest, _BLOCK)):
            self._blocks.append(zlib.compress(pickle.dumps(block, pickle.HIGHEST_PROTOCOL), _LEVEL))
            self._num_items += len(block)

    def __len__(self) -> int:
        return self._num_items

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packed) and len(self) == len(other) and all(map(operator.eq, self, other))

    def __hash__(self) -> int:
        return hash(self._num_items)

    def __iter__(self) -> Iterator[T]:
        for number in range(len(self._blocks)):
            yield from self._unpacked(number)

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[T, ...]: ...
    def __getitem__(self, at: int | slice) -> T | tuple[T, ...]:
        if isinstance(at, slice):
            return tuple(self[i] for i in range(*at.indices(len(self))))
        number, place = divmod(range(len(self))[at], _BLOCK)
        if self._last is None or self._last[0] != number:
            self._last = number, self._unpacked(number)
        return self._last[1][place]

    def _unpacked(self, number: int) -> list[T]:
        items: list[T] = pickle.loads(zlib.decompress(self._blocks[number]))  # noqa: S301 - packed by this process
        return items

    def __reduce__(self) -> tuple[object, ...]:
        return _packed, (self._blocks, self._num_items)


def _packed(blocks: list[bytes], num_items: int) -> Packed[T]:
    made = Packed[T]()
    made._blocks, made._num_items = blocks, num_items
    return made

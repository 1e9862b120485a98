"""Episodes that lie compressed in memory: a million of them take a few hundred megabytes."""

from __future__ import annotations

import itertools
import json
import operator
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from vlapipe.pipeline.discover.raw_episode import RawEpisode

__all__ = ["Packed"]

_BLOCK = 64  # episodes that are compressed together: names in them are alike
_LEVEL = 1


class Packed(Sequence[RawEpisode]):
    """A sequence of episodes that is unpacked block by block as it is read."""

    __slots__ = ("_blocks", "_last", "_num_episodes")

    def __init__(self, episodes: Iterable[RawEpisode] = ()) -> None:
        self._blocks: list[bytes] = []
        self._num_episodes = 0
        self._last: tuple[int, list[RawEpisode]] | None = None  # the block that was unpacked for a single episode
        rest = iter(episodes)
        while block := list(itertools.islice(rest, _BLOCK)):
            plain = [episode.to_plain() for episode in block]
            self._blocks.append(zlib.compress(json.dumps(plain).encode(), _LEVEL))
            self._num_episodes += len(block)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packed) and len(self) == len(other) and all(map(operator.eq, self, other))

    def __hash__(self) -> int:
        return hash(self._num_episodes)

    def __len__(self) -> int:
        return self._num_episodes

    def __iter__(self) -> Iterator[RawEpisode]:
        for number in range(len(self._blocks)):
            yield from self._unpacked(number)

    @overload
    def __getitem__(self, at: int) -> RawEpisode: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[RawEpisode, ...]: ...
    def __getitem__(self, at: int | slice) -> RawEpisode | tuple[RawEpisode, ...]:
        if isinstance(at, slice):
            return tuple(self[i] for i in range(*at.indices(len(self))))
        number, place = divmod(range(len(self))[at], _BLOCK)
        if self._last is None or self._last[0] != number:
            self._last = number, self._unpacked(number)
        return self._last[1][place]

    def _unpacked(self, number: int) -> list[RawEpisode]:
        return [RawEpisode.from_plain(plain) for plain in json.loads(zlib.decompress(self._blocks[number]))]

    def __reduce__(self) -> tuple[object, ...]:
        return _packed, (self._blocks, self._num_episodes)


def _packed(blocks: list[bytes], num_episodes: int) -> Packed:
    made = Packed()
    made._blocks, made._num_episodes = blocks, num_episodes
    return made

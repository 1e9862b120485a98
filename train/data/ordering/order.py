"""Computes the order of samples as a pure function of seed, epoch and position, for many positions at once.

So the sequence is the same for any number of ranks, and one number says how far a run is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vlapipe.train.data.ordering.permutation import hash_of, permute
from vlapipe.train.data.ordering.quotas import Quotas

__all__ = ["Blocked", "Order", "Part", "Sequential", "Shuffled", "Weighted"]


class Order(Protocol):
    """Says which frame comes at each position."""

    @property
    def num_positions(self) -> int:
        """Number of positions in an epoch."""

    def frames(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The frames ``(N,)`` at ``positions`` ``(N,)``, which count over all epochs from 0; N is at least 1."""


@dataclass(frozen=True)
class Sequential:
    """Frames in the recorded order."""

    num_positions: int

    def frames(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """See ``Order``."""
        return positions % self.num_positions


@dataclass(frozen=True)
class Part:
    """The first epoch's positions of another order from ``first`` on, as an order of their own."""

    whole: Order
    first: int
    num_positions: int

    def frames(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """See ``Order``."""
        return self.whole.frames(self.first + positions % self.num_positions)


@dataclass(frozen=True)
class Shuffled:
    """All frames mixed; each epoch has a different order."""

    num_positions: int
    seed: int

    def frames(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """See ``Order``."""
        epochs, within = _epochs_of(positions, self.num_positions)
        return permute(within, np.array([self.num_positions]), hash_of(self.seed, epochs))


class Blocked:
    """Shards in random order; the frames of ``mixed`` consecutive shards (a block) are mixed with each other.

    So a reader needs only ``mixed`` shards at a time. Frames are numbered shard by shard.
    """

    def __init__(self, lengths: NDArray[np.int64] | Callable[[int], NDArray[np.int64]], mixed: int, seed: int) -> None:
        """Prepare the order.

        Args:
            lengths: number of frames of each shard; or a function of the epoch that returns them, with the same sum in
                each epoch.
            mixed: number of shards that are mixed, at least 1.
            seed: determines the order of the shards and of the frames in a block.
        """
        self._lengths_of = lengths if callable(lengths) else lambda _: lengths
        self._mixed, self._seed = mixed, seed
        first = self._lengths_of(0)
        self.num_positions, self._num_shards = int(first.sum()), len(first)
        none = np.empty(0, dtype=np.int64)
        self._last = -1, none, none, none  # replaced by one assignment, hence thread-safe

    def frames(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """See ``Order``."""
        epochs, within = np.divmod(positions, self.num_positions)
        frames = np.empty_like(within)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            frames[here] = self._frames_of_epoch(int(epoch), within[here])
        return frames

    def shards(self, epoch: int) -> NDArray[np.int64]:
        """All shards in the order of the epoch; each ``mixed`` consecutive shards are one block."""
        count = self._num_shards
        return permute(np.arange(count), np.array([count]), hash_of(self._seed, epoch))

    def _laid_out(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The epoch's shards in order, the position at which each begins (and the end), and each shard's first frame.

        The last epoch's result is cached, because an epoch is asked for piece by piece.
        """
        last, shards, starts, first_frames = self._last
        if last != epoch:
            lengths, shards = self._lengths_of(epoch), self.shards(epoch)
            starts = np.append(0, np.cumsum(lengths[shards]))
            first_frames = (np.cumsum(lengths) - lengths)[shards]
            self._last = epoch, shards, starts, first_frames
        return shards, starts, first_frames

    def _frames_of_epoch(self, epoch: int, within: NDArray[np.int64]) -> NDArray[np.int64]:
        _, starts, first_frames = self._laid_out(epoch)
        block_starts = np.append(starts[: -1 : self._mixed], starts[-1])
        block = np.searchsorted(block_starts, within, side="right") - 1
        first = block_starts[block]
        key = hash_of(self._seed, epoch, block + 1)
        mixed = first + permute(within - first, block_starts[block + 1] - first, key)
        place = np.searchsorted(starts, mixed, side="right") - 1
        frames: NDArray[np.int64] = first_frames[place] + mixed - starts[place]
        return frames


class Weighted:
    """Draws groups of frames more or less often than in proportion to their length; the counts are exact, not random.

    In an epoch, each group has the number of positions that ``quotas`` gives it. The order ``slots`` spreads these
    positions over the epoch. Each group draws its frames in a random order, and begins again with a new order when all
    of its frames have been drawn, which may be in the middle of an epoch.
    """

    def __init__(
        self,
        begins: NDArray[np.int64],
        lengths: NDArray[np.int64],
        group: NDArray[np.int64],
        quotas: Quotas,
        slots: Order,
        seed: int,
    ) -> None:
        """Prepare the order. Each interval of frames belongs to one group.

        Args:
            begins: the first frame of each interval.
            lengths: number of frames of each interval, at least 1.
            group: the group of each interval, ascending; each number from 0 on comes at least once.
            quotas: number of positions of each group in each epoch.
            slots: an order over the quotas' positions, which are numbered group after group.
            seed: determines the orders within the groups.
        """
        self._begins, self._seed, self._quotas, self._slots = begins, seed, quotas, slots
        interval_ends = np.cumsum(lengths)
        self._interval_starts = interval_ends - lengths
        last_interval = np.searchsorted(group, np.arange(quotas.num_groups), side="right") - 1
        self._group_lengths = np.diff(interval_ends[last_interval], prepend=0)
        self._group_starts = interval_ends[last_interval] - self._group_lengths
        self.num_positions = quotas.num_positions

    def frames(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """See ``Order``."""
        slots = self._slots.frames(positions)
        epochs = positions // self.num_positions
        frames = np.empty_like(slots)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            frames[here] = self._frames_of_epoch(int(epoch), slots[here])
        return frames

    def _frames_of_epoch(self, epoch: int, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        of_epoch = self._quotas.of(epoch)
        group = np.searchsorted(of_epoch.ends, slots, side="right")
        length = self._group_lengths[group]
        drawn_before = of_epoch.drawn_before[group] + slots - of_epoch.starts[group]
        rounds, place = np.divmod(drawn_before, length)
        place = self._group_starts[group] + permute(place, length, hash_of(self._seed, rounds, group + 1))
        interval = np.searchsorted(self._interval_starts, place, side="right") - 1
        frames: NDArray[np.int64] = self._begins[interval] + place - self._interval_starts[interval]
        return frames


def _epochs_of(positions: NDArray[np.int64], num_positions: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The epochs ``(N,)``, or ``(1,)`` if all positions lie in one epoch, and the positions within them ``(N,)``."""
    first, last = (int(p) // num_positions for p in (positions.min(), positions.max()))
    if first == last:
        return np.array([first]), positions - first * num_positions
    epochs, within = np.divmod(positions, num_positions)
    return epochs, within

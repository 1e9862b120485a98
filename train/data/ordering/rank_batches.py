"""Divides the global sequence into steps, and each step into rank parts; small steps are given several at a time.

Preparing a batch takes about sixty small array operations. For a small batch, they cost more than copying the bytes.
For several batches at once, they cost no more than for one batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlapipe.schemas.errors import UsageError
from vlapipe.train.data.arguments import parse_whole_number
from vlapipe.train.data.ordering.order import Order

__all__ = ["RankPart", "Steps", "steps"]

_PLANNED = 8192  # samples whose frames are computed at once: a permutation takes 150 array operations for any number


@dataclass(frozen=True)
class RankPart:
    """One rank's part of every step."""

    rank: int
    world_size: int

    @classmethod
    def parse(cls, rank: int, world_size: int) -> RankPart:
        """Check both numbers.

        Raises:
            UsageError: ``rank`` is not from 0 to ``world_size - 1``.
        """
        world_size = parse_whole_number("Loader world_size", world_size, least=1)
        if parse_whole_number("Loader rank", rank, least=0) >= world_size:
            raise UsageError(f"Loader rank: expected 0 to {world_size - 1}, found {rank}")
        return cls(rank, world_size)


@dataclass(frozen=True)
class Steps:
    """Consecutive steps: ``ends`` has the global position after each step, ``frames`` this rank's frames of all steps.

    Each step has the same number of frames. The frames are empty if this rank's part of a short last step is empty.
    ``positions`` has the frames' positions in the global sequence.
    """

    ends: list[int]
    frames: NDArray[np.int64]
    positions: NDArray[np.int64]

    def part(self, first: int, stop: int) -> Steps:
        """The steps ``first <= i < stop``."""
        size = len(self.frames) // len(self.ends)
        samples = slice(first * size, stop * size)
        return Steps(self.ends[first:stop], self.frames[samples], self.positions[samples])


def steps(
    order: Order, position: int, batch_size: int, share: RankPart, *, at_once: int, endless: bool
) -> Iterator[Steps]:
    """Give the steps from a global position to the end of its epoch, or forever with full batches if ``endless``.

    Args:
        order: gives the frame at each position.
        position: where to begin, counted over all epochs.
        batch_size: number of samples of one rank in a step.
        share: this rank's part.
        at_once: limit on the steps given at a time. The first one is given alone, so that the first batch does not wait
            for others.
        endless: go on into the next epoch, in the middle of a step if the epoch ends there.
    """
    per_step = batch_size * share.world_size
    epoch_end = (position // order.num_positions + 1) * order.num_positions
    own = np.arange(share.rank * batch_size, (share.rank + 1) * batch_size)
    count = 1  # steps planned at a time: one first, so that the first batch does not wait for others
    while endless or position + per_step <= epoch_end:
        num_planned = min(count, max(at_once, _PLANNED // batch_size))
        if not endless:
            num_planned = min(num_planned, (epoch_end - position) // per_step)
        starts = position + per_step * np.arange(num_planned)
        planned = _steps_at(order, starts + per_step, (starts[:, None] + own).reshape(-1))
        for first in range(0, num_planned, at_once):
            yield planned.part(first, min(first + at_once, num_planned))
        position += num_planned * per_step
        count *= 2
    if position < epoch_end:
        yield _steps_at(order, np.array([epoch_end]), _short_part(position, epoch_end, share))


def _steps_at(order: Order, ends: NDArray[np.int64], positions: NDArray[np.int64]) -> Steps:
    frames = order.frames(positions) if len(positions) else positions
    return Steps(ends.tolist(), frames, positions)


def _short_part(first: int, end: int, share: RankPart) -> NDArray[np.int64]:
    """A rank's positions of a short step, which is divided as evenly as possible."""
    count, rest = divmod(end - first, share.world_size)
    begin = first + share.rank * count + min(share.rank, rest)
    return np.arange(begin, begin + count + (share.rank < rest))

"""Computes how many positions of each epoch a group of frames gets, if its due number is not a whole number.

An epoch has a fixed number of positions. A group that is due 0.1 of a position gets one position in every tenth epoch,
instead of one in every epoch by rounding up. If there are 2,000 such groups, 200 of them come in each epoch. The result
follows from the epoch's number alone; nothing is stored and nothing is random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["EpochQuotas", "Quotas"]

_BITS = 20  # bits of the fraction of a position
_ONE = 1 << _BITS


@dataclass(frozen=True)
class EpochQuotas:
    """One epoch's positions, group after group: group ``g`` has ``starts[g] <= i < ends[g]``, which may be empty.

    ``drawn_before`` is the number of positions that each group had in all earlier epochs.
    """

    epoch: int
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    drawn_before: NDArray[np.int64]


class Quotas:
    """Gives each group a whole number of positions in each epoch: its due, rounded up in some epochs, else down.

    The groups' dues are intervals that lie end to end from 0 to ``num_positions``. Each epoch shifts all intervals by a
    fraction of a position, and a group gets the whole numbers in its interval. So an epoch has exactly
    ``num_positions`` positions. Each group, and each set of groups that lie side by side, is within one position of its
    due in every epoch, and over many epochs it gets exactly its due. The fractions are the van der Corput sequence
    (0, 1/2, 1/4, 3/4, 1/8, ...).
    """

    def __init__(self, due: NDArray[np.float64], num_positions: int, laid: NDArray[np.int64] | None = None) -> None:
        """Lay the intervals.

        Args:
            due: the due of each group, above 0; their sum is scaled to ``num_positions``.
            num_positions: number of positions in an epoch.
            laid: the groups in the order in which their intervals lie; ``None`` is the order of their numbers.
        """
        self.num_groups, self.num_positions = len(due), num_positions
        self._laid = np.arange(len(due)) if laid is None else laid
        ends = np.cumsum(due[self._laid])
        fixed = np.rint(ends / ends[-1] * num_positions * _ONE).astype(np.int64)
        self._whole, self._part = fixed >> _BITS, fixed & (_ONE - 1)
        self._last = self._of(0)  # replaced by one assignment, hence thread-safe

    def of(self, epoch: int) -> EpochQuotas:
        """The quotas of an epoch; the last epoch's are cached, because an epoch is asked for piece by piece."""
        last = self._last
        if last.epoch != epoch:
            self._last = last = self._of(epoch)
        return last

    def _of(self, epoch: int) -> EpochQuotas:
        before = self._up_to(epoch)
        ends = np.cumsum(self._up_to(epoch + 1) - before)
        return EpochQuotas(epoch, np.append(0, ends[:-1]), ends, before)

    def _up_to(self, epoch: int) -> NDArray[np.int64]:
        """Number of positions of each group in all epochs before this one."""
        turns, rest = divmod(epoch, _ONE)
        # A whole turn of the sequence has each of the 2^20 fractions once. So in one turn, the end of an interval
        # passes as many whole numbers more as its own fraction says (``_part``).
        passed = epoch * self._whole + turns * self._part + _count_carries(rest, self._part)
        of_groups = np.empty(self.num_groups, dtype=np.int64)
        of_groups[self._laid] = np.diff(passed, prepend=0)
        return of_groups


def _count_carries(count: int, part: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each ``part``: how many of the sequence's first ``count`` fractions give 1 or more when added to part / 2^20.

    The sequence's fraction is its index with the bits reversed. The indices below ``count`` form one block of 2^b
    indices with the same higher bits for each bit b that is set in ``count``. Reversed, a block is 2^b numbers at equal
    distances, which are counted by a division.
    """
    carries = np.zeros_like(part)
    least = _ONE - part  # the smallest fraction whose sum with ``part`` is 1
    for bit in range(_BITS):
        if count >> bit & 1:
            size, apart = 1 << bit, 1 << (_BITS - bit)
            first = _mirrored(count >> (bit + 1) << (bit + 1))
            too_small = -((first - least) // apart)
            carries += size - np.clip(too_small, 0, size)
    return carries


def _mirrored(index: int) -> int:
    """The index with its bits reversed."""
    return int(f"{index:0{_BITS}b}"[::-1], 2)

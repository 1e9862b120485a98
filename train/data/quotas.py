"""How many positions of each epoch a group of frames has, where what is due to it is no whole number.

An epoch has a fixed number of positions. A group that is due 0.1 of them has one in every tenth epoch, and is not
rounded up to one in each: of 2,000 such groups, 200 come in an epoch. All of it is computed from the epoch's number;
nothing is stored or drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["EpochQuotas", "Quotas"]

_BITS = 20  # of the fraction of a position
_ONE = 1 << _BITS


@dataclass(frozen=True)
class EpochQuotas:
    """One epoch's positions, group after group: group ``g`` has ``starts[g] <= i < ends[g]``, perhaps none.

    ``drawn_before`` are the positions that each group had in all epochs before.
    """

    epoch: int
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    drawn_before: NDArray[np.int64]


class Quotas:
    """Whole numbers for each group and epoch: what is due to it, rounded up in some epochs and down in the others.

    The groups' dues are laid end to end from 0 to ``num_positions``. Each epoch shifts them along by a fraction of a
    position, and a group has the whole numbers that then lie in its part. So an epoch has exactly ``num_positions``,
    each group, and each run of groups that are laid side by side, is within one of its due in every epoch, and over
    many epochs has exactly its due. The fractions are the van der Corput sequence (0, 1/2, 1/4, 3/4, 1/8, ...).
    """

    def __init__(self, due: NDArray[np.float64], num_positions: int, laid: NDArray[np.int64] | None = None) -> None:
        """Args:
        due: of each group, above 0; they are scaled to the number of positions.
        num_positions: of an epoch.
        laid: the groups in the order in which they are laid; as they are numbered if ``None``.
        """
        self.num_groups, self.num_positions = len(due), num_positions
        self._laid = np.arange(len(due)) if laid is None else laid
        ends = np.cumsum(due[self._laid])
        fixed = np.rint(ends / ends[-1] * num_positions * _ONE).astype(np.int64)
        self._whole, self._part = fixed >> _BITS, fixed & (_ONE - 1)
        self._last = self._of(0)  # replaced as one, whoever reads it

    def of(self, epoch: int) -> EpochQuotas:
        """Those of an epoch; kept, as they are asked for piece by piece."""
        last = self._last
        if last.epoch != epoch:
            self._last = last = self._of(epoch)
        return last

    def _of(self, epoch: int) -> EpochQuotas:
        before = self._up_to(epoch)
        ends = np.cumsum(self._up_to(epoch + 1) - before)
        return EpochQuotas(epoch, np.append(0, ends[:-1]), ends, before)

    def _up_to(self, epoch: int) -> NDArray[np.int64]:
        """Positions of each group in all epochs before this one."""
        turns, rest = divmod(epoch, _ONE)
        # A whole turn of the sequence has every fraction once, so an end passes as many whole numbers as its own part.
        passed = epoch * self._whole + turns * self._part + _count_carries(rest, self._part)
        of_groups = np.empty(self.num_groups, dtype=np.int64)
        of_groups[self._laid] = np.diff(passed, prepend=0)
        return of_groups


def _count_carries(count: int, part: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the sequence's first ``count`` fractions make one or more of each ``part`` / 2^20 when added to it.

    The sequence mirrors the bits of its index. The indices below ``count`` fall into blocks of 2^b with the same
    higher bits, one for each bit b of ``count``; mirrored, a block is 2^b numbers a fixed distance apart.
    """
    carries = np.zeros_like(part)
    least = _ONE - part  # the smallest fraction that makes one
    for bit in range(_BITS):
        if count >> bit & 1:
            size, apart = 1 << bit, 1 << (_BITS - bit)
            first = _mirrored(count >> (bit + 1) << (bit + 1))
            too_small = -((first - least) // apart)
            carries += size - np.clip(too_small, 0, size)
    return carries


def _mirrored(index: int) -> int:
    """The index with its bits in the opposite order."""
    return int(f"{index:0{_BITS}b}"[::-1], 2)

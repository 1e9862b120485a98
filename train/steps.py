"""Cuts the global sequence into steps, and each step into the ranks' shares; many steps are planned at a time.

Planning costs a hundred small array operations: for one batch that is more than copying it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlapipe.schemas.errors import UsageError
from vlapipe.train.arguments import parse_whole_number
from vlapipe.train.order import Order

__all__ = ["Plan", "Share", "Step", "steps"]

_PLANNED = 2048  # samples planned at a time, or one step if it has more


@dataclass(frozen=True)
class Share:
    """One rank's part of every step."""

    rank: int
    world_size: int

    @classmethod
    def parse(cls, rank: int, world_size: int) -> Share:
        """Both checked.

        Raises:
            UsageError: there is no such rank.
        """
        world_size = parse_whole_number("Loader world_size", world_size, least=1)
        if parse_whole_number("Loader rank", rank, least=0) >= world_size:
            raise UsageError(f"Loader rank: expected 0 to {world_size - 1}, found {rank}")
        return cls(rank, world_size)


class Plan(Protocol):
    """What is known of many samples; a slice is the same of some of them."""

    def __getitem__(self, samples: slice) -> Self:
        """Of some."""


AnyPlan = TypeVar("AnyPlan", bound=Plan)


@dataclass(frozen=True)
class Step(Generic[AnyPlan]):
    """The global position after the step, and the plan of this rank's samples in it.

    There is none if the rank has no share of a short last step.
    """

    end: int
    plan: AnyPlan | None


def steps(
    order: Order,
    plan_of: Callable[[NDArray[np.int64]], AnyPlan],
    position: int,
    batch_size: int,
    share: Share,
    *,
    endless: bool,
) -> Iterator[Step[AnyPlan]]:
    """The steps from a global position on: to the end of its epoch, or for ever with full batches if ``endless``.

    ``plan_of`` is asked for many positions of this rank at a time.
    """
    if not order.num_positions:
        return
    per_step = batch_size * share.world_size
    at_once = max(1, _PLANNED // batch_size)
    epoch_end = (position // order.num_positions + 1) * order.num_positions
    while endless or position + per_step <= epoch_end:
        left = at_once if endless else (epoch_end - position) // per_step
        count = min(at_once, left)
        first = position + per_step * np.arange(count) + share.rank * batch_size
        plan = plan_of((first[:, None] + np.arange(batch_size)).reshape(-1))
        for i in range(count):
            position += per_step
            yield Step(position, plan[i * batch_size : (i + 1) * batch_size])
    if position < epoch_end:
        positions = _short_share(position, epoch_end, share)
        yield Step(epoch_end, plan_of(positions) if len(positions) else None)


def _short_share(first: int, end: int, share: Share) -> NDArray[np.int64]:
    """A rank's positions of a step that is not full: they are shared as evenly as it goes."""
    count, rest = divmod(end - first, share.world_size)
    begin = first + share.rank * count + min(share.rank, rest)
    return np.arange(begin, begin + count + (share.rank < rest))

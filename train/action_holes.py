"""Which episodes lack an action at a frame among others that have one: only there must an action's row be looked up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.train.frames import BatchPlan
from vlapipe.train.sources import ANCHOR, Sources

__all__ = ["ActionHoles"]

_UNKNOWN, _NONE, _SOME = 0, 1, 2


class ActionHoles:
    """Elsewhere every frame up to the episode's last has an action, and a batch saves as many cache misses.

    An episode is looked through when a frame of it comes for the first time.
    """

    def __init__(self, sources: Sources) -> None:
        self._start = sources.stream_column(ANCHOR, "start")
        self._frame_start, self._num_frames = sources.column("frame_start"), sources.column("num_frames")
        self._found = np.full(len(self._start), _UNKNOWN, dtype=np.uint8)

    def in_any(self, plan: BatchPlan, rows_of: Callable[[int, int, int], NDArray[Any]]) -> bool:
        """Whether any of the plan's episodes has one.

        ``rows_of`` gives a shard's ``action/row``, from a row to before another.
        """
        found = self._found[plan.episode]
        unknown = np.flatnonzero(found == _UNKNOWN)
        if len(unknown):
            shards = dict(zip(plan.episode[unknown].tolist(), plan.shard[unknown].tolist(), strict=True))
            for episode, shard in shards.items():
                begin = int(self._start[episode] + self._frame_start[episode])
                rows = rows_of(shard, begin, begin + int(self._num_frames[episode]))
                self._found[episode] = _SOME if rows.min() < 0 else _NONE
            found = self._found[plan.episode]
        return bool((found == _SOME).any())

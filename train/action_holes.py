"""Which episodes lack an action at a frame among others that have one: only there must an action's row be looked up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.train.sources import ANCHOR, Sources

__all__ = ["ActionHoles"]


class ActionHoles:
    """Elsewhere every frame up to the episode's last has an action, and a batch saves as many cache misses."""

    def __init__(self, sources: Sources) -> None:
        self._shard = sources.shards()
        self._begin = sources.stream_column(ANCHOR, "start") + sources.column("frame_start")
        self._end = self._begin + sources.column("num_frames")
        self._has_holes = np.zeros(len(self._shard), dtype=bool)

    def note(self, shard: int, action_row: NDArray[Any]) -> None:
        """Look through a shard's ``action/row`` ``(rows,)``, negative where there is no action."""
        first, stop = np.searchsorted(self._shard, [shard, shard + 1])
        missing = np.flatnonzero(action_row < 0)
        begin, end = (np.searchsorted(missing, rows[first:stop]) for rows in (self._begin, self._end))
        self._has_holes[first:stop] = begin < end

    def in_any(self, episode: NDArray[np.int64]) -> bool:
        """Whether any of these episodes, whose shards have been noted, has one."""
        return bool(self._has_holes[episode].any())

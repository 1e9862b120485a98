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
        self._shard = sources.shards
        self._start = sources.stream_column(ANCHOR, "start")
        self._frame_start, self._num_frames = sources.column("frame_start"), sources.column("num_frames")
        self._has_holes = np.zeros(len(self._shard), dtype=bool)

    def note(self, shard: int, action_row: NDArray[Any]) -> None:
        """Look through a shard's ``action/row`` ``(rows,)``, negative where there is no action."""
        episodes = slice(*np.searchsorted(self._shard, [shard, shard + 1]).tolist())
        begin = self._start[episodes] + self._frame_start[episodes]
        missing = np.flatnonzero(action_row < 0)
        before = [np.searchsorted(missing, rows) for rows in (begin, begin + self._num_frames[episodes])]
        self._has_holes[episodes] = before[0] < before[1]

    def in_any(self, episode: NDArray[np.int64]) -> bool:
        """Whether any of these episodes, whose shards have been noted, has one."""
        return bool(self._has_holes[episode].any())

"""Which episodes lack an action at a frame among others that have one: only there must an action's row be looked up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.train.sources import ANCHOR, Sources

__all__ = ["ActionHoles"]

_BLOCK = 1 << 16  # rows


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
        missing = _negative(action_row)
        before = [np.searchsorted(missing, rows) for rows in (begin, begin + self._num_frames[episodes])]
        self._has_holes[episodes] = before[0] < before[1]

    def in_any(self, episode: NDArray[np.int64]) -> bool:
        """Whether any of these episodes, whose shards have been noted, has one."""
        return bool(self._has_holes[episode].any())


def _negative(rows: NDArray[Any]) -> NDArray[np.int64]:
    """Where they are, by blocks: what is put aside for a whole shard at once would stay with the process."""
    blocks = [np.flatnonzero(rows[i : i + _BLOCK] < 0) + i for i in range(0, len(rows), _BLOCK)]
    return np.concatenate(blocks) if blocks else np.empty(0, dtype=np.int64)

"""Which frames a split has, and where each one's rows lie: plain integers, looked up for a whole batch at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.dataset import Dataset

__all__ = ["BatchPlan", "FrameIndex"]


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The frames of one batch: ``index`` counts the split's frames, ``row`` is the anchor row within the episode."""

    index: NDArray[np.int64]
    episode: NDArray[np.int64]
    row: NDArray[np.int64]
    shard: NDArray[np.int64]


class FrameIndex:
    """The frames of one split (or of all episodes if ``None``), numbered from 0 episode by episode."""

    def __init__(self, dataset: Dataset, split: str | None) -> None:
        in_split = dataset.column("split") == split if split else np.ones(len(dataset), dtype=bool)
        self._episodes = np.flatnonzero(in_split)
        self._shard = dataset.column("shard").astype(np.int64)
        self._first_row = dataset.column("frame_start")[self._episodes]
        ends = np.cumsum(dataset.column("num_frames")[self._episodes], dtype=np.int64)
        self._starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
        self.num_frames = int(ends[-1]) if len(ends) else 0

    def plan(self, frames: NDArray[np.int64]) -> BatchPlan:
        """Look up frames ``(B,)``."""
        place = np.searchsorted(self._starts, frames, side="right") - 1
        episode = self._episodes[place]
        row = self._first_row[place] + frames - self._starts[place]
        return BatchPlan(index=frames, episode=episode, row=row, shard=self._shard[episode])

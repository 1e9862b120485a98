"""Gathers windows of mapped arrays for a whole batch at once; rows before an episode's first are marked, never silent.

Shape letters: B batch, T rows of a window, H action horizon, A action size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.actions import ACTION_ROW, ACTION_VALUE
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.train.frames import BatchPlan

__all__ = ["Gatherer"]


class Gatherer:
    """Turns a batch's plan into rows of arrays; holds each episode's place in its shard, and nothing that grows."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._anchor = dataset.schema.anchor

    def window(self, plan: BatchPlan, stream: str, num_rows: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The ``num_rows`` rows of a stream that end at each frame, within the shard.

        Returns:
            rows ``(B, T)``, the first row repeated before the episode begins, and is_pad ``(B, T)``, true there.
        """
        newest = plan.row if stream == self._anchor else self._aligned(plan, stream)
        rows = newest[:, None] + np.arange(1 - num_rows, 1)
        is_pad = rows < 0
        start = self._dataset.column(f"{stream}/start")[plan.episode]
        return np.maximum(rows, 0) + start[:, None], is_pad

    def _aligned(self, plan: BatchPlan, stream: str) -> NDArray[np.int64]:
        """The stream's last row at or before each frame, within the episode."""
        anchor_row = plan.row + self._dataset.column(f"{self._anchor}/start")[plan.episode]
        newest = np.empty(len(plan.row), dtype=np.int64)
        for shard, here in _by_shard(plan):
            newest[here] = self._dataset.arrays(shard)[f"align/{stream}"][anchor_row[here]]
        return newest

    def read(self, plan: BatchPlan, name: str, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Copy ``name``'s ``rows`` ``(B, ...)`` into ``out``, converting to its dtype."""
        for shard, here in _by_shard(plan):
            out[here] = self._dataset.arrays(shard)[name][rows[here]]

    def action_chunk(self, plan: BatchPlan, out: NDArray[np.float32], is_pad: NDArray[np.bool_], stride: int) -> None:
        """Fill ``out`` ``(B, H, A)`` with every ``stride``-th action from each frame on, and ``is_pad`` ``(B, H)``.

        Zero and marked where the episode has ended or the row has no action.
        """
        rows = plan.row[:, None] + stride * np.arange(out.shape[1])
        last = self._dataset.column(f"{self._anchor}/rows")[plan.episode] - 1
        past_end = rows > last[:, None]
        rows = np.minimum(rows, last[:, None]) + self._dataset.column(f"{self._anchor}/start")[plan.episode][:, None]
        for shard, here in _by_shard(plan):
            arrays = self._dataset.arrays(shard)
            is_pad[here] = past_end[here] | (arrays[ACTION_ROW][rows[here]] < 0)
            out[here] = arrays[ACTION_VALUE][rows[here]]
        out[is_pad] = 0


def _by_shard(plan: BatchPlan) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each shard of the batch, with the samples that lie in it."""
    for shard in np.unique(plan.shard):
        yield int(shard), np.flatnonzero(plan.shard == shard)

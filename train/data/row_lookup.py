"""Finds the rows of the shard that each sample of a batch needs, stream by stream, and marks missing rows.

Shape letters: N samples, T rows of a window, H action horizon.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.actions import ACTION_STRIDE_ORDER, position_in_stride_order
from vlapipe.train.data.dataset_group import ANCHOR, Sources
from vlapipe.train.data.frame_index import BatchPlan
from vlapipe.train.data.row_reader import RowReader, Rows
from vlapipe.train.data.shard_table import ShardTable
from vlapipe.train.data.window_size import Window

__all__ = ["ActionHoles", "BatchRows", "Images", "RowLookup"]


@dataclass(frozen=True)
class Images:
    """Windows of T images: ``row`` (N, T) within the shard; the first is repeated where ``is_pad`` (N, T) is true."""

    row: NDArray[np.int64]
    is_pad: NDArray[np.bool_]


@dataclass(frozen=True)
class BatchRows:
    """The rows of N samples: ``windows`` by batch entry, ``images`` by camera, and ``actions``, the action chunks.

    ``no_action`` (N, H) marks rows of the chunks that have no action; ``None`` if the batch's episodes have none.
    """

    frames: BatchPlan
    windows: dict[str, Rows]
    images: dict[str, Images]
    actions: Rows
    no_action: NDArray[np.bool_] | None


class RowLookup:
    """Turns frames into rows; keeps a few columns of the episodes table in memory."""

    def __init__(self, sources: Sources, shards: ShardTable, reader: RowReader, window: Window) -> None:
        sample = sources.first.schema.sample
        self._shards, self._reader = shards, reader
        self._cameras = sources.first.cameras
        self._sensors = [name for name, _ in sample.sensors]
        self._on_anchor = {name for name in self._sensors if sources.is_on_anchor(name)}
        self._state_rows, self._sensor_rows = window.state_rows or 1, window.sensor_rows or 1
        self._image_rows = window.image_rows or 1
        self._action_stride = window.action_stride or 1
        self._action_rows = window.action_rows or 1
        stored_strides = {dataset.schema.sample.action_stride for dataset in sources.datasets}
        self._has_stride_order = self._action_stride > 1 and stored_strides == {self._action_stride}
        self._holes = ActionHoles(sources)
        streams = [ANCHOR, *self._sensors, *self._cameras]
        self._start = {stream: sources.stream_column(stream, "start") for stream in streams}
        self._num_rows = sources.stream_column(ANCHOR, "rows")
        self._frame_start, self._num_frames = sources.column("frame_start"), sources.column("num_frames")

    def locate(self, plan: BatchPlan) -> BatchRows:
        """Look up every sample's rows. The caller holds a lease of the shards.

        Raises:
            DamageError: a row lies outside its shard.
        """
        anchor_row = plan.row + self._start[ANCHOR][plan.episode]
        windows = {"observation.state": self._window(plan, "observation.state", ANCHOR, plan.row, self._state_rows)}
        for name in self._sensors:
            entry = f"observation.sensors.{name}"
            newest = plan.row if name in self._on_anchor else self._newest(plan, name, anchor_row)
            windows[entry] = self._window(plan, entry, name, newest, self._sensor_rows)
        images = {
            camera: self._images(plan, camera, self._newest(plan, camera, anchor_row)) for camera in self._cameras
        }
        return BatchRows(plan, windows, images, *self._actions(plan, anchor_row))

    def _newest(self, plan: BatchPlan, stream: str, anchor_row: NDArray[np.int64]) -> NDArray[np.int64]:
        """The stream's last row at or before each frame, counted within the episode."""
        newest = np.empty((len(anchor_row), 1), dtype=np.int32)
        self._reader.read(Rows.from_first(f"align/{stream}", 1, plan.shard, anchor_row), newest)
        return newest[:, 0].astype(np.int64)

    def _window(self, plan: BatchPlan, entry: str, stream: str, newest: NDArray[np.int64], num_rows: int) -> Rows:
        """The window of rows up to the newest; rows before the episode's first row are padding."""
        start = self._start[stream][plan.episode]
        last = start + newest
        return Rows(entry, num_rows, plan.shard, last - (num_rows - 1), start, np.maximum(start, last))

    def _images(self, plan: BatchPlan, camera: str, newest: NDArray[np.int64]) -> Images:
        row = newest[:, None] + np.arange(1 - self._image_rows, 1)
        start = self._start[camera][plan.episode]
        return Images(start[:, None] + np.maximum(row, 0), row < 0)

    def _actions(self, plan: BatchPlan, anchor_row: NDArray[np.int64]) -> tuple[Rows, NDArray[np.bool_] | None]:
        """Each frame's action chunk up to the episode's last frame, and a mask of the rows that have no action."""
        frame_end = self._frame_start[plan.episode] + self._num_frames[plan.episode]
        steps = np.minimum((frame_end - 1 - plan.row) // self._action_stride, self._action_rows - 1)
        no_action = self._no_action(plan, anchor_row, steps)
        if not self._has_stride_order:
            end = anchor_row + steps * self._action_stride
            rows = Rows("action", self._action_rows, plan.shard, anchor_row, anchor_row, end, self._action_stride)
            return rows, no_action
        place = position_in_stride_order(plan.row, self._num_rows[plan.episode], self._action_stride)
        first = anchor_row - plan.row + place
        return Rows(ACTION_STRIDE_ORDER, self._action_rows, plan.shard, first, first, first + steps), no_action

    def _no_action(
        self, plan: BatchPlan, anchor_row: NDArray[np.int64], steps: NDArray[np.int64]
    ) -> NDArray[np.bool_] | None:
        if not self._holes.in_any(plan, partial(self._shards.rows, "action/row")):
            return None
        ahead = np.empty((len(anchor_row), self._action_rows), dtype=np.int32)
        end = anchor_row + steps * self._action_stride
        rows = Rows("action/row", self._action_rows, plan.shard, anchor_row, anchor_row, end, self._action_stride)
        self._reader.read(rows, ahead)
        return ahead < 0


_UNKNOWN, _NONE, _SOME = 0, 1, 2


class ActionHoles:
    """Finds the episodes in which a frame has no action.

    If a batch has no such episode, the lookup need not read ``action/row``, which saves as many cache misses as
    the batch has samples. An episode is searched when one of its frames comes for the first time.
    """

    def __init__(self, sources: Sources) -> None:
        self._start = sources.stream_column(ANCHOR, "start")
        self._frame_start, self._num_frames = sources.column("frame_start"), sources.column("num_frames")
        self._found = np.full(len(self._start), _UNKNOWN, dtype=np.uint8)

    def in_any(self, plan: BatchPlan, rows_of: Callable[[int, int, int], NDArray[Any]]) -> bool:
        """Whether any of the plan's episodes has a frame without an action.

        ``rows_of(shard, start, stop)`` gives the rows ``start <= i < stop`` of a shard's ``action/row``.
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

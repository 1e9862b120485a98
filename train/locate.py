"""Where the bytes of a batch lie: for every sample and stream an address, and how many rows are missing before it.

Shape letters: N samples, T rows of a window, H action horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.actions import ACTION_PHASES, place_in_phases
from vlapipe.train.action_holes import ActionHoles
from vlapipe.train.frames import BatchPlan
from vlapipe.train.open_shards import OpenShards
from vlapipe.train.sources import ANCHOR, Sources
from vlapipe.train.window import Window
from vlapipe.train.windows_of_memory import address_of, gather

__all__ = ["Images", "Locator", "Places", "Rows"]


@dataclass(frozen=True)
class Rows:
    """T rows of each of N samples, most of them side by side.

    ``run`` (N,) is the address of T rows. Those of the samples ``apart`` (K,), ascending, are not the sample's own: its
    rows have an ``address`` (K, T) each, that of some other row of the episode where ``is_pad`` (K, T).
    """

    run: NDArray[np.int64]
    apart: NDArray[np.int64]
    address: NDArray[np.int64]
    is_pad: NDArray[np.bool_]


@dataclass(frozen=True)
class Images:
    """Windows of T images: ``row`` (N, T) within the shard, the first repeated where ``is_pad`` (N, T)."""

    row: NDArray[np.int64]
    is_pad: NDArray[np.bool_]


@dataclass(frozen=True)
class Places:
    """Where the entries of N samples lie: windows by entry, images by view, and action chunks."""

    frames: BatchPlan
    windows: dict[str, Rows]
    images: dict[str, Images]
    actions: Rows


class Locator:
    """Turns frames into addresses; holds a few columns of the episodes table."""

    def __init__(self, sources: Sources, shards: OpenShards, window: Window) -> None:
        sample = sources.first.schema.sample
        self._shards = shards
        self._cameras = sources.first.cameras
        self._sensors = [name for name, _ in sample.sensors]
        self._state_rows, self._sensor_rows = window.state_rows or 1, window.sensor_rows or 1
        self._image_rows = window.image_rows or 1
        self._action_stride = window.action_stride or 1
        self._steps = np.arange(window.action_rows or 1)
        stored_strides = {dataset.schema.sample.action_stride for dataset in sources.datasets}
        self._has_phases = self._action_stride > 1 and stored_strides == {self._action_stride}
        self._holes = ActionHoles(sources)
        self._blanks: dict[int, NDArray[np.uint8]] = {}
        streams = [ANCHOR, *self._sensors, *self._cameras]
        self._start = {stream: sources.stream_column(stream, "start") for stream in streams}
        self._num_rows = sources.stream_column(ANCHOR, "rows")
        self._frame_start, self._num_frames = sources.column("frame_start"), sources.column("num_frames")

    def locate(self, plan: BatchPlan) -> Places:
        """Look up every sample's rows; its shards are open.

        Raises:
            DamageError: a row lies outside its shard.
        """
        anchor_row = plan.row + self._start[ANCHOR][plan.episode]
        windows = {"observation.state": self._window(plan, "observation.state", ANCHOR, plan.row, self._state_rows)}
        for name in self._sensors:
            entry = f"observation.sensors.{name}"
            newest = self._newest(plan, name, anchor_row)
            windows[entry] = self._window(plan, entry, name, newest, self._sensor_rows)
        images = {
            camera: self._images(plan, camera, self._newest(plan, camera, anchor_row)) for camera in self._cameras
        }
        return Places(plan, windows, images, self._actions(plan, anchor_row))

    def _newest(self, plan: BatchPlan, stream: str, anchor_row: NDArray[np.int64]) -> NDArray[np.int64]:
        """The stream's last row at or before each frame, within the episode."""
        return self._numbers(f"align/{stream}", plan.shard, anchor_row).astype(np.int64)

    def _numbers(self, name: str, shard: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int32]:
        numbers = np.empty(row.shape, dtype=np.int32)
        addresses = self._shards.addresses(name, shard, row)
        gather(addresses.reshape(-1), numbers.view(np.uint8).reshape(-1, 4))
        return numbers

    def _window(self, plan: BatchPlan, entry: str, stream: str, newest: NDArray[np.int64], num_rows: int) -> Rows:
        first = newest - (num_rows - 1)
        start = self._start[stream][plan.episode]
        address = self._shards.addresses(entry, plan.shard, start + np.maximum(first, 0), start + newest)
        row_bytes = self._shards.row_bytes(entry, plan.shard)
        short = np.flatnonzero(first < 0)
        missing = -first[short, None]
        row = np.arange(num_rows)
        rows = address[short, None] + np.maximum(row - missing, 0) * row_bytes
        return Rows(self._runs(address, short, num_rows * row_bytes), short, rows, row < missing)

    def _runs(self, address: NDArray[np.int64], apart: NDArray[np.int64], num_bytes: int) -> NDArray[np.int64]:
        """The addresses, but for samples ``apart``: so many bytes from there may reach past the end of the map."""
        if len(apart):
            address = address.copy()
            address[apart] = address_of(self._blank(num_bytes))
        return address

    def _blank(self, num_bytes: int) -> NDArray[np.uint8]:
        """Bytes that can be read in place of a window; held here."""
        return self._blanks.setdefault(num_bytes, np.zeros(num_bytes, dtype=np.uint8))

    def _images(self, plan: BatchPlan, camera: str, newest: NDArray[np.int64]) -> Images:
        row = newest[:, None] + np.arange(1 - self._image_rows, 1)
        start = self._start[camera][plan.episode]
        return Images(start[:, None] + np.maximum(row, 0), row < 0)

    def _actions(self, plan: BatchPlan, anchor_row: NDArray[np.int64]) -> Rows:
        """The rows ahead of each frame, up to the episode's last."""
        last = self._frame_start[plan.episode] + self._num_frames[plan.episode] - 1
        steps_left = (last - plan.row) // self._action_stride
        name, first, stride = "action", anchor_row, self._action_stride
        if self._has_phases:
            place = place_in_phases(plan.row, self._num_rows[plan.episode], stride)
            name, first, stride = ACTION_PHASES, anchor_row - plan.row + place, 1
        most = len(self._steps) - 1
        address = self._shards.addresses(name, plan.shard, first, first + np.minimum(steps_left, most) * stride)
        row_bytes = self._shards.row_bytes(name, plan.shard)

        is_apart = (steps_left < most) | (stride > 1)
        lacks = self._lacks_action(plan, anchor_row, steps_left)
        if lacks is not None:
            is_apart |= lacks.any(axis=1)
        apart = np.flatnonzero(is_apart)
        left = steps_left[apart, None]
        is_pad = self._steps > left
        if lacks is not None:
            is_pad |= lacks[apart]
        rows = address[apart, None] + np.minimum(self._steps, left) * (stride * row_bytes)
        return Rows(self._runs(address, apart, len(self._steps) * row_bytes), apart, rows, is_pad)

    def _lacks_action(
        self, plan: BatchPlan, anchor_row: NDArray[np.int64], steps_left: NDArray[np.int64]
    ) -> NDArray[np.bool_] | None:
        """Of each row of the chunks (N, H), the last one again after it: whether it has none; None if all have one."""
        if not self._holes.in_any(plan, partial(self._shards.rows, "action/row")):
            return None
        steps = np.minimum(self._steps, steps_left[:, None])
        return self._numbers("action/row", plan.shard[:, None], anchor_row[:, None] + steps * self._action_stride) < 0

"""Copies a batch's rows into its buffers, a stream at a time; rows before an episode's first are marked, never silent.

Shape letters: B batch, T rows of a window, H action horizon, A action size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.train.locate import Actions, Places, Rows
from vlapipe.train.view_reader import ViewReader
from vlapipe.train.windows_of_memory import gather

__all__ = ["fill"]


def fill(out: dict[str, NDArray[Any]], places: Places, views: Mapping[str, ViewReader]) -> None:
    """Copy every entry of a batch to ``out``, by key: C-contiguous, images as (B, T, height, width, 3).

    Raises:
        ImageError: an image cannot be decoded; ``index`` is its sample's.
    """
    for key, rows in places.windows.items():
        _copy_windows(rows, out[key], out[f"{key}_is_pad"])
    _copy_actions(places.actions, out["action"], out["action_is_pad"])
    for view, images in places.images.items():
        key = f"observation.images.{view}"
        out[f"{key}_is_pad"][...] = images.is_pad
        views[view].read(places.frames, images, out[key])
    out["episode_index"][...] = places.frames.episode
    out["frame_index"][...] = places.frames.row
    out["index"][...] = places.frames.index


def _copy_windows(rows: Rows, out: NDArray[Any], is_pad: NDArray[np.bool_]) -> None:
    """Each window as one run of bytes; where an episode's first row must be repeated, row by row."""
    count, num_rows = is_pad.shape
    in_bytes = out.view(np.uint8).reshape(count, num_rows * rows.row_bytes)
    gather(rows.whole, in_bytes)
    is_pad[...] = False
    padded = np.flatnonzero(rows.short)
    if len(padded):
        short = rows.short[padded, None]
        is_pad[padded] = np.arange(num_rows) < short
        row = np.maximum(np.arange(num_rows) - short, 0)
        repeated = np.empty((row.size, rows.row_bytes), dtype=np.uint8)
        gather((rows.first[padded, None] + row * rows.row_bytes).reshape(-1), repeated)
        in_bytes[padded] = repeated.reshape(len(padded), -1)


def _copy_actions(actions: Actions, out: NDArray[np.float32], is_pad: NDArray[np.bool_]) -> None:
    """Zero where the episode has ended or the row has no action."""
    gather(actions.address.reshape(-1), out.view(np.uint8).reshape(-1, out.itemsize * out.shape[-1]))
    is_pad[...] = actions.is_pad
    if is_pad.any():
        out[is_pad] = 0

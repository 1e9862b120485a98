"""Copies a batch's rows into its buffers, a stream at a time; rows before an episode's first are marked, never silent.

Shape letters: B batch, T rows of a window, H action horizon, A action size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.train.locate import Places, Rows
from vlapipe.train.view_reader import CameraReader
from vlapipe.train.windows_of_memory import gather

__all__ = ["fill"]


def fill(out: dict[str, NDArray[Any]], places: Places, cameras: Mapping[str, CameraReader]) -> None:
    """Copy every entry of a batch to ``out``, by key: C-contiguous, images as (B, T, height, width, 3).

    Actions are zero where there is none: the episode has ended, or the row lacks one.

    Raises:
        ImageError: an image cannot be decoded; ``index`` is its sample's.
    """
    for key, rows in places.windows.items():
        _copy_rows(rows, out[key], out[f"{key}_is_pad"])
    _copy_rows(places.actions, out["action"], out["action_is_pad"])
    if out["action_is_pad"].any():
        out["action"][out["action_is_pad"]] = 0
    for camera, images in places.images.items():
        key = f"observation.images.{camera}"
        out[f"{key}_is_pad"][...] = images.is_pad
        cameras[camera].read(places.frames, images, out[key])
    out["episode_index"][...] = places.frames.episode
    out["frame_index"][...] = places.frames.row
    out["index"][...] = places.frames.index


def _copy_rows(rows: Rows, out: NDArray[Any], is_pad: NDArray[np.bool_]) -> None:
    """Rows that lie side by side as one run of bytes, others one by one."""
    count, num_rows = is_pad.shape
    in_bytes = out.view(np.uint8).reshape(count, num_rows, -1)
    num_apart = len(rows.apart)
    if num_apart < count:
        gather(rows.run, in_bytes.reshape(count, -1))
        is_pad[...] = False
    if num_apart == count:
        gather(rows.address.reshape(-1), in_bytes.reshape(count * num_rows, -1))
        is_pad[...] = rows.is_pad
    elif num_apart:
        apart = np.empty((num_apart, *in_bytes.shape[1:]), dtype=np.uint8)
        gather(rows.address.reshape(-1), apart.reshape(num_apart * num_rows, -1))
        in_bytes[rows.apart] = apart
        is_pad[rows.apart] = rows.is_pad

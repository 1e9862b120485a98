"""Copies a batch's rows into its buffers, a stream at a time; rows before an episode's first are marked, never silent.

Shape letters: B batch, T rows of a window, H action horizon, A action size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.train.locate import Places
from vlapipe.train.row_reader import RowReader, Rows
from vlapipe.train.view_reader import CameraReader

__all__ = ["fill"]


def fill(out: dict[str, NDArray[Any]], places: Places, reader: RowReader, cameras: Mapping[str, CameraReader]) -> None:
    """Copy every entry of a batch to ``out``, by key: C-contiguous, images as (B, T, height, width, 3).

    Actions are zero where there is none: the episode has ended, or the row lacks one.

    Raises:
        ImageError: an image cannot be decoded; ``index`` is its sample's.
    """
    for key, rows in places.windows.items():
        _copy(rows, reader, out[key], out[f"{key}_is_pad"])
    _copy(places.actions, reader, out["action"], out["action_is_pad"])
    if places.no_action is not None:
        out["action_is_pad"] |= places.no_action
    if out["action_is_pad"].any():
        out["action"][out["action_is_pad"]] = 0
    for camera, images in places.images.items():
        key = f"observation.images.{camera}"
        out[f"{key}_is_pad"][...] = images.is_pad
        cameras[camera].read(places.frames, images, out[key])
    out["episode_index"][...] = places.frames.episode
    out["frame_index"][...] = places.frames.row
    out["index"][...] = places.frames.index


def _copy(rows: Rows, reader: RowReader, out: NDArray[Any], is_pad: NDArray[np.bool_]) -> None:
    reader.read(rows, out)
    is_pad[...] = False
    is_pad[rows.apart] = rows.is_pad

"""Small JPEG pictures as data URIs, for a page that asks nothing of the network."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlapipe.pipeline.report.recorded import RecordedEpisode

__all__ = ["camera_changes", "data_uri", "frame_rows", "thumbnail"]

_QUALITY = 72
_GRID = (24, 32)  # rows and columns of a camera's image when two are compared
_MOST_COMPARED = 240  # images of an episode


def thumbnail(episode: RecordedEpisode, camera: str, row: int, width: int) -> Image.Image | None:
    """Returns an image so many pixels wide; ``None`` if it cannot be decoded."""
    height = max(1, round(width * episode.row[f"{camera}/height"] / max(1, episode.row[f"{camera}/width"])))
    try:
        pixels = episode.image(camera, row, (height, width))
    except ValueError:
        return None
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)


def data_uri(image: Image.Image) -> str:
    """Returns the image as the text of a JPEG that a page holds in itself."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def frame_rows(count: int, wanted: int, *, within: bool = False) -> list[int]:
    """Returns the rows of so many images spread over an episode: with both ends, or the middles of equal parts."""
    if not count:
        return []
    num = min(count, wanted)
    places = (np.arange(num) + 0.5) / num * count - 0.5 if within else np.linspace(0, count - 1, num)
    return sorted({round(place) for place in places.tolist()})


def camera_changes(episode: RecordedEpisode, camera: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns times, and by how much each image differs from the one before: the mean over pixels, 0 to 255."""
    rows = np.arange(min(episode.num_rows[camera], _MOST_COMPARED))
    times = episode.times(camera)[rows]
    changes = np.full(len(rows), np.nan)
    before: NDArray[Any] | None = None
    for i in rows.tolist():
        try:
            pixels = episode.image(camera, i, _GRID)
        except ValueError:
            before = None
            continue
        small = pixels.mean(axis=2)
        if before is not None and before.shape == small.shape:
            changes[i] = float(np.abs(small - before).mean())
        before = small
    return times, changes

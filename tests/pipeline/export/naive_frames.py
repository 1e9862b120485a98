"""What an export should hold, worked out frame by frame in plain Python from the arrays of the dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from vlapipe.pipeline.shards.dataset import Dataset


@dataclass
class NaiveEpisode:
    """One episode: the anchor row of each frame, its numbers, and the image of each camera."""

    rows: list[int]
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    jpegs: dict[str, list[bytes]]
    instruction: str

    def pixels(self, camera: str) -> NDArray[np.uint8]:
        return np.stack([simplejpeg.decode_jpeg(jpeg) for jpeg in self.jpegs[camera]])


def naive_episode(dataset: Dataset, which: int, fps: float) -> NaiveEpisode:
    """An episode at one rate, of a dataset whose state is on the anchor and whose cameras are JPEG files."""
    episode, schema = dataset.episode(which), dataset.schema
    clock = episode[f"{schema.anchor}/timestamp"]
    first, last = episode.row["frame_start"], episode.row["frame_start"] + episode.row["num_frames"] - 1
    rows: list[int] = []
    while len(rows) / fps <= clock[last] - clock[first] + 0.5 / fps:
        wanted = len(rows) / fps
        rows.append(min(range(first, last + 1), key=lambda row: (abs(clock[row] - clock[first] - wanted), row)))
    fields = [episode[path].reshape(len(clock), -1) for path in schema.sample.state]
    jpegs: dict[str, Any] = {}
    for camera in dataset.cameras:
        stamps = episode[f"{camera}/timestamp"]
        jpegs[camera] = [
            episode.jpeg(camera, max(i for i in range(len(stamps)) if stamps[i] <= clock[row])) for row in rows
        ]
    return NaiveEpisode(
        rows=rows,
        state=np.concatenate(fields, axis=1)[rows].astype(np.float32),
        action=episode["action/value"][rows],
        jpegs=jpegs,
        instruction=episode.instruction,
    )

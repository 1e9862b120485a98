"""Prepares one episode for LeRobot's format: the table of its frames, its statistics, and its videos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vlapipe.pipeline.export import lerobot_tables as lr
from vlapipe.pipeline.export.image_bytes import CameraImages
from vlapipe.pipeline.export.lerobot_stats import PixelCounts, Stats, sampled_rows, stats_of_rows
from vlapipe.pipeline.export.plan import ExportPlan
from vlapipe.pipeline.export.report import Tally
from vlapipe.pipeline.export.sample_rows import ExportedEpisode
from vlapipe.pipeline.export.survey import Survey
from vlapipe.pipeline.export.video_files import Loss, encode, exact_rate, measure
from vlapipe.pipeline.export.work_folder import WorkFolder
from vlapipe.pipeline.shards.format.atomic import sweep_temporaries

__all__ = ["EpisodeWork", "PreparedEpisode", "video_part"]


@dataclass(frozen=True)
class PreparedEpisode:
    """One episode, ready to be written: its frames, its entry in the table of episodes, and what was done."""

    table: pa.Table
    entry: dict[str, Any]
    stats: dict[str, Stats]
    tally: Tally


class EpisodeWork:
    """Prepares episodes, several at a time in threads."""

    def __init__(self, plan: ExportPlan, survey: Survey, features: lr.Features, work: WorkFolder) -> None:
        self._plan, self._features, self._work = plan, features, work
        self._schema = lr.frames_schema(features)
        self._starts = survey.starts
        self._task_index = {task: i for i, task in enumerate(survey.tasks)}
        for camera in plan.video_cameras:
            folder = video_part(work, camera, 0).parent
            folder.mkdir(parents=True, exist_ok=True)
            sweep_temporaries(folder)

    def prepare(self, i: int) -> PreparedEpisode:
        """Reads exported episode ``i``, encodes its videos, and computes its statistics.

        Raises:
            DamageError: the shard or an image is damaged.
        """
        plan = self._plan
        episode = plan.read(i)
        columns: dict[str, Any] = self._numbers(episode, i)
        stats = {key: stats_of_rows(values) for key, values in columns.items()}
        remade, losses = dict[str, int](), dict[str, Loss]()
        for camera in plan.sample.cameras:
            key, rows = plan.sample.keys[camera], episode.frames.rows[camera]
            stats[key] = _stats_of_images(episode.cameras[camera], rows, camera in plan.sample.depth_units)
            if camera in plan.video_cameras:
                losses[camera] = self._encode(episode.cameras[camera], rows, camera, i)
            else:
                columns[key], remade[camera] = _files(episode.cameras[camera], rows)
        return PreparedEpisode(
            table=lr.frames_table(columns, self._schema),
            entry={"episode_index": i, "tasks": list(dict.fromkeys(episode.tasks)), "length": len(episode)},
            stats={key: stats[key] for key in self._features},
            tally=Tally.of(episode, remade={camera: n for camera, n in remade.items() if n}, losses=losses),
        )

    def _numbers(self, episode: ExportedEpisode, i: int) -> dict[str, NDArray[Any]]:
        count = len(episode)
        found: Mapping[str, NDArray[Any]] = {
            "observation.state": episode.state,
            "action": episode.action,
            **episode.others,
            lr.STATE_MISSING: episode.has_no_state,
            lr.ACTION_MISSING: episode.has_no_action,
            "timestamp": np.arange(count) / self._plan.fps,
            "frame_index": np.arange(count),
            "episode_index": np.full(count, i),
            "index": np.arange(self._starts[i], self._starts[i] + count),
            "task_index": np.array([self._task_index[task] for task in episode.tasks]),
        }
        return {name: values for name, values in found.items() if name in self._features}

    def _encode(self, images: CameraImages, rows: NDArray[np.int64], camera: str, i: int) -> Loss:
        """Encodes a camera's images of an episode, unless an earlier run has done it."""
        part = video_part(self._work, camera, i)
        name = str(part.relative_to(self._work.path))
        path, record = part.with_suffix(".mp4"), self._work.record(name)
        if record is not None and path.is_file() and path.stat().st_size == record["bytes"]:
            return Loss(**record["loss"])
        plan, rate = self._plan, exact_rate(self._plan.fps)
        assert plan.video is not None
        encode(path, plan.video, rate, plan.sample.sizes[camera], (images.pixels(row) for row in rows.tolist()))
        loss = measure(path, rate, len(rows), lambda frame: images.pixels(int(rows[frame])))
        self._work.keep(name, {"bytes": path.stat().st_size, "loss": vars(loss)})
        return loss


def video_part(work: WorkFolder, camera: str, i: int) -> Path:
    """Returns the path of a camera's video of one episode, without suffix."""
    return work.path / "video" / camera / f"{i:08d}"


def _files(images: CameraImages, rows: NDArray[np.int64]) -> tuple[list[tuple[bytes, str]], int]:
    """A camera's images as files with names, and how many of them are not the stored files."""
    files, num_remade = [], 0
    for i, row in enumerate(rows.tolist()):
        file = images.file(row)
        files.append((file.data, f"frame-{i:06d}.{file.suffix}"))
        num_remade += not file.is_kept
    return files, num_remade


def _stats_of_images(images: CameraImages, rows: NDArray[np.int64], is_depth: bool) -> Stats:
    """Colours count from 0 to 1, as LeRobot has them; depth is in its own unit, three times, as LeRobot expects."""
    sampled = rows[sampled_rows(len(rows))].tolist()
    if not is_depth:
        counts = PixelCounts()
        for row in sampled:
            counts.add(images.pixels(row))
        return counts.stats()
    depth = np.concatenate([images.pixels(row).reshape(-1, 1) for row in sampled])
    of_depth = stats_of_rows(depth.astype(np.float64))
    count = {"count": np.array([len(sampled)])}
    return {name: np.full((3, 1, 1), value[0]) for name, value in of_depth.items()} | count

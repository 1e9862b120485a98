"""Opens one episode in Rerun: cameras, fields and actions on one time line. Rerun is an extra of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from vlapipe.pipeline.report.recorded import RecordedEpisode
from vlapipe.pipeline.report.sampling import open_episodes
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.show.column_names import action_names, column_names
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.extras import need

__all__ = ["show_in_rerun"]

_TIMELINE = "time"
_MOST_COLUMNS = 64


def show_in_rerun(dataset: Dataset, which: int | str, save: Path | None = None) -> None:
    """Start Rerun's viewer with the episode, or write the recording to ``save`` (an .rrd file).

    Raises:
        UsageError: there is no such episode, Rerun is not installed, or its viewer cannot be started.
    """
    rerun = need("rerun", "rerun", "--rerun")
    index = dataset.index_of(which)
    episode = open_episodes(dataset, [index])[index]
    # Rerun asks for one plain name an application, and lets a recording have any name.
    recording = rerun.RecordingStream("vlapipe")
    try:
        if save is None:
            # The viewer is installed beside this Python, whose environment need not be activated.
            os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
            recording.spawn()
        else:
            recording.save(save)
        _send(rerun, recording, episode)
        recording.flush()
    except RuntimeError as error:  # Rerun's own, also if the viewer ends at once
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        cure = "the viewer needs a screen; --html FILE draws the episode without one"
        raise UsageError(f"--rerun: Rerun cannot show the episode: {first}", cure) from None


def _send(rerun: Any, recording: Any, episode: RecordedEpisode) -> None:
    dataset = episode.dataset
    recording.send_recording_name(str(episode.row["id"]))
    recording.log("instruction", rerun.TextDocument(str(episode.row["instruction"])), static=True)
    for path in episode.fields:
        names = column_names(path, dataset.recorded.field(path))
        if len(names) <= _MOST_COLUMNS:
            times = episode.times(path.partition("/")[0])
            _log_columns(rerun, recording, path.split("/"), names, times, episode.field(path))
    actions, times = episode.actions(), episode.times(dataset.recorded.anchor)
    _log_columns(rerun, recording, ["action"], action_names(dataset.schema), times, actions)
    for camera in dataset.manifest.cameras:
        _log_camera(rerun, recording, episode, camera)


def _log_columns(rerun: Any, recording: Any, path: list[str], names: list[str], times: Any, values: Any) -> None:
    """Sends each column at once, as Rerun's columns: a call for each row would take a minute."""
    for i, name in enumerate(names[: values.shape[1]]):
        column = values[:, i].astype(np.float64)
        known = np.isfinite(column)
        recording.send_columns(
            rerun.new_entity_path([*path, name]),  # escapes what has a meaning in a path
            indexes=[rerun.TimeColumn(_TIMELINE, duration=times[known])],
            columns=rerun.Scalars.columns(scalars=column[known]),
        )


def _log_camera(rerun: Any, recording: Any, episode: RecordedEpisode, camera: str) -> None:
    height, width = (int(episode.row[f"{camera}/{side}"] or 0) for side in ("height", "width"))
    for row, time_s in enumerate(episode.times(camera).tolist()):
        try:
            pixels = episode.image(camera, row, (height, width))
        except ValueError:
            continue
        recording.set_time(_TIMELINE, duration=time_s)
        recording.log(rerun.new_entity_path(["cameras", camera]), rerun.Image(pixels).compress(jpeg_quality=90))

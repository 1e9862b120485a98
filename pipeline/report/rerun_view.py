"""Opens one episode in Rerun: cameras, fields and actions on one time line. Rerun is an extra of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vlapipe.pipeline.report.recorded import RecordedEpisode
from vlapipe.pipeline.report.sampling import open_episodes
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.show.column_names import action_names, column_names
from vlapipe.schemas.extras import need

__all__ = ["show_in_rerun"]

_TIMELINE = "time"
_MOST_COLUMNS = 64


def show_in_rerun(dataset: Dataset, which: int | str, save: Path | None = None) -> None:
    """Start Rerun's viewer with the episode, or write the recording to ``save`` (an .rrd file).

    Raises:
        UsageError: there is no such episode, or Rerun is not installed.
    """
    rerun = need("rerun", "rerun", "--rerun")
    index = dataset.index_of(which)
    episode = open_episodes(dataset, [index])[index]
    rerun.init(f"vlapipe {episode.row['id']}", spawn=save is None)
    if save is not None:
        rerun.save(str(save))
    rerun.log("instruction", rerun.TextDocument(str(episode.row["instruction"])), static=True)
    for path in episode.fields:
        names = column_names(path, dataset.recorded.field(path))
        if len(names) <= _MOST_COLUMNS:
            times = episode.times(path.partition("/")[0])
            _log_columns(rerun, path, names, times, episode.field(path))
    anchor = dataset.recorded.anchor
    _log_columns(rerun, "action", action_names(dataset.schema), episode.times(anchor), episode.actions())
    for camera in dataset.manifest.cameras:
        _log_camera(rerun, episode, camera)


def _log_columns(rerun: Any, path: str, names: list[str], times: Any, values: Any) -> None:
    """Sends each column at once, as Rerun's columns: a call for each row would take a minute."""
    for i, name in enumerate(names[: values.shape[1]]):
        column = values[:, i].astype(np.float64)
        known = np.isfinite(column)
        rerun.send_columns(
            f"{path}/{name.replace('/', '_')}",
            indexes=[rerun.TimeColumn(_TIMELINE, duration=times[known])],
            columns=rerun.Scalars.columns(scalars=column[known]),
        )


def _log_camera(rerun: Any, episode: RecordedEpisode, camera: str) -> None:
    height, width = (int(episode.row[f"{camera}/{side}"] or 0) for side in ("height", "width"))
    for row, time_s in enumerate(episode.times(camera).tolist()):
        try:
            pixels = episode.image(camera, row, (height, width))
        except ValueError:
            continue
        rerun.set_time(_TIMELINE, duration=time_s)
        rerun.log(f"cameras/{camera}", rerun.Image(pixels).compress(jpeg_quality=90))

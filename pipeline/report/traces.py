"""The curves that show why an episode is odd, each beside the same curve of a typical episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.report.oddness import Reason
from vlapipe.pipeline.report.pictures import camera_changes
from vlapipe.pipeline.report.plain_numbers import significant, thinned
from vlapipe.pipeline.report.recorded import RecordedEpisode
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.show.column_names import action_names, column_names

__all__ = ["clock_lag", "column_of", "traces_of"]

_MOST_TRACES = 4
_CLOCK_KINDS = ("rate", "gap", "jitter", "late", "ends early")


def traces_of(
    dataset: Dataset, episode: RecordedEpisode, typical: RecordedEpisode | None, reasons: Sequence[Reason]
) -> list[dict[str, Any]]:
    """Returns the traces of the gravest reasons, each kind of plot once, each beside a typical episode's."""
    traces: dict[tuple[str, ...], dict[str, Any]] = {}
    for reason in reasons:
        key: tuple[str, ...]
        if reason.kind in _CLOCK_KINDS and reason.stream is not None:
            key = ("clock", reason.stream)
        elif reason.kind == "frozen" and reason.stream is not None:
            key = ("camera", reason.stream)
        elif reason.field is not None:
            key = ("field", reason.field, str(reason.column or 0))
        elif reason.kind == "length" and dataset.recorded.sample.state:
            key = ("field", dataset.recorded.sample.state[0], "0")
        else:
            continue
        if key not in traces and len(traces) < _MOST_TRACES:
            traces[key] = _trace(dataset, episode, typical, key)
        if key in traces and reason.start_s is not None:
            traces[key]["spans"].append([significant(reason.start_s, 6), significant(reason.stop_s, 6)])
        if key in traces and reason.kind == "gap":
            traces[key]["spans"].append(_longest_gap(episode, str(reason.stream)))
    return list(traces.values())


def _trace(
    dataset: Dataset, episode: RecordedEpisode, typical: RecordedEpisode | None, key: tuple[str, ...]
) -> dict[str, Any]:
    if key[0] == "clock":
        label, unit = f"{key[1]}: lag behind even ticks", "ms"
        curves = [None if one is None else clock_lag(dataset, one, key[1]) for one in (episode, typical)]
    elif key[0] == "camera":
        label, unit = f"{key[1]}: change from image to image", "of 255"
        curves = [
            None if one is None or not one.num_rows[key[1]] else camera_changes(one, key[1])
            for one in (episode, typical)
        ]
    else:
        path, column = key[1], int(key[2])
        names = (
            action_names(dataset.schema) if path == "action/value" else column_names(path, dataset.recorded.field(path))
        )
        units = () if path == "action/value" else dataset.recorded.field(path).unit
        label, unit = names[column] if column < len(names) else path, units[column % len(units)] if units else ""
        curves = [None if one is None else column_of(one, path, column) for one in (episode, typical)]
    drawn = [None if curve is None else thinned(*curve) for curve in curves]
    return {
        "kind": key[0],
        "label": label,
        "unit": unit,
        "x": drawn[0][0] if drawn[0] else [],
        "y": drawn[0][1] if drawn[0] else [],
        "typical_x": drawn[1][0] if drawn[1] else [],
        "typical_y": drawn[1][1] if drawn[1] else [],
        "spans": [],
    }


def clock_lag(
    dataset: Dataset, episode: RecordedEpisode, stream: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns times, and by how many ms each row is later than even ticks at the dataset's median rate have it.

    A drift is a slope, a gap is a step, jitter is noise.
    """
    times = episode.times(stream)
    rate = dataset.rate_hz(stream)
    if not len(times) or rate is None:
        return times[:0], times[:0]
    return times, (times - times[0] - np.arange(len(times)) / rate) * 1e3


def column_of(episode: RecordedEpisode, path: str, column: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns times and values of one column of a field or of the action."""
    if path == "action/value":
        return episode.times(episode.dataset.recorded.anchor), episode.actions()[:, column].astype(np.float64)
    values = episode.field(path)[:, column].astype(np.float64)
    return episode.times(path.partition("/")[0])[: len(values)], values


def _longest_gap(episode: RecordedEpisode, stream: str) -> list[float]:
    times = episode.times(stream)
    at = int(np.argmax(np.diff(times)))
    return [significant(float(times[at]), 6), significant(float(times[at + 1]), 6)]

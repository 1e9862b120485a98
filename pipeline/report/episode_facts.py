"""Gathers what the page of one episode shows, as plain data: all streams on one time axis, and what is odd about it."""

from __future__ import annotations

from typing import Any

import numpy as np

from vlapipe.pipeline.report.dataset_facts import DatasetFacts, frames_of
from vlapipe.pipeline.report.finding_facts import episode_findings
from vlapipe.pipeline.report.oddness import judge_rows, judge_table
from vlapipe.pipeline.report.plain_numbers import significant, thinned
from vlapipe.pipeline.report.recorded import RecordedEpisode
from vlapipe.pipeline.report.sampling import choose_episodes, open_episodes
from vlapipe.pipeline.report.traces import clock_lag
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.show.column_names import action_names, column_names
from vlapipe.pipeline.show.inspection import inspect_episode

__all__ = ["episode_facts"]

_COMPARED = 16  # episodes whose rows say what is typical
_MOST_COLUMNS = 16  # of a field that are drawn
_POINTS = 500  # of a curve
_FRAMES = 8  # of a film strip
_LONG_STEP = 3.0  # medians; a longer step is marked as a gap


def episode_facts(dataset: Dataset, which: int | str) -> DatasetFacts:
    """Gathers the facts: those of ``vlapipe inspect --episode --json``, with an entry ``report``.

    Raises:
        UsageError: there is no such episode.
    """
    index = dataset.index_of(which)
    chosen = np.arange(len(dataset))
    sampled = choose_episodes(dataset, chosen, [index], most=_COMPARED)
    episodes = open_episodes(dataset, sampled)
    judged = dict(zip(chosen.tolist(), judge_table(dataset, chosen), strict=True))
    judge_rows(list(episodes.values()), judged)
    episode = episodes[index]
    facts = inspect_episode(dataset, index)
    pictures: dict[str, str] = {}
    facts["report"] = {
        "oddness": significant(judged[index].score, 4),
        "reasons": [significant(reason.to_dict()) for reason in judged[index].reasons],
        "compared_with": len(sampled) - 1,
        "findings": episode_findings(dataset, index),
        "panels": [*_fields(dataset, episode), *_actions(dataset, episode), *_clocks(dataset, episode)],
        "gaps": {name: _gaps(episode, name) for name in dataset.manifest.streams},
        "films": [
            {"camera": camera, "frames": frames_of(episode, camera, _FRAMES, pictures, within=True)}
            for camera in dataset.manifest.cameras
            if episode.num_rows[camera]
        ],
    }
    return DatasetFacts(facts=facts, pictures=pictures)


def _fields(dataset: Dataset, episode: RecordedEpisode) -> list[dict[str, Any]]:
    panels = []
    for path in episode.fields:
        spec, stream = dataset.recorded.field(path), path.partition("/")[0]
        if not episode.num_rows[stream]:
            continue
        values, times = episode.field(path).astype(np.float64), episode.times(stream)
        if len(values) != len(times):
            continue
        names, label = column_names(path, spec), path
        if values.shape[1] > _MOST_COLUMNS:
            values, names, label = np.nanmean(values, axis=1, keepdims=True), ["mean of all columns"], path
        units = spec.unit or ("",)
        by_unit: dict[str, list[int]] = {}  # columns of one unit share an axis
        for i in range(values.shape[1]):
            by_unit.setdefault(units[i % len(units)], []).append(i)
        panels += [
            {
                "kind": "field",
                "label": label,
                "unit": unit,
                "curves": [_curve(names[i], times, values[:, i]) for i in columns],
            }
            for unit, columns in by_unit.items()
        ]
    return panels


def _actions(dataset: Dataset, episode: RecordedEpisode) -> list[dict[str, Any]]:
    actions, names = episode.actions().astype(np.float64), action_names(dataset.schema)
    times = episode.times(dataset.recorded.anchor)
    curves = [_curve(names[i], times, actions[:, i]) for i in range(min(actions.shape[1], _MOST_COLUMNS))]
    return [{"kind": "action", "label": "action", "unit": "", "curves": curves}] if curves else []


def _clocks(dataset: Dataset, episode: RecordedEpisode) -> list[dict[str, Any]]:
    curves = []
    for name in dataset.manifest.streams:
        times, lag = clock_lag(dataset, episode, name)
        if len(times) > 1:
            curves.append(_curve(name, times, lag))
    return [{"kind": "clock", "label": "lag behind even ticks", "unit": "ms", "curves": curves}] if curves else []


def _curve(name: str, times: Any, values: Any) -> dict[str, Any]:
    x, y = thinned(times, values, _POINTS)
    return {"name": name, "x": x, "y": y}


def _gaps(episode: RecordedEpisode, stream: str) -> list[list[float]]:
    """Returns the steps of a stream that are far longer than its median step, as pairs of times."""
    times = episode.times(stream)
    steps = np.diff(times)
    if not len(steps):
        return []
    long = np.flatnonzero(steps > _LONG_STEP * np.median(steps))
    return [[significant(float(times[i]), 6), significant(float(times[i + 1]), 6)] for i in long[:100]]

"""Says which episodes are odd, and why, by what is typical of the dataset: medians, and spread about them.

Every reason has a score: how many robust standard deviations (1.4826 times the median absolute deviation, with a floor)
an episode is away from the median. The first pass reads only the episodes table, so it judges every episode. The second
reads rows, so it judges the sampled episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vlapipe.pipeline.report.recorded import RecordedEpisode
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.show.column_names import action_names, column_names

__all__ = ["Judged", "Reason", "judge_rows", "judge_table", "longest_run", "robust_scores"]

LEAST_SCORE = 6.0  # a reason below this is no reason
_MOST_SCORE = 1000.0
_FROZEN_S, _STUCK_S = 0.4, 0.4  # shorter runs of one image or one value are usual
_LEAST_RUN = 5  # rows of such a run
_MOST_ROWS = 200_000  # of an episode that are judged
_WIDE = 64  # a field with more columns is judged as a whole


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One thing that is odd about an episode. ``start_s`` and ``stop_s`` are seconds since the first anchor row."""

    kind: str
    score: float
    text: str
    value: float | None = None
    typical: float | None = None
    stream: str | None = None
    field: str | None = None
    column: int | None = None
    start_s: float | None = None
    stop_s: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the reason as plain data."""
        return dict(vars(self))


@dataclass(kw_only=True)
class Judged:
    """The reasons of one episode."""

    reasons: list[Reason] = field(default_factory=list)

    @property
    def score(self) -> float:
        """The highest score counts; others add a tenth."""
        scores = sorted((reason.score for reason in self.reasons), reverse=True)
        return scores[0] + 0.1 * sum(scores[1:]) if scores else 0.0


def robust_scores(values: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    """Returns how far each value is from the median, in robust standard deviations of at least ``floor``; signed.

    NaN scores 0: there is nothing to judge. Fewer than four values say nothing about what is typical.
    """
    known = values[np.isfinite(values)]
    if len(known) < 4:
        return np.zeros(len(values))
    middle = float(np.median(known))
    spread = max(1.4826 * float(np.median(np.abs(known - middle))), floor, 1e-12)
    scores = np.clip((values - middle) / spread, -_MOST_SCORE, _MOST_SCORE)
    return np.where(np.isfinite(scores), scores, 0.0)


def judge_table(dataset: Dataset, chosen: NDArray[np.int64]) -> list[Judged]:
    """Judges the chosen episodes by the episodes table alone: lengths, clocks, absent streams, and where they were."""
    judged = [Judged() for _ in chosen]

    def column(name: str) -> NDArray[np.float64]:
        return dataset.column(name)[chosen].astype(np.float64)

    def add(kind: str, text: str, values: NDArray[np.float64], floor: float, sides: str, **about: Any) -> None:
        scores = robust_scores(values, floor)
        known = values[np.isfinite(values)]
        middle = float(np.median(known)) if len(known) else 0.0
        for i in np.flatnonzero((scores >= LEAST_SCORE) | (-scores >= LEAST_SCORE)):
            if (scores[i] > 0 and "+" in sides) or (scores[i] < 0 and "-" in sides):
                word = "more" if scores[i] > 0 else "less"
                said = text.format(value=values[i], typical=middle, word=word)
                reason = Reason(
                    kind=kind, score=abs(float(scores[i])), text=said, value=float(values[i]), typical=middle, **about
                )
                judged[i].reasons.append(reason)

    seconds = column("seconds")
    middle = float(np.median(seconds))
    add("length", "lasts {value:.3g} s; typical are {typical:.3g} s", seconds, 0.1 * middle, "+-")
    anchor = dataset.recorded.anchor
    begin, end = column(f"{anchor}/first_s"), column(f"{anchor}/last_s")
    for name in dataset.manifest.streams:
        rows, first, last = (column(f"{name}/{of}") for of in ("rows", "first_s", "last_s"))
        span = np.where(rows > 1, last - first, np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            period = np.where(span > 0, span / (rows - 1), np.nan)
        known = period[np.isfinite(period)]
        step = float(np.median(known)) if len(known) else 0.01
        gap = np.where(rows > 1, column(f"{name}/max_gap_s"), np.nan)
        # A gap is a fault of its own: between its rows the clock may tick as it should.
        between = np.where(gap > 3 * step, span - gap, span) / np.maximum(rows - 1 - (gap > 3 * step), 1)
        period = np.where(between > 0, between, np.nan)
        rate = 1 / period
        said = f"{name} ticks at {{value:.5g}} Hz; typical are {{typical:.5g}} Hz"
        add("rate", said, rate, 0.002 / step, "+-", stream=name)
        said = f"{name} has a gap of {{value:.3g}} s; typical is {{typical:.3g}} s"
        add("gap", said, gap, 1.5 * step, "+", stream=name)
        jitter = np.where(rows > 2, column(f"{name}/jitter_s"), np.nan)
        said = f"{name} ticks unevenly: {{value:.3g}} s; typical is {{typical:.3g}} s"
        add("jitter", said, jitter, 0.3 * step, "+", stream=name)
        if name != anchor:
            late = np.where(rows > 0, first - begin, np.nan)
            said = f"{name} begins {{value:.3g}} s after {anchor}; typical are {{typical:.3g}} s"
            add("late", said, late, max(step, 0.05), "+", stream=name)
            early = np.where(rows > 0, end - last, np.nan)
            said = f"{name} ends {{value:.3g}} s before {anchor}; typical are {{typical:.3g}} s"
            add("ends early", said, early, max(step, 0.05), "+", stream=name)
            absent = rows == 0
            if absent.mean() < 0.2:
                for i in np.flatnonzero(absent):
                    judged[i].reasons.append(Reason(kind="absent", score=20.0, text=f"{name} is absent", stream=name))
    _judge_places(dataset, chosen, judged)
    return judged


def _judge_places(dataset: Dataset, chosen: NDArray[np.int64], judged: list[Judged]) -> None:
    """Judges where each column of state and action was on average, how much it moved, and how far it went."""
    statistics = dataset.episode_column("statistics")
    paths = [*dataset.recorded.sample.state, "action/value"]
    for path in paths:
        found = _of_statistics(statistics, path)
        if found is None:
            continue
        names = (
            action_names(dataset.schema) if path == "action/value" else column_names(path, dataset.recorded.field(path))
        )
        periods = () if path == "action/value" else dataset.recorded.field(path).period
        mean, std, low, high = (found[name][chosen] for name in ("mean", "std", "min", "max"))
        for i in range(min(mean.shape[1], _WIDE)):
            name = names[i] if i < len(names) else f"{path}[{i}]"
            usual = float(np.nanmedian(std[:, i])) if len(std) else 0.0
            if not usual > 0:
                continue
            motion, place = std[:, i], mean[:, i]
            period = periods[i % len(periods)] if periods else 0.0
            if period and np.nanmax(high[:, i] - low[:, i]) > period / 2:
                continue  # an angle that comes round has no mean, and goes nowhere when it wraps
            reach = np.maximum(np.abs(high[:, i] - place), np.abs(low[:, i] - place))
            scores = np.abs(robust_scores(place, usual))
            for k in np.flatnonzero(scores >= LEAST_SCORE):
                text = f"{name} is at {place[k]:.4g} on average; typical are {np.nanmedian(place):.4g}"
                typical = float(np.nanmedian(place))
                judged[k].reasons.append(_of_column("far", scores[k], text, path, i, float(place[k]), typical))
            middle = float(np.nanmedian(reach))
            scores = robust_scores(reach, 0.5 * middle)
            for k in np.flatnonzero(scores >= LEAST_SCORE):
                text = f"{name} goes {reach[k]:.4g} away from its mean; typical are {middle:.4g}"
                judged[k].reasons.append(_of_column("far", scores[k], text, path, i, float(reach[k]), middle))
            for k in np.flatnonzero(motion <= 1e-3 * usual):
                text = f"{name} hardly moves; its typical spread is {usual:.4g}"
                judged[k].reasons.append(_of_column("idle", 15.0, text, path, i, float(motion[k]), usual))


def _of_column(kind: str, score: float, text: str, path: str, column: int, value: float, typical: float) -> Reason:
    stream = path.partition("/")[0]
    return Reason(
        kind=kind,
        score=float(score),
        text=text,
        value=value,
        typical=typical,
        stream=stream,
        field=path,
        column=column,
    )


def _of_statistics(statistics: Any, path: str) -> dict[str, NDArray[np.float64]] | None:
    """Returns mean, std, min and max of each episode, ``(episodes, columns)``; ``None`` if there are none."""
    whole = statistics.combine_chunks() if isinstance(statistics, pa.ChunkedArray) else statistics
    names = [whole.type.field(i).name for i in range(whole.type.num_fields)] if pa.types.is_struct(whole.type) else []
    if path not in names:
        return None
    of_path = pc.struct_field(whole, [path])
    found = {}
    for name in ("mean", "std", "min", "max"):
        lists = pc.struct_field(of_path, [name])
        lengths = pc.list_value_length(lists).drop_null()
        width = int(pc.max(lengths).as_py() or 0) if len(lengths) else 0
        if not width:
            return None
        values = np.full((len(lists), width), np.nan)
        has = np.asarray(pc.equal(pc.list_value_length(lists), width).fill_null(False))
        values[has] = np.asarray(lists.filter(pa.array(has)).flatten(), dtype=np.float64).reshape(-1, width)
        found[name] = values
    return found


def judge_rows(episodes: Sequence[RecordedEpisode], judged: dict[int, Judged]) -> None:
    """Judges the sampled episodes by their rows: jumps, values that stick, images that freeze, and rest.

    ``judged`` has an entry for each episode's index; reasons are added.
    """
    largest: dict[tuple[str, int], list[tuple[int, float, float]]] = {}
    usual: dict[tuple[str, int], list[float]] = {}
    stuck: dict[tuple[str, int], list[tuple[int, float, float, float]]] = {}
    for episode in episodes:
        for path in episode.fields:
            stream = path.partition("/")[0]
            if episode.dataset.recorded.field(path).num_columns > _WIDE or not episode.num_rows[stream]:
                continue
            values = episode.field(path, first_rows=_MOST_ROWS).astype(np.float64)
            times = episode.times(stream)[:_MOST_ROWS]
            period = episode.dataset.recorded.field(path).period
            if len(values) != len(times) or len(values) < _LEAST_RUN:
                continue
            steps = np.diff(values, axis=0)
            between = np.diff(times)
            steps[between > 3 * np.median(between)] = np.nan  # what lies in a gap is no jump
            for i, length in enumerate(period):
                if length:
                    steps[:, i :: len(period)] -= length * np.rint(steps[:, i :: len(period)] / length)
            for i in range(values.shape[1]):
                size = np.abs(steps[:, i])
                if not np.isfinite(size).any():
                    continue
                at = int(np.nanargmax(size))
                largest.setdefault((path, i), []).append((episode.index, float(size[at]), float(times[at + 1])))
                usual.setdefault((path, i), []).append(float(np.nanquantile(size, 0.95)))
                first, last = longest_run(values[:, i])
                lasts = float(times[last] - times[first]) if last - first >= _LEAST_RUN else 0.0
                stuck.setdefault((path, i), []).append((episode.index, lasts, float(times[first]), float(times[last])))
        _judge_cameras(episode, judged[episode.index])
    dataset = episodes[0].dataset if episodes else None
    for (path, i), found in largest.items():
        assert dataset is not None
        name = column_names(path, dataset.recorded.field(path))[i]
        typical = float(np.median([size for _, size, _ in found]))
        floor = max(float(np.median(usual[path, i])), 0.5 * typical)
        scores = robust_scores(np.array([size for _, size, _ in found]), floor)
        for (index, jump, at_s), score in zip(found, scores.tolist(), strict=True):
            if score >= LEAST_SCORE:
                text = f"{name} jumps by {jump:.4g} from one row to the next; typical are {typical:.3g}"
                reason = _of_column("jump", score, text, path, i, jump, typical)
                judged[index].reasons.append(replace(reason, start_s=at_s, stop_s=at_s))
    for (path, i), runs in stuck.items():
        assert dataset is not None
        lengths = np.array([lasts for _, lasts, _, _ in runs])
        typical = float(np.median(lengths))
        name = column_names(path, dataset.recorded.field(path))[i]
        scores = robust_scores(lengths, 0.05)
        for (index, lasts, from_s, to_s), score in zip(runs, scores.tolist(), strict=True):
            if score >= LEAST_SCORE and lasts >= _STUCK_S:
                text = f"{name} repeats one value for {lasts:.3g} s; typical are {typical:.3g} s"
                reason = _of_column("stuck", score, text, path, i, lasts, typical)
                judged[index].reasons.append(replace(reason, start_s=from_s, stop_s=to_s))


def _judge_cameras(episode: RecordedEpisode, judged: Judged) -> None:
    """Adds the longest run of equal images of each camera, if it is long."""
    for camera in episode.dataset.manifest.cameras:
        if episode.num_rows[camera] < _LEAST_RUN:
            continue
        times = episode.times(camera)
        first, last = longest_run(episode.image_marks(camera))
        lasts = float(times[last] - times[first])
        if last - first >= _LEAST_RUN and lasts >= _FROZEN_S:
            share = lasts / max(float(times[-1] - times[0]), 1e-9)
            score = min(LEAST_SCORE + 100 * share, _MOST_SCORE)
            text = f"{camera} shows one image for {lasts:.3g} s"
            judged.reasons.append(
                Reason(
                    kind="frozen",
                    score=score,
                    text=text,
                    value=lasts,
                    stream=camera,
                    start_s=float(times[first]),
                    stop_s=float(times[last]),
                )
            )


def longest_run(values: NDArray[Any]) -> tuple[int, int]:
    """Returns the first and the last row of the longest run of equal values. Rows of NaN are no run."""
    if not len(values):
        return 0, 0
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    starts, stops = np.concatenate([[0], changes]), np.concatenate([changes, [len(values)]])
    longest = int(np.argmax(stops - starts))
    return int(starts[longest]), int(stops[longest]) - 1

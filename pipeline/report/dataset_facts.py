"""Gathers what the page of a dataset shows, as plain data. The page has no number that is not here.

The facts are those of ``vlapipe inspect --json`` with an entry ``report``. Numbers that come from all episodes are read
from the manifest and the episodes table. Numbers that need rows come from a sample of episodes; ``report.sampled`` says
which.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.build.made_from import MadeFrom
from vlapipe.pipeline.report.field_facts import coverage_facts, field_facts
from vlapipe.pipeline.report.finding_facts import dataset_findings
from vlapipe.pipeline.report.oddness import Judged, judge_rows, judge_table
from vlapipe.pipeline.report.pictures import data_uri, frame_rows, thumbnail
from vlapipe.pipeline.report.plain_numbers import significant
from vlapipe.pipeline.report.recorded import RecordedEpisode
from vlapipe.pipeline.report.sampling import MOST_EPISODES, choose_episodes, open_episodes
from vlapipe.pipeline.report.traces import traces_of
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.manifest.where import Where, masks
from vlapipe.pipeline.show.inspection import inspect_dataset

__all__ = ["DatasetFacts", "dataset_facts", "frames_of"]

_MOST_ODD = 12
_MOST_FIRST = 24  # episodes that are read because the table alone makes them odd
_MOST_CAMERAS, _EPISODES_WITH_PICTURES = 8, 3
_PICTURE_WIDTH = 200
_BINS = 24
_WALL_CLOCK_S = 946_684_800  # stamps after 2000 say when


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """``facts`` is JSON-able. ``pictures`` has the data URIs of the pictures that facts name by a key."""

    facts: dict[str, Any]
    pictures: dict[str, str] = field(default_factory=dict)


def dataset_facts(dataset: Dataset, *, where: str | None = None) -> DatasetFacts:
    """Gathers the facts. Reads the rows of at most ``MOST_EPISODES`` episodes, and caches nothing.

    Raises:
        UsageError: the expression ``where`` cannot be used, or fits no episode.
    """
    facts = inspect_dataset(dataset, where=where, list_episodes=True)
    mask = np.ones(len(dataset), dtype=bool) if where is None else masks(Where.parse(where, "--where"), [dataset])[0]
    chosen = np.flatnonzero(mask)
    of_table = judge_table(dataset, chosen)
    judged = {int(index): one for index, one in zip(chosen, of_table, strict=True)}
    first = [index for index in sorted(judged, key=lambda i: -judged[i].score) if judged[index].reasons]
    sampled = choose_episodes(dataset, chosen, first[:_MOST_FIRST])
    episodes = open_episodes(dataset, sampled)
    judge_rows(list(episodes.values()), judged)
    pictures: dict[str, str] = {}
    ranked = [index for index in sorted(judged, key=lambda i: (-judged[i].score, i)) if judged[index].reasons]
    odd = [index for index in ranked if index in episodes][:_MOST_ODD]
    for row in facts["listed"]:
        one = judged[row["episode_index"]]
        row["oddness"] = significant(one.score, 4)
        row["reasons"] = list(dict.fromkeys(reason.kind for reason in one.reasons))
        row["has_details"] = row["episode_index"] in odd
    facts["report"] = {
        "made": _made(dataset),
        "recorded": _recorded(dataset, chosen),
        "sampled": {
            "episodes": len(sampled),
            "of_episodes": len(chosen),
            "most_episodes": MOST_EPISODES,
            "episode_indices": sampled,
        },
        "findings": dataset_findings(dataset, facts["findings"], facts["rejects"]["episodes"]),
        "clocks": _clocks(dataset, chosen, list(episodes.values())),
        "fields": field_facts(dataset, list(episodes.values())),
        "coverage": coverage_facts(dataset, list(episodes.values())),
        "cameras": _cameras(dataset, episodes, odd, pictures),
        "num_odd": len(ranked),
        "odd": [_odd(dataset, episodes, judged, index, pictures) for index in odd],
    }
    return DatasetFacts(facts=facts, pictures=pictures)


def _made(dataset: Dataset) -> dict[str, Any]:
    """Says by what command and when the dataset was made, and what of it was compared with what was written."""
    made_from = MadeFrom.read(dataset.path)
    command = ["vlapipe", "ingest", "--out", str(dataset.place)]
    for flag, value in (made_from.options if made_from is not None else {}).items():
        if value != "not given" and flag.startswith("--"):
            command += [flag, value]
    written = dataset.manifest_file.stat().st_mtime
    return {
        "command": command if made_from is not None else None,
        "when": datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "vlapipe_version": dataset.manifest.vlapipe_version,
        "val_fraction": dataset.manifest.made_with.get("val_fraction"),
        "checked": "sizes of all shards and digests of all tables; not the contents of shards",
    }


def _recorded(dataset: Dataset, chosen: NDArray[np.int64]) -> dict[str, str] | None:
    anchor = dataset.recorded.anchor
    first = dataset.column(f"{anchor}/first_s")[chosen].astype(float)
    last = dataset.column(f"{anchor}/last_s")[chosen].astype(float)
    if not len(first) or not np.nanmin(first) > _WALL_CLOCK_S or np.nanmax(last) > 10 * _WALL_CLOCK_S:
        return None
    ends = {"from": float(np.nanmin(first)), "to": float(np.nanmax(last))}
    return {name: datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC") for name, at in ends.items()}


def _clocks(dataset: Dataset, chosen: NDArray[np.int64], episodes: list[RecordedEpisode]) -> dict[str, dict[str, Any]]:
    """Returns how each stream's rate, jitter and longest gap are spread over the episodes, and its steps over rows."""
    found = {}
    for name in dataset.manifest.streams:
        columns = {of: dataset.column(f"{name}/{of}")[chosen].astype(np.float64) for of in _CLOCK}
        rows, span = columns["rows"], columns["last_s"] - columns["first_s"]
        here = (rows > 1) & (span > 0)
        rate = (rows - 1)[here] / span[here]
        jitter, gap = columns["jitter_s"][here], columns["max_gap_s"][here]
        found[name] = {
            "episodes": int(here.sum()),
            "rate_hz": _spread(rate),
            "jitter_s": _spread(jitter),
            "max_gap_s": _spread(gap),
            "step_s": _spread(np.concatenate([np.diff(one.times(name)) for one in episodes] or [gap[:0]])),
        }
    return found


_CLOCK = ("rows", "first_s", "last_s", "jitter_s", "max_gap_s")


def _spread(values: NDArray[np.float64]) -> dict[str, Any] | None:
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    counts, edges = np.histogram(values, _BINS)
    middle = np.quantile(values, [0.0, 0.5, 1.0]).tolist()
    return {
        "min": significant(middle[0]),
        "median": significant(middle[1]),
        "max": significant(middle[2]),
        "counts": counts.tolist(),
        "edges": significant(edges.tolist()),
    }


def _cameras(
    dataset: Dataset, episodes: dict[int, RecordedEpisode], odd: list[int], pictures: dict[str, str]
) -> list[dict[str, Any]]:
    """Returns first, middle and last image of each camera of a few episodes, of several tasks if there are any."""
    tasks: dict[str, int] = {}
    for index, episode in sorted(episodes.items(), key=lambda item: item[0] in odd):
        tasks.setdefault(str(episode.row["task"]), index)
    shown = [*tasks.values(), *(index for index in episodes if index not in tasks.values())]
    found = []
    for camera in dataset.manifest.cameras[:_MOST_CAMERAS]:
        with_images = [index for index in shown if episodes[index].num_rows[camera]][:_EPISODES_WITH_PICTURES]
        frames = [frame for index in with_images for frame in frames_of(episodes[index], camera, 3, pictures)]
        found.append({"camera": camera, "frames": frames})
    return found


def frames_of(
    episode: RecordedEpisode, camera: str, wanted: int, pictures: dict[str, str], *, within: bool = False
) -> list[dict[str, Any]]:
    """Returns so many images of a camera, and adds their data URIs to ``pictures``.

    The first and the last are among them, unless ``within``: then they are the middles of equal parts.
    """
    frames = []
    times = episode.times(camera)
    for row in frame_rows(episode.num_rows[camera], wanted, within=within):
        image = thumbnail(episode, camera, row, _PICTURE_WIDTH)
        key = f"{episode.index}/{camera}/{row}"
        if image is not None:
            pictures[key] = data_uri(image)
        frames.append(
            {
                "camera": camera,
                "episode_index": episode.index,
                "id": str(episode.row["id"]),
                "row": row,
                "time_s": significant(float(times[row]), 5),
                "width": image.width if image is not None else None,
                "height": image.height if image is not None else None,
                "picture": key if image is not None else None,
            }
        )
    return frames


def _odd(
    dataset: Dataset,
    episodes: dict[int, RecordedEpisode],
    judged: dict[int, Judged],
    index: int,
    pictures: dict[str, str],
) -> dict[str, Any]:
    episode, one = episodes[index], judged[index]
    like = [i for i in episodes if i != index and episodes[i].row["task"] == episode.row["task"]]
    others = like or [i for i in episodes if i != index]
    typical = min(others, key=lambda i: (judged[i].score, i)) if others else None
    reasons = sorted(one.reasons, key=lambda reason: -reason.score)
    frozen = [reason.stream for reason in reasons if reason.kind == "frozen" and reason.stream is not None]
    frames = [frame for camera in frozen for frame in frames_of(episode, camera, 6, pictures)]
    return {
        "episode_index": index,
        "id": str(episode.row["id"]),
        "task": str(episode.row["task"]),
        "seconds": float(episode.row["seconds"]),
        "oddness": significant(one.score, 4),
        "typical_index": typical,
        "typical_id": None if typical is None else str(episodes[typical].row["id"]),
        "reasons": [significant(reason.to_dict()) for reason in reasons],
        "traces": traces_of(dataset, episode, None if typical is None else episodes[typical], reasons),
        "frames": frames,
    }

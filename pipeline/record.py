"""What a shard's commit record says of its episodes: a row of the episodes table each, and statistics to be merged."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.episode import Episode
from vlapipe.pipeline.readers.arrays import ImageRows
from vlapipe.pipeline.readers.clock import seconds, seconds_between
from vlapipe.pipeline.shards.actions import ACTION_VALUE, derive_actions
from vlapipe.pipeline.shards.derived import derive_fields
from vlapipe.pipeline.statistics import FieldStatistics, Moments
from vlapipe.schemas.schema import Schema

__all__ = ["Record", "describe_episodes"]

Record = dict[str, Any]


def describe_episodes(good: list[tuple[Episode, str]], schema: Schema) -> tuple[list[Record], Record]:
    """The episodes table's rows but for what only the whole dataset knows, and statistics of the train split.

    Args:
        good: episodes with their split, in the order in which the shard holds them.
        schema: how actions follow from fields.

    Returns:
        a row an episode; and by ``<stream>/<field>`` what ``FieldStatistics.from_dict`` takes, without the episodes
        that validate, so that they stay unseen.
    """
    rows: list[Record] = []
    train: dict[str, tuple[list[Moments], list[NDArray[Any]]]] = {}
    next_row: dict[str, int] = {}
    for episode, split in good:
        fields = _numbers_of(episode, schema)
        moments = {path: Moments.of(values) for path, values in fields.items()}
        kept = {path: each.to_dict() for path, each in moments.items()}
        rows.append({**_describe(episode, split, schema, next_row), "statistics": kept})
        if split == "train":
            for path, values in fields.items():
                of_path = train.setdefault(path, ([], []))
                of_path[0].append(moments[path])
                of_path[1].append(values)
    return rows, {path: FieldStatistics.with_moments(*each).to_dict() for path, each in train.items()}


def _numbers_of(episode: Episode, schema: Schema) -> dict[str, NDArray[Any]]:
    fields = episode.fields()
    fields |= derive_fields(schema, fields)
    actions = derive_actions(schema, fields, episode.action_row)
    fields[ACTION_VALUE] = actions[episode.action_row >= 0]
    return {path: values for path, values in fields.items() if not _is_text(schema, path)}


def _is_text(schema: Schema, path: str) -> bool:
    return path != ACTION_VALUE and schema.field(path).text


def _describe(episode: Episode, split: str, schema: Schema, next_row: dict[str, int]) -> Record:
    """One row; ``next_row`` is where each stream's next episode begins in the shard, and is moved on."""
    row: Record = {
        "id": episode.raw.id,
        "task": episode.raw.task,
        "instruction": episode.instruction,
        "split": split,
        "frame_start": episode.frame_start,
        "num_frames": episode.num_frames,
        "seconds": seconds_between(episode.streams[schema.anchor].timestamp, 0, -1),
        "sources": [vars(stream.source) for stream in episode.streams.values()],
    }
    for name, stream in episode.streams.items():
        start = next_row.get(name, 0)
        next_row[name] = start + stream.num_rows
        row |= {f"{name}/start": start, f"{name}/rows": stream.num_rows, **_describe_clock(name, stream.timestamp)}
        row[f"{name}/gaps"] = episode.gaps[name].tolist()
        if isinstance(stream, ImageRows):
            row |= {f"{name}/height": stream.height, f"{name}/width": stream.width}
    return row


def _describe_clock(name: str, timestamp: NDArray[Any]) -> Record:
    """Span in seconds of the stream's clock, and how unevenly it ticks."""
    first, last = seconds(timestamp[[0, -1]])
    steps = np.diff(timestamp) / (1e9 if timestamp.dtype == np.int64 else 1)
    return {
        f"{name}/first_s": float(first),
        f"{name}/last_s": float(last),
        f"{name}/jitter_s": float(steps.std()) if len(steps) else 0.0,
        f"{name}/max_gap_s": float(steps.max()) if len(steps) else 0.0,
    }

"""Numbers the frames of a split, and finds each frame's episode, row and shard for a whole batch at once.

Frames whose windows would cross a gap have no number (``pipeline.shards.derive.gaps`` finds these frames).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vlapipe.pipeline.shards.arrow_numpy import as_numpy
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.derive.gaps import frames_between, gap_rows, rows_ahead, spans_across_gaps, window_rows
from vlapipe.pipeline.shards.manifest.gaps_table import gaps_table, read_gaps, spans_of
from vlapipe.train.data.dataset_group import Sources
from vlapipe.train.data.window_size import measured_rate_hz

__all__ = ["BatchPlan", "FrameIndex", "IntervalTable"]


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The frames of one batch; every array is (B,).

    ``position`` is the frame's position in the global sequence, ``index`` its number among the split's frames, and
    ``row`` its anchor row, counted within the episode.
    """

    position: NDArray[np.int64]
    index: NDArray[np.int64]
    episode: NDArray[np.int64]
    row: NDArray[np.int64]
    shard: NDArray[np.int64]


class FrameIndex:
    """Numbers the frames of one split (of all episodes if ``None``) from 0, episode by episode.

    Each dataset's (chosen) schema says how far the windows of a sample reach. A frame has no number if one of its
    windows would cross a gap, or if its episode is not ``chosen``: for each dataset, a mask of its episodes.
    """

    def __init__(self, sources: Sources, split: str | None, chosen: Sequence[NDArray[np.bool_]] | None = None) -> None:
        intervals, num_found = [], 0
        for number, (dataset, first_episode) in enumerate(zip(sources.datasets, sources.first_episode, strict=False)):
            in_split = _in_split(dataset, split)
            of_split = np.flatnonzero(in_split if chosen is None else in_split & chosen[number])
            of_all = slice(int(first_episode), int(first_episode) + len(dataset))
            first_row, lengths = sources.frame_start[of_all][of_split], sources.num_frames[of_all][of_split]
            num_found += int(lengths.sum())
            episode, first_row, lengths = _intervals(dataset, of_split, first_row, lengths)
            intervals.append((episode + first_episode, first_row, lengths))
        columns = zip(*intervals, strict=True)
        self.episode, self._first_row, self.lengths = (c[0] if len(c) == 1 else np.concatenate(c) for c in columns)
        self._shard = sources.shards
        ends = np.cumsum(self.lengths)
        self.starts = ends - self.lengths
        self.num_frames = int(ends[-1]) if len(ends) else 0
        self.num_left_out = num_found - self.num_frames
        self._intervals = IntervalTable(self.starts, self.num_frames)

    def plan(self, frames: NDArray[np.int64], positions: NDArray[np.int64]) -> BatchPlan:
        """Look up the frames ``(B,)`` that were drawn at the global ``positions`` ``(B,)``."""
        place = self._intervals.intervals_of(frames)
        episode = self.episode[place]
        row = self._first_row[place] + frames - self.starts[place]
        return BatchPlan(position=positions, index=frames, episode=episode, row=row, shard=self._shard[episode])

    def first_frames(self, episodes: NDArray[np.int64]) -> list[int]:
        """The number of the first frame of each of these episodes or of a later one; ``num_frames`` if none follows."""
        places = np.searchsorted(self.episode, episodes)
        starts: list[int] = np.append(self.starts, self.num_frames)[places].tolist()
        return starts

    @property
    def shard_of_intervals(self) -> NDArray[np.int64]:
        """The shard of each interval of frames, ascending."""
        shards: NDArray[np.int64] = self._shard[self.episode]
        return shards

    def frames_of_shards(self, num_shards: int) -> NDArray[np.int64]:
        """Number of frames in each shard; frames are numbered shard by shard."""
        counts = np.bincount(self.shard_of_intervals, weights=self.lengths, minlength=num_shards)
        return counts.astype(np.int64)


def _intervals(
    dataset: Dataset, episode: NDArray[np.int64], first_row: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Intervals of frames of these episodes. An episode is one interval, unless gaps divide it.

    ``first_row`` and ``lengths`` are the first frame and the number of frames of each episode.

    Returns:
        the episode, the first anchor row and the number of frames of each interval; none is empty.
    """
    of_span, spans = _crossed_gaps(dataset)
    if len(spans):
        place = np.full(len(dataset), -1)
        place[episode] = np.arange(len(episode))
        is_ours = place[of_span] >= 0
        cut, first_row, lengths = frames_between(first_row, lengths, place[of_span[is_ours]], spans[is_ours])
        return episode[cut], first_row, lengths
    kept = lengths > 0
    return (episode, first_row, lengths) if kept.all() else (episode[kept], first_row[kept], lengths[kept])


def _in_split(dataset: Dataset, split: str | None) -> NDArray[np.bool_]:
    if split is None:
        return np.ones(len(dataset), dtype=bool)
    in_split: NDArray[np.bool_] = dataset.column("split") == split
    return in_split


def _crossed_gaps(dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Spans of anchor rows ``[first, stop)`` at which a window crosses a gap.

    No shard is opened, unless the dataset was made by a version without a table of gaps.

    Returns:
        each span's episode ``(S,)``, and the spans ``(S, 2)``, in no order; they may overlap.
    """
    anchor, sample = dataset.schema.anchor, dataset.schema.sample
    has_limit = any(_max_gap_s(dataset, stream) is not None for stream in dataset.manifest.streams)
    if not has_limit and not any((part.gaps or {}).get("count") for part in dataset.manifest.all_parts):
        return np.empty(0, dtype=np.int64), np.empty((0, 2), dtype=np.int64)
    num_rows = window_rows(sample, anchor, dataset.cameras, partial(measured_rate_hz, dataset))
    num_ahead, num_observed = rows_ahead(sample, measured_rate_hz(dataset, anchor))
    found = []
    if _max_gap_s(dataset, anchor) is not None:
        lists = dataset.episode_column(f"{anchor}/gaps")
        episode = np.repeat(np.arange(len(dataset)), as_numpy(pc.list_value_length(lists)))
        gaps = as_numpy(pc.list_flatten(lists))
        found.append((episode, spans_across_gaps(gaps, num_rows[anchor], max(num_ahead, num_observed))))
    pause = {anchor: num_rows.pop(anchor)}  # in the table, the anchor has only pauses, which windows may cross
    for table in _tables(dataset, [anchor, *num_rows]):
        found.append(spans_of(table, pause))
        of_table, spans = spans_of(table, num_rows)
        found.append((of_table, spans - np.array([num_observed, 0])))
    episodes = [episode for episode, _ in found]
    return (
        np.concatenate([np.empty(0, dtype=np.int64), *episodes]),
        np.concatenate([np.empty((0, 2), dtype=np.int64), *(spans for _, spans in found)]),
    )


def _tables(dataset: Dataset, streams: list[str]) -> Iterator[pa.Table]:
    """Read the table of gaps piece by piece; compute the table from the shards if the dataset has none."""
    parts = dataset.manifest.all_parts
    if any(part.gaps is None for part in parts):
        yield from _tables_of_shards(dataset, streams)
    else:
        yield from read_gaps(dataset.path, parts)


def _max_gap_s(dataset: Dataset, stream: str) -> float | None:
    max_gap_s: float | None = dataset.manifest.streams[stream].get("max_gap_s")
    return max_gap_s


def _tables_of_shards(dataset: Dataset, streams: list[str]) -> Iterator[pa.Table]:
    """Compute the table of gaps from the shards, one piece for each episode and stream that has gaps."""
    anchor = dataset.schema.anchor
    for name in streams:
        max_gap_s = _max_gap_s(dataset, name)
        if name == anchor or max_gap_s is None:
            continue
        lists = dataset.episode_column(f"{name}/gaps")
        # A stream that ends early has a gap there. Float64 seconds since 1970 are rounded to some 0.2 us: hence 1e-6.
        late = dataset.column(f"{anchor}/last_s") - dataset.column(f"{name}/last_s")
        has_gap = (as_numpy(pc.list_value_length(lists)) > 0) | (late > max_gap_s - 1e-6)
        for index in np.flatnonzero(has_gap).tolist():
            rows = _gap_rows(dataset, index, name, max_gap_s)
            yield gaps_table((index, {"stream": name, **gap}) for gap in rows)


def _gap_rows(dataset: Dataset, index: int, name: str, max_gap_s: float) -> list[dict[str, Any]]:
    episode = dataset.episode(index)
    clocks = episode[f"{dataset.schema.anchor}/timestamp"], episode[f"{name}/timestamp"]
    gaps = np.array(episode.row[f"{name}/gaps"], dtype=np.int64)
    return gap_rows(*clocks, episode[f"align/{name}"], gaps, max_gap_s)


class IntervalTable:
    """Finds the interval that a number lies in; the intervals follow each other from 0 on without a hole."""

    def __init__(self, starts: NDArray[np.int64], total: int) -> None:
        """Prepare the table. ``starts`` (R,) ascend strictly from 0; the last interval ends before ``total``."""
        self._starts = starts
        self._shift = max(0, (total // max(1, len(starts))).bit_length() - 1)  # 1/2 to 1 mean interval wide
        before = np.arange((total >> self._shift) + 2)  # one entry for each part; in place: there may be millions
        before <<= self._shift
        before[1:] -= 1
        # The interval of the last number before each part. The part's first number lies in no earlier interval.
        self._last_interval = np.searchsorted(starts, before, side="right").astype(np.int32)
        self._last_interval -= 1
        self._halvings = int(np.diff(self._last_interval).max(initial=0)).bit_length()

    def intervals_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The interval of each number ``(N,)``, ``0 <= number < total``."""
        part = numbers >> self._shift
        low: NDArray[np.int64] = self._last_interval[part].astype(np.int64)
        high = self._last_interval[part + 1].astype(np.int64)
        for _ in range(self._halvings):
            middle = (low + high + 1) >> 1
            is_later = self._starts[middle] <= numbers
            low, high = np.where(is_later, middle, low), np.where(is_later, high, middle - 1)
        return low

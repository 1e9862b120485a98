"""Which frames a split has, and where each one's rows lie: plain integers, looked up for a whole batch at once.

Frames whose windows would cross a gap are not among them (``pipeline.shards.windows`` says which those are).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from vlapipe.pipeline.shards.arrow_numpy import as_numpy
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.windows import GappyStream, frames_between, spans_across_gaps, window_rows
from vlapipe.schemas.schema import SampleDefaults
from vlapipe.train.run_table import RunTable
from vlapipe.train.sources import Sources

__all__ = ["BatchPlan", "FrameIndex"]


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The frames of one batch.

    ``position`` is each one's place in the global sequence, ``index`` its number among the split's frames, ``row`` the
    anchor row within the episode.
    """

    position: NDArray[np.int64]
    index: NDArray[np.int64]
    episode: NDArray[np.int64]
    row: NDArray[np.int64]
    shard: NDArray[np.int64]


class FrameIndex:
    """The frames of one split (or of all episodes if ``None``), numbered from 0 episode by episode.

    ``sample`` says how many rows its windows have: frames at which one would cross a gap are not numbered.
    """

    def __init__(self, sources: Sources, split: str | None, sample: SampleDefaults) -> None:
        runs, num_found = [], 0
        for dataset, first_episode in zip(sources.datasets, sources.first_episode, strict=False):
            of_split = np.flatnonzero(_in_split(dataset, split))
            num_found += int(dataset.column("num_frames")[of_split].sum())
            episode, first_row, lengths = _runs(dataset, of_split, sample)
            runs.append((episode + first_episode, first_row, lengths))
        columns = zip(*runs, strict=True)
        self.episode, self._first_row, self.lengths = (c[0] if len(c) == 1 else np.concatenate(c) for c in columns)
        self._shard = sources.shards
        ends = np.cumsum(self.lengths)
        self.starts = ends - self.lengths
        self.num_frames = int(ends[-1]) if len(ends) else 0
        self.num_left_out = num_found - self.num_frames
        self._runs = RunTable(self.starts, self.num_frames)

    def plan(self, frames: NDArray[np.int64], positions: NDArray[np.int64]) -> BatchPlan:
        """Look up frames ``(B,)``, each drawn at a global position ``(B,)``."""
        place = self._runs.runs_of(frames)
        episode = self.episode[place]
        row = self._first_row[place] + frames - self.starts[place]
        return BatchPlan(position=positions, index=frames, episode=episode, row=row, shard=self._shard[episode])

    @property
    def shard_of_runs(self) -> NDArray[np.int64]:
        """The shard of each run, ascending."""
        shards: NDArray[np.int64] = self._shard[self.episode]
        return shards

    def frames_of_shards(self, num_shards: int) -> NDArray[np.int64]:
        """How many frames each shard has; they are numbered shard by shard."""
        counts = np.bincount(self.shard_of_runs, weights=self.lengths, minlength=num_shards)
        return counts.astype(np.int64)


def _runs(
    dataset: Dataset, episode: NDArray[np.int64], sample: SampleDefaults
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Runs of frames of these episodes that follow each other: an episode is one, but where a gap cuts it.

    Returns:
        the episode, the first anchor row and the number of frames of each run that has any.
    """
    first_row = dataset.column("frame_start")[episode].astype(np.int64, copy=False)
    lengths = dataset.column("num_frames")[episode].astype(np.int64, copy=False)
    gaps = _Gaps(dataset, sample)
    gappy = gaps.concern[episode]
    if gappy.any():
        runs = [(episode[~gappy], first_row[~gappy], lengths[~gappy])]
        for place in np.flatnonzero(gappy):
            begins, counts = frames_between(int(first_row[place]), int(lengths[place]), gaps.spans(int(episode[place])))
            runs.append((np.full(len(begins), episode[place]), begins, counts))
        columns = [np.concatenate(column) for column in zip(*runs, strict=True)]
        order = np.lexsort((columns[1], columns[0]))
        episode, first_row, lengths = (column[order] for column in columns)
    kept = lengths > 0
    return (episode, first_row, lengths) if kept.all() else (episode[kept], first_row[kept], lengths[kept])


def _in_split(dataset: Dataset, split: str | None) -> NDArray[np.bool_]:
    if split is None:
        return np.ones(len(dataset), dtype=bool)
    in_split: NDArray[np.bool_] = dataset.column("split") == split
    return in_split


class _Gaps:
    """The gaps that windows may cross, by the episodes table alone as far as that goes.

    ``concern`` says of each episode whether it has any. A shard is opened only for one in which another stream than
    the anchor has a gap.
    """

    def __init__(self, dataset: Dataset, sample: SampleDefaults) -> None:
        self._dataset, self._sample = dataset, sample
        self._anchor = dataset.schema.anchor
        self._rows = window_rows(sample, self._anchor, dataset.views)
        self._limits: dict[str, float] = {}
        self._concerns: dict[str, NDArray[np.bool_]] = {}
        for name in self._rows:
            max_gap_s = dataset.manifest.streams[name].get("max_gap_s")
            if max_gap_s is None:
                continue
            concerns = as_numpy(pc.list_value_length(dataset.episode_column(f"{name}/gaps"))) > 0
            if name != self._anchor:
                # It may end early; the seconds of an epoch clock are rounded to some 0.2 us.
                late = dataset.column(f"{self._anchor}/last_s") - dataset.column(f"{name}/last_s")
                concerns = concerns | (late > max_gap_s - 1e-6)
            self._limits[name], self._concerns[name] = max_gap_s, concerns
        self.concern = np.zeros(len(dataset), dtype=bool)
        for concerns in self._concerns.values():
            self.concern |= concerns

    def spans(self, episode: int) -> NDArray[np.int64]:
        """The anchor rows ``(spans, 2)`` of an episode whose windows cross a gap."""
        others = []
        clock = np.empty(0)
        for name, limit in self._limits.items():
            if name == self._anchor or not self._concerns[name][episode]:
                continue
            arrays = self._dataset.episode(episode)
            clock = arrays[f"{self._anchor}/timestamp"]
            others.append(
                GappyStream(
                    window_rows=self._rows[name],
                    max_gap_s=limit,
                    gaps=self._gaps(name, episode),
                    align=arrays[f"align/{name}"],
                    timestamp=arrays[f"{name}/timestamp"],
                )
            )
        return spans_across_gaps(
            self._sample, clock, self._gaps(self._anchor, episode), self._rows[self._anchor], others
        )

    def _gaps(self, name: str, episode: int) -> NDArray[np.int64]:
        if name not in self._limits:
            return np.empty(0, dtype=np.int64)
        return np.array(self._dataset.episode_column(f"{name}/gaps")[episode].as_py(), dtype=np.int64)

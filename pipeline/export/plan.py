"""What one export is to do: which episodes, what their frames hold, the rate, and where the result goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlapipe.pipeline.export.report import Tally
from vlapipe.pipeline.export.sample_rows import ExportedEpisode, ExportedSample, read_episode
from vlapipe.pipeline.shards.dataset import Dataset

__all__ = ["ExportPlan", "Written"]


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """The plan of an export. Episodes are numbered anew, in the order of ``episodes``."""

    dataset: Dataset
    episodes: Sequence[int]  # of the dataset
    sample: ExportedSample
    out: Path
    fps: float
    video: str | None  # a codec; None keeps each image as it is
    workers: int

    @property
    def video_cameras(self) -> list[str]:
        """The cameras that are encoded as video. Depth never is: a video would destroy it."""
        return [c for c in self.sample.cameras if self.video is not None and c not in self.sample.depth_units]

    @property
    def splits(self) -> list[str]:
        """The split of each exported episode."""
        splits: list[str] = self.dataset.column("split")[list(self.episodes)].tolist()
        return splits

    def read(self, i: int) -> ExportedEpisode:
        """Reads exported episode ``i``.

        Raises:
            DamageError: the shard is missing, cut short or altered.
        """
        return read_episode(self.dataset, int(self.episodes[i]), self.sample, self.fps)


@dataclass(frozen=True, kw_only=True)
class Written:
    """What stands in the output: files with their sizes, and what was done."""

    files: dict[str, int]
    tally: Tally
    num_resumed: int  # episodes that an earlier run had written

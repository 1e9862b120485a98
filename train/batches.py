"""Makes batches from plans: borrows memory, opens shards, has the rows copied, and names the episodes of what fails."""

from __future__ import annotations

from typing import Any

from vlapipe.schemas.errors import DamageError, ImageError, VlapipeError
from vlapipe.train.augment import Augmentation
from vlapipe.train.batch_buffers import BatchBuffers
from vlapipe.train.entries import batch_entries
from vlapipe.train.frames import BatchPlan
from vlapipe.train.gather import fill
from vlapipe.train.locate import Locator, Places
from vlapipe.train.open_shards import OpenShards
from vlapipe.train.sources import Sources
from vlapipe.train.spec import SampleSpec
from vlapipe.train.view_reader import ViewReader
from vlapipe.train.window import Window

__all__ = ["Batch", "BatchMaker"]

Batch = dict[str, Any]


class BatchMaker:
    """Batches of any size; safe to use from several threads."""

    def __init__(
        self,
        sources: Sources,
        window: Window,
        spec: SampleSpec,
        *,
        batch_size: int = 0,
        num_kept: int = 0,
        pinned: bool = False,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        """Keep the memory of ``num_kept`` batches of ``batch_size``; ``seed`` is the augmentation's."""
        self._sources = sources
        self._shards = OpenShards(sources)
        self._locator = Locator(sources, self._shards, window)
        self._views = {
            view: ViewReader(self._shards, view, shape, augmentation, seed) for view, shape in spec.images.items()
        }
        self._buffers = BatchBuffers(batch_entries(spec), batch_size, num_kept, pinned=pinned)
        self._instruction, self._instructions = sources.instructions()

    def plan(self, frames: BatchPlan) -> BatchPlan | Places:
        """Where the samples lie, if all their shards are open: for many batches at once that costs as much as for one.

        A shard that is not open yet is left to the thread that makes its batch, beside other threads.
        """
        return self._locator.locate(frames) if self._shards.are_open(frames.shard) else frames

    def make(self, plan: BatchPlan | Places) -> Batch:
        """Read one batch.

        Raises:
            DamageError: something of it cannot be read; the message names the shard or the episodes.
        """
        frames = plan.frames if isinstance(plan, Places) else plan
        try:
            if not isinstance(plan, Places):
                self._shards.open(frames.shard)
                plan = self._locator.locate(frames)
            arrays, batch = self._buffers.lend(len(frames.index))
            fill(arrays, plan, self._views)
        except ImageError as error:
            episode = int(frames.episode[error.index])
            where = f"{self._sources.shard_file(int(frames.shard[error.index]))}: {self._sources.episode_id(episode)}"
            raise DamageError(f"{where}: {error.problem}", error.cure) from None
        except (VlapipeError, MemoryError):
            raise
        except Exception as error:
            raise DamageError(f"{self._named(frames)}: cannot be read: {error}") from error
        for view in self._views:
            key = f"observation.images.{view}"
            batch[key] = batch[key].permute(0, 1, 4, 2, 3)
        instructions = self._instruction[frames.episode].tolist()
        return {**batch, "task": list(map(self._instructions.__getitem__, instructions))}

    def _named(self, frames: BatchPlan) -> str:
        episodes = sorted({self._sources.episode_id(episode) for episode in frames.episode.tolist()})
        named = ", ".join(episodes[:4]) + (f" and {len(episodes) - 4} more" if len(episodes) > 4 else "")
        return f"{self._sources.name()}: a batch of {named}"

"""Counts the samples that a run has drawn of each dataset, on the device: nothing waits for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlapipe.train.data.batch_layout import Batch

__all__ = ["SamplesDrawn"]


class SamplesDrawn:
    """The samples of a run by dataset, over all ranks. With one dataset, nothing is counted and nothing is named."""

    def __init__(self, names: Sequence[str], first_episodes: Sequence[int], device: torch.device) -> None:
        """Begin at 0. ``first_episodes`` has the number of each dataset's first episode, in ascending order."""
        self.names = tuple(f"mix/{name}" for name in names) if len(names) > 1 else ()
        self.size = len(self.names)
        # Of all steps so far, the mean over the ranks.
        self.total = torch.zeros(self.size, dtype=torch.float64, device=device)
        self._own = torch.zeros_like(self.total)  # of this rank, since the last ``take``
        self._numbers = torch.arange(self.size, device=device)
        self._first_episodes = torch.tensor(first_episodes[1 : self.size], dtype=torch.int64, device=device)

    def add(self, batch: Batch) -> None:
        """Count the samples of a batch of this rank; the batch is on the device."""
        if self.size:
            dataset = torch.bucketize(batch["episode_index"], self._first_episodes, right=True)
            self._own += (dataset.unsqueeze(1) == self._numbers).sum(0)

    def take(self) -> Tensor:
        """Returns this rank's counts since the last call, ``(datasets,)`` float64."""
        own, self._own = self._own, torch.zeros_like(self._own)
        return own

    def shares(self, counts: Tensor) -> Tensor:
        """Add a step's counts, the mean over the ranks. Returns each dataset's share of all samples so far."""
        self.total += counts
        return self.total / self.total.sum().clamp_min(1e-300)

"""What the loader's options make of the order of frames: checked, as numbers of a state, and as the order itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vlapipe.schemas.errors import UsageError
from vlapipe.train.arguments import parse_whole_number
from vlapipe.train.frames import FrameIndex
from vlapipe.train.order import Blocked, Order, Sequential, Shuffled
from vlapipe.train.sources import Sources
from vlapipe.train.weights import Weights, parse_weights, weighted_order, weights_digest

__all__ = ["Ordering"]


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """``shuffle``, ``shuffle_shards`` and ``weights`` as ``Loader`` explains them."""

    shuffle: bool
    shuffle_shards: int | None
    weights: Weights

    @classmethod
    def parse(cls, what: str, shuffle: bool, shuffle_shards: Any, weights: Any) -> Ordering:
        """All of them checked.

        Raises:
            UsageError: they are impossible, or do not go together: weights need ``shuffle``.
        """
        if shuffle_shards is not None:
            shuffle_shards = parse_whole_number(f"{what} shuffle_shards", shuffle_shards, least=1)
        weights = parse_weights(f"{what} weights", weights or {})
        if weights and not shuffle:
            raise UsageError(f"{what} weights: expected shuffled frames, found shuffle=False", "leave out one of them")
        return cls(shuffle=bool(shuffle), shuffle_shards=shuffle_shards if shuffle else None, weights=weights)

    @property
    def state(self) -> dict[str, int]:
        """Numbers that tell one order from another."""
        return {
            "shuffle": int(self.shuffle),
            "shuffle_shards": self.shuffle_shards or 0,
            "weights": weights_digest(self.weights),
        }

    @property
    def most_open(self) -> int | None:
        """Shards that are worth keeping open: those that are mixed, and the next ones; ``None`` is all."""
        return 2 * self.shuffle_shards if self.shuffle_shards else None

    def make(self, sources: Sources, frames: FrameIndex, seed: int) -> Order:
        """The order of these frames.

        Raises:
            UsageError: a name with a weight is not in the data, or every frame has weight 0.
        """
        if not self.shuffle or not frames.num_frames:
            return Sequential(frames.num_frames)
        if self.weights:
            return weighted_order(sources, frames, self.weights, self.shuffle_shards, seed)
        if self.shuffle_shards:
            return Blocked(frames.frames_of_shards(sources.num_shards), self.shuffle_shards, seed)
        return Shuffled(frames.num_frames, seed)

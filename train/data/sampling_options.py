"""Turns the loader's options ``shuffle``, ``shuffle_shards`` and ``weights`` into the order of frames.

This file checks the options, writes them as numbers into the loader's state, and makes the order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.manifest.metadata_columns import PREFIX, metadata_text
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.data.arguments import parse_number, parse_whole_number
from vlapipe.train.data.dataset_group import Sources
from vlapipe.train.data.frame_index import FrameIndex
from vlapipe.train.data.order import Blocked, Order, Sequential, Shuffled, Weighted
from vlapipe.train.data.quotas import Quotas

__all__ = ["Ordering", "Weights", "digest_number", "parse_weights", "weighted_order", "weights_digest"]


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """The options ``shuffle``, ``shuffle_shards`` and ``weights``, as ``Loader`` explains them."""

    shuffle: bool
    shuffle_shards: int | None
    weights: Weights

    @classmethod
    def parse(cls, what: str, shuffle: bool, shuffle_shards: Any, weights: Any) -> Ordering:
        """Check the options.

        Raises:
            UsageError: an option has a wrong value, or ``weights`` is given without ``shuffle``.
        """
        if shuffle_shards is not None:
            shuffle_shards = parse_whole_number(f"{what} shuffle_shards", shuffle_shards, least=1)
        weights = parse_weights(f"{what} weights", weights or {})
        if weights and not shuffle:
            raise UsageError(f"{what} weights: expected shuffled frames, found shuffle=False", "leave out one of them")
        return cls(shuffle=bool(shuffle), shuffle_shards=shuffle_shards if shuffle else None, weights=weights)

    @property
    def state(self) -> dict[str, int]:
        """Numbers for the loader's state that differ if the options differ."""
        return {
            "shuffle": int(self.shuffle),
            "shuffle_shards": self.shuffle_shards or 0,
            "weights": weights_digest(self.weights),
        }

    @property
    def most_open(self) -> int | None:
        """Limit on idle open shards: the mixed shards and the next ones; ``None`` keeps all open."""
        return 2 * self.shuffle_shards if self.shuffle_shards else None

    def make(self, sources: Sources, frames: FrameIndex, seed: int) -> Order:
        """Make the order of these frames.

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


Weights = Mapping[str, Mapping[str, float]]
_KINDS = ("task", "episode", "dataset")
_METADATA = "metadata."


def parse_weights(what: str, weights: Any) -> dict[str, dict[str, float]]:
    """Check ``{"task": {"pick": 2.0}, "episode": {...}, "dataset": {...}}``; each of the tables is optional.

    ``{"metadata": {"operator": {"ann": 2.0}}}`` may also be written ``{"metadata.operator": {"ann": 2.0}}``, which is
    its form in the result. Empty tables are left out of the result.

    Raises:
        UsageError: ``weights`` has another form, or a weight is not a finite number from 0 on.
    """
    if not isinstance(weights, Mapping):
        raise UsageError(f"{what}: expected a table of tables, found {weights!r:.60}", 'write {"task": {"pick": 2.0}}')
    weights = _flat(weights)
    for kind, of in weights.items():
        if kind not in _KINDS and not str(kind).startswith(_METADATA):
            raise UsageError(f"{what}: unknown kind {kind!r}", did_you_mean(str(kind), (*_KINDS, f"{_METADATA}KEY")))
        if not isinstance(of, Mapping):
            raise UsageError(
                f"{what} {kind}: expected a table, found {of!r:.60}", f'write {{"{kind}": {{"name": 2.0}}}}'
            )
        for name, factor in of.items():
            parse_number(f"{what} {kind} {name!r}", factor, least=0)
    return {kind: {str(name): float(factor) for name, factor in of.items()} for kind, of in weights.items() if of}


def _flat(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the weights with each table below ``metadata``, at any depth, as one entry ``metadata.<key>``."""
    flat: dict[str, Any] = {}
    for kind, of in weights.items():
        if (kind == "metadata" or str(kind).startswith(_METADATA)) and isinstance(of, Mapping):
            tables = {f"{kind}.{key}": value for key, value in of.items() if isinstance(value, Mapping)}
            flat |= _flat(tables)
            of = {key: value for key, value in of.items() if not isinstance(value, Mapping)}
            if not of:
                continue
        flat[kind] = of
    return flat


def weights_digest(weights: Weights) -> int:
    """A digest of parsed weights as a number below 2^53; 0 if there are no weights."""
    return digest_number(json.dumps(weights, sort_keys=True)) if weights else 0


def digest_number(text: str) -> int:
    """A digest of a text as a number from 1 to 2^48."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=6).digest(), "big") + 1


def weighted_order(
    sources: Sources, frames: FrameIndex, weights: Weights, shuffle_shards: int | None, seed: int
) -> Weighted:
    """Make the order in which frames are drawn by weight; a frame's weight is the product of its episode's factors.

    An episode without a factor has weight 1. Frames of equal weight form a group. An epoch has as many positions as
    there are frames with a weight above 0. ``Quotas`` divides the positions among the groups by weight times number of
    frames. With ``shuffle_shards``, each shard has groups of its own.

    Raises:
        UsageError: a name is not in the data, or every frame has weight 0.
    """
    weight = _of_episodes(sources, weights)[frames.episode]
    drawn = np.flatnonzero(weight > 0)
    if not len(drawn):
        raise UsageError(f"{sources.name()}: no frame has a weight above 0", "raise one")
    lengths = frames.lengths[drawn]
    values, which = np.unique(weight[drawn], return_inverse=True)
    shard = frames.shard_of_intervals[drawn] if shuffle_shards else np.zeros_like(drawn)
    groups, group = np.unique(shard * len(values) + which, return_inverse=True)
    due = values[groups % len(values)] * np.bincount(group, weights=lengths)
    # The groups lie weight by weight. So in every epoch, the groups of one weight in all shards together are within
    # one position of their due.
    quotas = Quotas(due, int(lengths.sum()), np.argsort(groups % len(values), kind="stable"))
    slots: Order = Shuffled(quotas.num_positions, seed)
    if shuffle_shards:
        first_group = np.searchsorted(groups, np.arange(sources.num_shards + 1) * len(values))

        def of_shards(epoch: int) -> NDArray[np.int64]:
            return np.diff(np.append(0, quotas.of(epoch).ends)[first_group])

        slots = Blocked(of_shards, shuffle_shards, seed)
    by_group = np.argsort(group, kind="stable")
    intervals = drawn[by_group]
    return Weighted(frames.starts[intervals], frames.lengths[intervals], group[by_group], quotas, slots, seed)


def _of_episodes(sources: Sources, weights: Weights) -> NDArray[np.float64]:
    weight = np.ones(int(sources.first_episode[-1]))
    for kind, factors in weights.items():
        names = _names(sources, kind)
        for name, factor in factors.items():
            of_name = names == name
            if not of_name.any():
                known = sorted(set(names.tolist()))
                raise UsageError(f"weights: no {kind} {name!r} in {sources.name()}", did_you_mean(name, known))
            weight[of_name] *= factor
    return weight


def _names(sources: Sources, kind: str) -> NDArray[np.object_]:
    """The name of each episode that weights of this kind use: its task, id, dataset's path or a metadata value."""
    if kind.startswith(_METADATA):
        return _metadata_texts(sources, kind.removeprefix(_METADATA))
    if kind != "dataset":
        return sources.column({"task": "task", "episode": "id"}[kind])
    counts = np.diff(sources.first_episode)
    return np.repeat(np.array([str(dataset.path) for dataset in sources.datasets], dtype=object), counts)


def _metadata_texts(sources: Sources, key: str) -> NDArray[np.object_]:
    """The value of a metadata key of each episode, as text: ``true``, ``3``; ``null`` where there is none."""
    fields = [dataset.episode_fields for dataset in sources.datasets]
    if not any(PREFIX + key in each.names for each in fields):
        known = {n.removeprefix(PREFIX) for each in fields for n in each.names if n.startswith(PREFIX)}
        raise UsageError(f"weights: no metadata key {key!r} in {sources.name()}", did_you_mean(key, known))
    texts: list[str] = []
    for dataset, each in zip(sources.datasets, fields, strict=True):
        if PREFIX + key in each.names:
            values = dataset.episode_column(PREFIX + key).to_pylist()
            texts += ["null" if value is None else metadata_text(value) for value in values]
        else:
            texts += ["null"] * len(dataset)
    return np.array(texts, dtype=object)

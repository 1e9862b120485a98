"""Turns the loader's options ``shuffle``, ``shuffle_shards``, ``weights`` and ``mix`` into the order of frames.

This file checks the options, writes them as numbers into the loader's state, and makes the order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.manifest.metadata_columns import PREFIX, metadata_text
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.toml_table import did_you_mean
from vlapipe.train.data.arguments import parse_number, parse_whole_number
from vlapipe.train.data.dataset_group import Sources
from vlapipe.train.data.frame_index import FrameIndex
from vlapipe.train.data.joining.dataset_names import index_of, short_names
from vlapipe.train.data.ordering.order import Blocked, Order, Sequential, Shuffled, Weighted
from vlapipe.train.data.ordering.quotas import Quotas

__all__ = [
    "Mix",
    "Ordering",
    "Weights",
    "digest_number",
    "parse_mix",
    "parse_weights",
    "weighted_order",
    "weights_digest",
]


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """The options ``shuffle``, ``shuffle_shards``, ``weights`` and ``mix``, as ``Loader`` explains them."""

    shuffle: bool
    shuffle_shards: int | None
    weights: Weights
    mix: Mix

    @classmethod
    def parse(
        cls, what: str, shuffle: bool, shuffle_shards: Any, weights: Any, mix: Any, paths: Sequence[Path]
    ) -> Ordering:
        """Check the options.

        Raises:
            UsageError: an option has a wrong value, ``weights`` or ``mix`` is given without ``shuffle``, or both say
                how often a dataset is drawn.
        """
        if shuffle_shards is not None:
            shuffle_shards = parse_whole_number(f"{what} shuffle_shards", shuffle_shards, least=1)
        weights = parse_weights(f"{what} weights", weights or {})
        shares = parse_mix(f"{what} mix", mix or {}, paths)
        for name, given in (("weights", weights), ("mix", shares)):
            if given and not shuffle:
                cure = "leave out one of them"
                raise UsageError(f"{what} {name}: expected shuffled frames, found shuffle=False", cure)
        if shares and "dataset" in weights:
            problem = f"{what} mix: the weights of datasets say otherwise how often a dataset is drawn"
            raise UsageError(problem, "leave out mix or weights.dataset; weights of tasks and episodes go with a mix")
        shuffle_shards = shuffle_shards if shuffle else None
        return cls(shuffle=bool(shuffle), shuffle_shards=shuffle_shards, weights=weights, mix=shares)

    @property
    def state(self) -> dict[str, int]:
        """Numbers for the loader's state that differ if the options differ."""
        return {
            "shuffle": int(self.shuffle),
            "shuffle_shards": self.shuffle_shards or 0,
            "weights": weights_digest(self.weights),
            "mix": weights_digest({"mix": {str(i): share for i, share in enumerate(self.mix)}} if self.mix else {}),
        }

    @property
    def most_open(self) -> int | None:
        """Limit on idle open shards: the mixed shards and the next ones; ``None`` keeps all open."""
        return 2 * self.shuffle_shards if self.shuffle_shards else None

    def make(self, sources: Sources, frames: FrameIndex, seed: int) -> Order:
        """Make the order of these frames.

        Raises:
            UsageError: a name with a weight is not in the data, every frame has weight 0, or a dataset of the mix has
                no frame.
        """
        if not self.shuffle or not frames.num_frames:
            return Sequential(frames.num_frames)
        if self.weights or self.mix:
            return weighted_order(sources, frames, self.weights, self.mix, self.shuffle_shards, seed)
        if self.shuffle_shards:
            return Blocked(frames.frames_of_shards(sources.num_shards), self.shuffle_shards, seed)
        return Shuffled(frames.num_frames, seed)

    def shares(self, sources: Sources, frames: FrameIndex) -> NDArray[np.float64]:
        """Each dataset's share of the samples of an epoch, ``(datasets,)``; without a mix it follows from the frames.

        Raises:
            UsageError: a name with a weight is not in the data.
        """
        if self.mix:
            return np.array(self.mix)
        due = _of_episodes(sources, self.weights)[frames.episode] * frames.lengths
        of_datasets = np.bincount(_dataset_of(sources, frames), weights=due, minlength=len(sources.datasets))
        shares: NDArray[np.float64] = of_datasets / max(of_datasets.sum(), 1e-300)
        return shares


Weights = Mapping[str, Mapping[str, float]]
Mix = tuple[float, ...]  # the share of each dataset, in order; their sum is 1. Empty: no mix
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


def parse_mix(what: str, mix: Any, paths: Sequence[Path]) -> Mix:
    """Check ``{"lab": 0.7, "field": 0.3}``; each dataset has one entry, by its path or the end of its path.

    Returns:
        each dataset's share; empty if ``mix`` is. The numbers given are divided by their sum.

    Raises:
        UsageError: ``mix`` has another form, names no dataset or one twice, leaves one out, or all its numbers are 0.
    """
    names = short_names(paths)
    if not isinstance(mix, Mapping):
        raise UsageError(f"{what}: expected a table of shares, found {mix!r:.60}", f'write {{"{names[0]}": 1.0}}')
    if not mix:
        return ()
    given: dict[int, float] = {}
    for name, share in mix.items():
        which = index_of(str(name), paths)
        if which is None:
            raise UsageError(f"{what}: no dataset {str(name)!r}", did_you_mean(str(name), names))
        if which in given:
            raise UsageError(f"{what}: {str(name)!r} is the dataset {names[which]!r} again", "leave one of them out")
        given[which] = parse_number(f"{what} {str(name)!r}", share, least=0)
    missing = [name for i, name in enumerate(names) if i not in given]
    if missing:
        raise UsageError(f"{what}: no share for {', '.join(map(repr, missing))}", "a share of 0 leaves a dataset out")
    total = sum(given.values())
    if not total:
        raise UsageError(f"{what}: no dataset has a share above 0", "raise one")
    return tuple(given[i] / total for i in range(len(names)))


def weights_digest(weights: Weights) -> int:
    """A digest of parsed weights as a number below 2^53; 0 if there are no weights."""
    return digest_number(json.dumps(weights, sort_keys=True)) if weights else 0


def digest_number(text: str) -> int:
    """A digest of a text as a number from 1 to 2^48."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=6).digest(), "big") + 1


def weighted_order(
    sources: Sources, frames: FrameIndex, weights: Weights, mix: Mix, shuffle_shards: int | None, seed: int
) -> Weighted:
    """Make the order in which frames are drawn by weight; a frame's weight is the product of its episode's factors.

    With a ``mix``, each dataset is due its share of the positions, and the weights act among the frames of a dataset.

    An episode without a factor has weight 1. Frames of equal weight form a group. An epoch has as many positions as
    there are frames with a weight above 0. ``Quotas`` divides the positions among the groups by weight times number of
    frames. With ``shuffle_shards``, each shard has groups of its own.

    Raises:
        UsageError: a name is not in the data, every frame has weight 0, or a dataset of the mix has no frame.
    """
    weight = _of_episodes(sources, weights)[frames.episode]
    dataset = _dataset_of(sources, frames) if mix else np.zeros_like(frames.episode)
    shares = np.array(mix or [1.0])
    drawn = np.flatnonzero((weight > 0) & (shares[dataset] > 0))
    if not len(drawn):
        raise UsageError(f"{sources.name()}: no frame has a weight above 0", "raise one")
    lengths, dataset = frames.lengths[drawn], dataset[drawn]
    weights_found, which = np.unique(weight[drawn], return_inverse=True)
    kinds, which = np.unique(dataset * len(weights_found) + which, return_inverse=True)  # dataset, then weight
    shard = frames.shard_of_intervals[drawn] if shuffle_shards else np.zeros_like(drawn)
    groups, group = np.unique(shard * len(kinds) + which, return_inverse=True)
    kind = kinds[groups % len(kinds)]
    due = weights_found[kind % len(weights_found)] * np.bincount(group, weights=lengths)
    if mix:
        due = _in_shares(due, kind // len(weights_found), sources, shares)
    # The groups lie dataset by dataset, and there weight by weight. So in every epoch, the groups of one dataset, and
    # those of one weight in all shards, are together within one position of their due.
    quotas = Quotas(due, int(lengths.sum()), np.argsort(groups % len(kinds), kind="stable"))
    slots: Order = Shuffled(quotas.num_positions, seed)
    if shuffle_shards:
        first_group = np.searchsorted(groups, np.arange(sources.num_shards + 1) * len(kinds))

        def of_shards(epoch: int) -> NDArray[np.int64]:
            return np.diff(np.append(0, quotas.of(epoch).ends)[first_group])

        slots = Blocked(of_shards, shuffle_shards, seed)
    by_group = np.argsort(group, kind="stable")
    intervals = drawn[by_group]
    return Weighted(frames.starts[intervals], frames.lengths[intervals], group[by_group], quotas, slots, seed)


def _in_shares(
    due: NDArray[np.float64], dataset: NDArray[np.int64], sources: Sources, shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Scale the dues of the groups, so that the groups of each dataset are together due the dataset's share."""
    of_datasets = np.bincount(dataset, weights=due, minlength=len(shares))
    for path, share, found in zip((d.path for d in sources.datasets), shares, of_datasets, strict=True):
        if share and not found:
            raise UsageError(f"mix: {path} has no frame to draw", "leave it out of the mix with a share of 0")
    scaled: NDArray[np.float64] = due * shares[dataset] / of_datasets[dataset]
    return scaled


def _dataset_of(sources: Sources, frames: FrameIndex) -> NDArray[np.int64]:
    """The dataset of each interval of frames."""
    found: NDArray[np.int64] = np.searchsorted(sources.first_episode, frames.episode, side="right") - 1
    return found


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

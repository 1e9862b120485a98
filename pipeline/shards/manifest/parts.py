"""The parts of a dataset: runs of its shards and episodes, each with tables of its own.

A small dataset is one part, whose tables and shards the manifest names as it always did. A larger one has several, so
that a change writes the tables of the parts that it touches and no others. Numbers of shards and episodes in a part's
tables are counted from the part's first one, so a part does not change when others do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["MOST_EPISODES", "MOST_SHARDS", "Part", "is_full", "runs", "sum_of_totals"]

MOST_EPISODES = 10_000  # a part that has so many episodes, or so many shards, is full: the next shard begins another
MOST_SHARDS = 1_000


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part, by the entries of its tables in the manifest. A table that is not there is ``None``.

    ``shards`` is ``None`` if the manifest itself has the list. ``moments`` are those of each shard, to merge statistics
    from. ``totals`` are as in the manifest, without findings.
    """

    episodes: Mapping[str, Any]
    num_shards: int
    totals: Mapping[str, Any]
    shards: Mapping[str, Any] | None = None
    gaps: Mapping[str, Any] | None = None
    findings: Mapping[str, Any] | None = None
    moments: Mapping[str, Any] | None = None
    first_episode: int = 0
    first_shard: int = 0

    @property
    def num_episodes(self) -> int:
        """Number of episodes in the part."""
        return int(self.episodes["count"])

    @property
    def tables(self) -> list[Mapping[str, Any]]:
        """Returns the entries of the part's tables."""
        return [t for t in (self.episodes, self.shards, self.gaps, self.findings, self.moments) if t is not None]

    def to_json(self) -> dict[str, Any]:
        """Returns the part as an entry of the manifest."""
        names = ("episodes", "shards", "gaps", "findings", "moments", "totals")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @classmethod
    def of_json(cls, entries: Iterable[Mapping[str, Any]]) -> list[Part]:
        """Read the parts from their entries in the manifest."""
        found: list[Part] = []
        episode = shard = 0
        for entry in entries:
            count = int(entry["shards"]["count"])
            found.append(cls(**entry, num_shards=count, first_episode=episode, first_shard=shard))
            episode, shard = episode + int(entry["episodes"]["count"]), shard + count
        return found


def is_full(num_episodes: int, num_shards: int) -> bool:
    """Returns whether a part gets no more shards."""
    return num_episodes >= MOST_EPISODES or num_shards >= MOST_SHARDS


def runs(num_episodes: Sequence[int]) -> list[range]:
    """Returns the shards of each part, of shards with so many episodes each. There is one part at least."""
    found: list[range] = []
    first = episodes = 0
    for shard, count in enumerate(num_episodes):
        if is_full(episodes, shard - first):
            found.append(range(first, shard))
            first, episodes = shard, 0
        episodes += count
    return [*found, range(first, len(num_episodes))]


def sum_of_totals(totals: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the totals of several parts together, without findings. A file in several parts counts in each."""
    if len(totals) == 1:
        return {name: value for name, value in totals[0].items() if name != "findings"}
    found: dict[str, Any] = {}
    for each in totals:
        for name, value in each.items():
            if isinstance(value, Mapping):
                there = found.setdefault(name, {})
                for stream, count in value.items():
                    there[stream] = there.get(stream, 0) + count
            else:
                found[name] = found.get(name, 0) + value
    found.pop("findings", None)
    return found

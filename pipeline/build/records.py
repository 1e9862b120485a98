"""The records of an ingest's shards. Histograms are added up as records arrive; the rest lies compressed in a file."""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from vlapipe.pipeline.build.record import Record
from vlapipe.pipeline.build.statistics import FieldStatistics, Histograms, Moments

__all__ = ["BytesOfFiles", "EpisodeRows", "Records", "Some"]

_IN_MEMORY = 1 << 24  # bytes; more go to an unnamed file
_LEVEL = 1
_AS_THEY_ARE = 10_000  # episodes whose records stay as they are, about 200 MB: reading each anew takes milliseconds


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a record lies, and what is asked of it most often."""

    start: int
    length: int
    num_episodes: int
    is_written: bool


class Records(Sequence[Record]):
    """The records of shards in the order of their numbers, whatever the order in which they are added.

    ``statistics`` of a record are without histograms, which all records have together: see ``Moments.to_json``.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Keep what is too large for memory in an unnamed file in this folder, by default in that for such files."""
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=None if folder is None else str(folder))  # noqa: SIM115 - it closes itself
        self._places: dict[int, _Place] = {}  # by a shard's number
        self._order: list[_Place] | None = None
        self.folder = folder  # which may also have the records as their builders wrote them
        self.num_resumed = 0  # of an earlier run
        self._histograms: dict[str, Histograms] = {}
        self._kept: dict[int, Record] = {}  # records that have been read, by where they begin, if there are few

    def add(self, record: Record) -> None:
        """Add the record that the builder of a shard returns."""
        moments: dict[str, Record] = {}
        for path, values in record["statistics"].items():
            found = FieldStatistics.from_dict(values)
            self._histograms.setdefault(path, Histograms()).add(found)
            moments[path] = found.moments.to_json()
        data = zlib.compress(json.dumps({**record, "statistics": moments}).encode(), _LEVEL)
        place = _Place(self._file.seek(0, 2), len(data), len(record["episodes"]), is_written=bool(record["shard"]))
        self._places[record["index"]] = place
        self._file.write(data)
        self._order = None

    def statistics(self) -> dict[str, FieldStatistics]:
        """Return the statistics of all shards together, by field."""
        parts: dict[str, list[Moments]] = {}
        for record in self:
            for path, values in record["statistics"].items():
                parts.setdefault(path, []).append(Moments.from_json(values))
        return {path: self._histograms[path].with_moments(Moments.merged(each)) for path, each in parts.items()}

    @property
    def rows(self) -> EpisodeRows:
        """The rows of the episodes that were kept, in order."""
        return EpisodeRows(self, self.counts())

    def counts(self) -> list[int]:
        """Return how many episodes each record has. No record is read for it."""
        return [place.num_episodes for place in self._in_order()]

    @property
    def written(self) -> Some:
        """The records of the shards that were written: of the others no episode could be read."""
        return Some(self, [i for i, place in enumerate(self._in_order()) if place.is_written])

    def has(self, index: int) -> bool:
        """Return whether the record of the shard with this number is there."""
        return index in self._places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Some: ...
    def __getitem__(self, at: int | slice) -> Record | Some:
        if isinstance(at, slice):
            return Some(self, range(len(self))[at])
        return self._read(self._in_order()[at])

    def _in_order(self) -> list[_Place]:
        if self._order is None:
            self._order = [self._places[index] for index in sorted(self._places)]
        return self._order

    def _read(self, place: _Place) -> Record:
        if place.start in self._kept:
            return self._kept[place.start]
        self._file.seek(place.start)
        record: Record = json.loads(zlib.decompress(self._file.read(place.length)))
        if sum(self.counts()) <= _AS_THEY_ARE:
            self._kept[place.start] = record
        return record


class BytesOfFiles:
    """The bytes of source files, each counted once a path: several episodes may lie in one file."""

    def __init__(self) -> None:
        self._paths, self._sizes = array("Q"), array("q")  # hashes of paths

    def add(self, sources: Iterable[Mapping[str, Any]]) -> None:
        """Add the sources of an episode."""
        for source in sources:
            digest = hashlib.blake2b(source["path"].encode(errors="surrogateescape"), digest_size=8).digest()
            self._paths.append(int.from_bytes(digest, "little"))
            self._sizes.append(source["num_bytes"])

    def total(self) -> int:
        """Return the bytes of all files."""
        _, first = np.unique(np.array(self._paths), return_index=True)
        return int(np.array(self._sizes)[first].sum())


class Some(Sequence[Record]):
    """Some of the records, by their places among them."""

    def __init__(self, records: Records, places: Sequence[int]) -> None:
        self._records, self._places = records, places

    def counts(self) -> list[int]:
        """Return how many episodes each record has. No record is read for it."""
        every = self._records.counts()
        return [every[place] for place in self._places]

    @property
    def rows(self) -> EpisodeRows:
        """The rows of their episodes, in order."""
        return EpisodeRows(self, self.counts())

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Some: ...
    def __getitem__(self, at: int | slice) -> Record | Some:
        return Some(self._records, self._places[at]) if isinstance(at, slice) else self._records[self._places[at]]


class EpisodeRows(Sequence[Record]):
    """The rows of all episodes, read record by record each time they are gone through. They are not to be changed."""

    def __init__(self, records: Sequence[Record], counts: Iterable[int]) -> None:
        self._records = records
        self._last: tuple[int, list[Record]] = (-1, [])  # the record of which a single row was read
        self._ends = list(itertools.accumulate(counts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[Record]:
        for record in self._records:
            yield from record["episodes"]

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> list[Record]: ...
    def __getitem__(self, at: int | slice) -> Record | list[Record]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        index = range(len(self))[at]
        number = bisect_right(self._ends, index)
        if self._last[0] != number:
            self._last = number, self._records[number]["episodes"]
        return self._last[1][index - self._ends[number]]  # counted from the end

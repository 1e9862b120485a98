"""The records of an ingest's shards. Histograms are added up as records arrive; the rest lies compressed in a file."""

from __future__ import annotations

import hashlib
import pickle
import tempfile
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from vlapipe.pipeline.build.record import Record
from vlapipe.pipeline.build.statistics import FieldStatistics, Histograms, Moments

__all__ = ["BytesOfFiles", "EpisodeRows", "Records", "Some"]

_IN_MEMORY = 1 << 26  # bytes; more go to an unnamed file
_LEVEL = 1


class Records(Sequence[Record]):
    """The records of shards in the order of their numbers, whatever the order in which they are added.

    ``statistics`` of a record are without histograms, which all records have together: see ``Moments.to_json``.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Keep what is too large for memory in an unnamed file in this folder, by default in that for such files."""
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=None if folder is None else str(folder))  # noqa: SIM115 - it closes itself
        self._places: dict[int, tuple[int, int]] = {}  # by a shard's number: where its record begins, and its length
        self._order: list[int] | None = None
        self.folder = folder  # which may also have the records as their builders wrote them
        self.num_resumed = 0  # of an earlier run
        self._histograms: dict[str, Histograms] = {}

    def add(self, record: Record) -> None:
        """Add the record that the builder of a shard returns."""
        moments: dict[str, Record] = {}
        for path, values in record["statistics"].items():
            found = FieldStatistics.from_dict(values)
            self._histograms.setdefault(path, Histograms()).add(found)
            moments[path] = found.moments.to_json()
        data = zlib.compress(pickle.dumps({**record, "statistics": moments}, pickle.HIGHEST_PROTOCOL), _LEVEL)
        self._places[record["index"]] = (self._file.seek(0, 2), len(data))
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
        return EpisodeRows(self)

    @property
    def written(self) -> Some:
        """The records of the shards that were written: of the others no episode could be read."""
        return Some(self, [place for place, record in enumerate(self) if record["shard"]])

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
        if self._order is None:
            self._order = sorted(self._places)
        return self._read(self._order[at])

    def _read(self, index: int) -> Record:
        start, length = self._places[index]
        self._file.seek(start)
        record: Record = pickle.loads(zlib.decompress(self._file.read(length)))  # noqa: S301 - written above
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

    def __init__(self, records: Sequence[Record], places: Sequence[int]) -> None:
        self._records, self._places = records, places

    @property
    def rows(self) -> EpisodeRows:
        """The rows of their episodes, in order."""
        return EpisodeRows(self)

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

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records
        self._last: tuple[int, list[Record]] = (-1, [])  # the record of which a single row was read
        self._ends: list[int] = []
        for record in records:
            self._ends.append((self._ends[-1] if self._ends else 0) + len(record["episodes"]))

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

"""Writes one shard that holds the episodes of several shards, without the recordings.

Numbers are decoded, compressed again and compared bit by bit, as those of each new shard are. Encoded images are copied
as bytes from a map of the file, a few megabytes at a time, and never decoded.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.build.build import join_arrays
from vlapipe.pipeline.shards.dataset import Dataset
from vlapipe.pipeline.shards.format.codec import Codec
from vlapipe.pipeline.shards.format.digest import damage_or_bug, file_sha256, require_digest
from vlapipe.pipeline.shards.format.shard_file import StoredShard, read_arrays, shard_format_of, write_shard
from vlapipe.schemas.errors import DamageError

__all__ = ["Held", "Streams", "first_rows", "held_bytes", "kinds_of", "write_joined_shard"]

Entry = Mapping[str, Any]  # a shard, as the manifest lists it
_IMAGES = ("bytes", "offset", "pixels")


@dataclass(frozen=True, kw_only=True)
class Held:
    """An episode as it lies in a shard: its id, and by stream the first row there and the number of rows."""

    id: str
    spans: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Streams:
    """Which rows the arrays of a shard have: those of their own stream, or the anchor's."""

    anchor: str
    cameras: Collection[str]

    def clock_of(self, array: str) -> str:
        """Return the stream whose rows an array has."""
        stream = array.partition("/")[0]
        return self.anchor if stream in ("align", "action") else stream

    def image_part(self, array: str) -> str:
        """Return ``bytes``, ``offset`` or ``pixels`` of a camera's images; empty for any other array."""
        stream, _, part = array.partition("/")
        return part if stream in self.cameras and part in _IMAGES else ""


def first_rows(shards: Sequence[Sequence[Held]]) -> list[list[dict[str, int]]]:
    """Return by stream the first row of each episode of these shards, in a shard that has all of them in this order."""
    found: list[list[dict[str, int]]] = []
    end: dict[str, int] = {}
    for episodes in shards:
        found.append([])
        for episode in episodes:
            found[-1].append({stream: end.get(stream, 0) for stream in episode.spans})
            end = {stream: end.get(stream, 0) + count for stream, (_, count) in episode.spans.items()}
    return found


def kinds_of(entry: Entry, streams: Streams) -> dict[str, Any]:
    """Return what shards must have in common to be joined, by array, or by camera for the arrays of its images.

    A camera without an image in the shard is left out, because such arrays are empty and left out too.
    """
    kinds: dict[str, Any] = {}
    for name, array in entry["arrays"].items():
        kind, part = (array["dtype"], tuple(array["shape"][1:])), streams.image_part(name)
        if not part:
            kinds[name] = kind
            continue
        camera = streams.clock_of(name)
        if entry["arrays"][f"{camera}/timestamp"]["shape"][0]:
            kinds[camera] = tuple(sorted((*kinds.get(camera, ()), (part, kind))))
    return kinds


def held_bytes(dataset: Dataset, entry: Entry, episodes: Sequence[Held] | None, streams: Streams) -> int:
    """Return the bytes of these episodes in a shard before compression; those of a joined shard are the sum.

    ``None`` means all that the shard holds. If some are left out, it is read, for the lengths of its image files.

    Raises:
        DamageError: the shard is missing, cut short or altered.
    """
    arrays = entry["arrays"]
    rows = {name.partition("/")[0]: array["shape"][0] for name, array in arrays.items() if name.endswith("/timestamp")}
    is_whole = episodes is None
    if episodes is not None:
        held = {stream: sum(each.spans[stream][1] for each in episodes) for stream in rows}
        is_whole, rows = held == rows, held
    offsets: dict[str, NDArray[Any]] = {}
    if not is_whole:
        with dataset.shard_file(entry) as path:
            offsets = _read(path, entry, [name for name in arrays if streams.image_part(name) == "offset"], 1)
    num_bytes = 0
    for name, array in arrays.items():
        stream = streams.clock_of(name)
        if streams.image_part(name) != "bytes":
            num_bytes += np.dtype(array["dtype"]).itemsize * math.prod(array["shape"][1:]) * rows[stream]
        elif is_whole:
            num_bytes += array["shape"][0]
        else:
            ends = offsets[f"{stream}/offset"]
            spans = (each.spans[stream] for each in episodes or ())
            num_bytes += sum(int(ends[first + count] - ends[first]) for first, count in spans)
    return num_bytes


def write_joined_shard(
    dataset: Dataset,
    into: Path,
    index: int,
    shards: Sequence[tuple[Entry, Sequence[Held]]],
    streams: Streams,
    *,
    codec: Codec,
    num_threads: int,
) -> StoredShard:
    """Write the shard into a folder. Its bytes depend on the episodes and the codec alone.

    Args:
        dataset: the dataset that has the shards.
        into: the folder that the shard is written into.
        index: the number in the new shard's name.
        shards: the shards in order, and of each the episodes that the new one holds, in the order of their rows.
        streams: which rows the arrays have.
        codec: what compresses numbers.
        num_threads: threads that compress and compare; the number does not change what is written.

    Raises:
        DamageError: a shard is missing, cut short or altered.
        StoppedError: memory, the disk or a limit failed.
    """
    parts: dict[str, list[NDArray[Any]]] = {}
    nothing: dict[str, list[NDArray[Any]]] = {}  # of cameras without an image
    for entry, episodes in shards:
        with dataset.shard_file(entry) as path:
            _require_whole(path, entry)
            arrays = _read(path, entry, [*entry["arrays"]], num_threads)
        without = {camera for camera in streams.cameras if not any(each.spans[camera][1] for each in episodes)}
        known = {streams.clock_of(name) for name in nothing}
        for name in arrays:
            pieces = [*_rows_of(arrays, name, episodes, streams)]
            if not streams.image_part(name) or streams.clock_of(name) not in without:
                parts.setdefault(name, []).extend(pieces)
            elif streams.clock_of(name) not in known:  # empty arrays may be of several kinds, of which one is kept
                nothing[name] = pieces
    there = {streams.clock_of(name) for name in parts if streams.image_part(name)}
    joined = join_arrays(
        parts | {name: pieces for name, pieces in nothing.items() if streams.clock_of(name) not in there}
    )
    shard_format = shard_format_of(shards[0][0]["file"])
    return write_shard(into, index, joined, shard_format=shard_format, codec=codec, num_threads=num_threads)


def _rows_of(
    arrays: Mapping[str, NDArray[Any]], name: str, episodes: Sequence[Held], streams: Streams
) -> Iterator[NDArray[Any]]:
    """Yield the array's values of each episode. Offsets of image files are counted from the episode's first one."""
    part, stream = streams.image_part(name), streams.clock_of(name)
    for episode in episodes:
        first, count = episode.spans[stream]
        if part not in ("bytes", "offset"):
            yield arrays[name][first : first + count]
            continue
        ends = arrays[f"{stream}/offset"][first : first + count + 1]
        yield ends - ends[0] if part == "offset" else arrays[name][ends[0] : ends[-1]]


def _require_whole(path: Path, entry: Entry) -> None:
    """Refuse a shard whose bytes are not those that were written: the new shard's digest would hide the damage."""
    try:
        require_digest(path, file_sha256(path), entry["sha256"])
    except DamageError as error:
        raise DamageError(error.problem, "vlapipe repair makes it again; then run this again") from None


def _read(path: Path, entry: Entry, names: Sequence[str], num_threads: int) -> dict[str, NDArray[Any]]:
    """Read arrays, which stay readable when the file loses its name."""
    with damage_or_bug(path, entry["sha256"]):
        return read_arrays(path, {name: entry["arrays"][name] for name in names}, num_threads)

"""Opens the mapped arrays of shards: maps uncompressed members in place, and unpacks compressed members into a cache.

A shard is opened at its first use, by one thread. Other threads may open other shards at the same time.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.derive.actions import ACTION_ROW, action_fields
from vlapipe.pipeline.shards.derive.conversion import Conversion
from vlapipe.pipeline.shards.derive.episode_sample import foreign_streams
from vlapipe.pipeline.shards.format.digest import RESTORE, damage_or_bug
from vlapipe.pipeline.shards.format.file_maps import are_many_maps
from vlapipe.pipeline.shards.format.shard_file import map_arrays, shard_format_of
from vlapipe.pipeline.shards.manifest.episodes_table import EpisodesTable
from vlapipe.pipeline.shards.manifest.generations import missing_file
from vlapipe.pipeline.shards.manifest.manifest import Manifest
from vlapipe.pipeline.shards.mapped.cache import Cache
from vlapipe.pipeline.shards.mapped.decode_shard import place_arrays, unpack_shard
from vlapipe.pipeline.shards.mapped.layout import ROW_TEXT, STATE, Layout, lay_out, sample_fields
from vlapipe.pipeline.shards.mapped.packed_rows import PackedRows
from vlapipe.pipeline.shards.stores.copies import copy_at
from vlapipe.schemas.errors import DamageError, VlapipeError
from vlapipe.schemas.schema import Schema
from vlapipe.schemas.surroundings import is_from_surroundings, raise_if_stopped, stopped_by

__all__ = ["MappedShards", "choice_of", "fetched_key", "shard_key"]

_CACHE_VERSION = 7  # part of the key; increase it if the meaning of cached arrays changes
Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")


@dataclass(frozen=True)
class _OpenShard:
    arrays: Arrays
    sample: Arrays


@dataclass(frozen=True)
class _Found:
    path: Path
    format: str
    whole: NDArray[np.uint8]
    mapped: Arrays
    layout: Layout


def shard_key(manifest: Manifest, shard: int, choice: str = "") -> str:
    """Returns the key of a shard's cache entry: 32 hexadecimal digits.

    The key follows from the digests of the shard and the schema, and from ``choice``, which describes a chosen sample.
    If the dataset does not have every episode of the shard, nothing is derived for the others, so the key says which.
    """
    entry = manifest.shards[shard]
    kept = f"-{entry['kept']}" if "kept" in entry else ""
    key = f"{_CACHE_VERSION}-{entry['sha256']}-{manifest.schema['sha256']}{choice}{kept}"
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def fetched_key(manifest: Manifest, shard: int) -> str:
    """Returns the key of the cache entry that holds a shard as it lies in a store: 32 hexadecimal digits."""
    return _fetched_key(manifest.shards[shard])


def _fetched_key(entry: Mapping[str, Any]) -> str:
    return str(entry["sha256"][:32])


class MappedShards:
    """The arrays of a dataset's shards. A shard is opened at its first use. Thread-safe, also with other processes."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        schema: Schema,
        cache: Cache,
        table: EpisodesTable,
        *,
        chosen: bool = False,
        conversions: Mapping[str, Conversion] | None = None,
        padded: Mapping[str, int] | None = None,
    ) -> None:
        """Store the arguments. Opens nothing yet.

        Args:
            folder: the dataset's folder.
            manifest: the dataset's manifest.
            schema: the schema, which names the derived fields and the fields of a sample.
            cache: the cache into which shards are unpacked.
            table: the episodes table, which gives the rows of each episode in a shard.
            chosen: whether the schema's sample and action are others than those of the dataset's own schema.
            conversions: how stored fields are converted before anything is made of them, by their names.
            padded: the number of columns of the state or the action by batch entry; see ``lay_out``.
        """
        self._folder, self._manifest, self.schema, self._cache = folder, manifest, schema, cache
        self._table, self._chosen, self._conversions, self._padded = table, chosen, conversions or {}, padded or {}
        self._clocks = _clocks(schema, manifest)
        self._copy = copy_at(folder)  # if the shards lie in a store
        # An entry of a chosen sample keeps the stride order too, so its key has the stride.
        self._choice = f"-{choice_of(schema)}-{schema.sample.action_stride}" if chosen else ""
        self._choice += f"-{sorted(self._conversions.items())}" if self._conversions else ""
        self._choice += f"-{sorted(self._padded.items())}" if self._padded else ""
        self._images = {f"{camera}/{kind}" for camera in manifest.cameras for kind in ("bytes", "offset", "pixels")}
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()  # the least recently used first
        self._opening: dict[int, threading.Lock] = {}

    def arrays(self, shard: int) -> Arrays:
        """Returns every array of a shard by name, mapped and read-only, with ``action/value`` and the derived fields.

        Raises:
            DamageError: the shard is missing, cut short or altered.
            StoppedError: memory, the disk or a limit of this process is exhausted.
            UsageError: the shard cannot be unpacked into the cache.
        """
        return self._shard(shard).arrays

    def sample_arrays(self, shard: int) -> Arrays:
        """Returns the arrays that training reads, by batch entry. See ``Dataset.sample_arrays``."""
        return self._shard(shard).sample

    def sample_rows(self, shard: int) -> PackedRows | None:
        """Returns a reader of rows from the packed shard, or ``None``. See ``Dataset.sample_rows``."""
        return None if self._already_open(shard) is not None else self._with_room(self._packed_rows, shard)

    @property
    def is_in_store(self) -> bool:
        """Whether the shards lie in a store."""
        return self._copy is not None

    def is_here(self, shard: int) -> bool:
        """Whether a shard lies on this machine."""
        return self._copy is None or self._cache.has_fetched(fetched_key(self._manifest, shard))

    def fetched(self, shard: int, is_cancelled: Callable[[], bool] = lambda: False) -> BufferedReader:
        """Returns the open, locked file of a shard of a store, which is fetched if it is not in the cache.

        Raises:
            DamageError: the store has no such shard, or one of other bytes.
            StoppedError: the disk is full, a limit of this process is reached, or the store does not answer.
        """
        return self.fetched_file(self._manifest.shards[shard], is_cancelled)

    def fetched_file(
        self, entry: Mapping[str, Any], is_cancelled: Callable[[], bool] = lambda: False
    ) -> BufferedReader:
        """As ``fetched``, of a shard that is given by its entry in a manifest of the dataset."""
        assert self._copy is not None
        store, name, num_bytes = self._copy.store, entry["file"], entry["bytes"]

        def fetch(file: BufferedRandom) -> None:
            where = f"{store.address}/{name}"
            found = store.size(name)
            if found != num_bytes:
                said = "no such object" if found is None else f"{found}"
                raise self._lacking(where, f"expected {num_bytes} bytes, found {said}", is_missing=found is None)
            for _ in range(2):  # a digest also catches what was altered on the way
                store.download(name, file, num_bytes, is_cancelled)
                file.seek(0)
                if hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"]:
                    return
            raise DamageError(f"{where}: its bytes differ from those that were written", RESTORE)

        return self._cache.fetched(_fetched_key(entry), num_bytes, fetch, self._let_go)

    def _lacking(self, where: object, problem: str, *, is_missing: bool) -> VlapipeError:
        if is_missing:
            return missing_file(self._folder, self._manifest.generation or 1, where, problem, RESTORE)
        return DamageError(f"{where}: {problem}", RESTORE)

    def _packed_rows(self, shard: int) -> PackedRows | None:
        found = self._find(shard)
        if found.format == "npz" or self._cache.has(self._key(shard), found.layout):
            return None
        entry = self._manifest.shards[shard]
        rows = PackedRows(
            found.path,
            entry["sha256"],
            self.schema,
            entry["arrays"],
            found.whole,
            found.mapped,
            found.layout,
            self._rows_of_episodes(shard),
            chosen=self._chosen,
            conversions=self._conversions,
            padded=self._padded,
        )
        return rows if rows.are_quick else None

    def _shard(self, shard: int) -> _OpenShard:
        found = self._already_open(shard)
        if found is None:
            with self._opening.setdefault(shard, threading.Lock()):
                found = self._already_open(shard)
                if found is None:
                    found = self._open[shard] = self._with_room(self._open_shard, shard)
        return found

    def _already_open(self, shard: int) -> _OpenShard | None:
        found = self._open.get(shard)
        if found is not None:
            with contextlib.suppress(KeyError):  # another thread may have closed the shard meanwhile
                self._open.move_to_end(shard)
        return found

    def _let_go(self) -> bool:
        """Close the least recently used shard; ``False`` if none is open. Its maps end when all its arrays are gone."""
        try:
            self._open.popitem(last=False)
        except KeyError:
            return False
        return True

    def _with_room(self, open_shard: Callable[[int], T], shard: int) -> T:
        """Open a shard. If a limit of this process prevents it, close all open shards and try once more."""
        where = self._folder / self._manifest.shards[shard]["file"]
        try:
            return open_shard(shard)
        except Exception as error:
            if not is_from_surroundings(error):
                raise
            if not self._open:
                raise stopped_by(error, where) from None
        self._open.clear()
        try:
            return open_shard(shard)
        except Exception as error:
            raise_if_stopped(error, where)
            raise

    def _open_shard(self, shard: int) -> _OpenShard:
        found = self._find(shard)
        sha256 = self._manifest.shards[shard]["sha256"]
        described = {"dataset": str(self._folder.absolute()), "shard": self._manifest.shards[shard]["file"]}

        def fill(blocks: Arrays) -> None:
            unpack_shard(
                found.path,
                sha256,
                self.schema,
                found.layout,
                found.mapped,
                self._rows_of_episodes(shard),
                blocks,
                self._manifest.shards[shard]["arrays"],
                chosen=self._chosen,
                conversions=self._conversions,
            )

        key = self._key(shard)
        blocks = self._cache.blocks(key, found.layout, described, fill, self._let_go)
        return _open_shard(self.schema, found.layout, found.mapped, blocks, self._images)

    def _key(self, shard: int) -> str:
        return shard_key(self._manifest, shard, self._choice)

    def _rows_of_episodes(self, shard: int) -> dict[str, NDArray[np.int64]]:
        """Start and number of rows of the shard's episodes, ``(episodes, 2)``, in each stream that samples need."""
        schema = self.schema
        fields = [path for fields in (schema.sample.state, tuple(action_fields(schema))) for path in fields]
        streams = dict.fromkeys([schema.anchor, *foreign_streams(schema, tuple(fields)), *self._clocks])
        return {stream: self._table.rows_of_shard(shard, stream) for stream in streams}

    def _find(self, shard: int) -> _Found:
        while are_many_maps() and self._let_go():
            pass
        entry = self._manifest.shards[shard]
        shard_format = shard_format_of(entry["file"])
        with contextlib.ExitStack() as stack:
            path, is_fetched = self._folder / entry["file"], self._copy is not None
            if is_fetched:
                path = Path(stack.enter_context(self.fetched(shard)).name)
            # Reading a map beyond the end of its file kills the process with SIGBUS, so check the size first.
            try:
                size = path.stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                size = -1
            if size != entry["bytes"]:
                found = "no such file" if size < 0 else f"{size}"
                problem = f"expected {entry['bytes']} bytes, found {found}"
                raise self._lacking(path, problem, is_missing=size < 0)
            stack.enter_context(damage_or_bug(path, entry["sha256"]))
            whole, arrays = map_arrays(path, shard_format, locked=is_fetched)
            # A converted field is read out of the shard, even where it could be mapped in place.
            in_place = entry["arrays"].keys() - self._conversions.keys()
            mapped = {name: array for name, array in arrays.items() if name in in_place}
            layout = lay_out(
                entry["arrays"], self.schema, mapped, self._clocks, chosen=self._chosen, padded=self._padded
            )
        return _Found(path, shard_format, whole, mapped, layout)


def _clocks(schema: Schema, manifest: Manifest) -> tuple[str, ...]:
    """The streams beside the anchor whose times samples need: those of sensors and cameras, if windows go by time."""
    if not schema.sample.is_by_time:
        return ()
    chosen = schema.sample.cameras
    streams = [path.partition("/")[0] for _, path in schema.sample.sensors]
    streams += [camera for camera in manifest.cameras if chosen is None or camera in chosen]
    return tuple(stream for stream in dict.fromkeys(streams) if stream != schema.anchor)


def choice_of(schema: Schema) -> str:
    """Returns a description of all of a chosen sample and action that the arrays of a cache entry depend on.

    How many rows a window has, and how far apart, is not part of it: the arrays hold all rows.
    """
    sample = schema.sample
    return repr((sample.state, sample.sensors, sample.cameras, sample.is_by_time, schema.action))


def _open_shard(schema: Schema, layout: Layout, mapped: Arrays, blocks: Arrays, images: Collection[str]) -> _OpenShard:
    arrays = mapped | place_arrays(layout, blocks)
    sample: Arrays = {}
    for entry, fields in sample_fields(schema).items():
        name = layout.sample[entry]
        packed = blocks[name] if name in blocks else mapped[name]
        is_flat = len(fields) > 1 or entry in (STATE, "action")
        row_shape = (-1,) if is_flat else schema.field(fields[0]).shape
        sample[entry] = packed.reshape(len(packed), *row_shape)
    if schema.instruction.column is not None:
        sample[schema.instruction.column] = (
            blocks[ROW_TEXT] if ROW_TEXT in blocks else arrays[schema.instruction.column]
        )
    for name in arrays:
        if name == ACTION_ROW or name in images or name.startswith("align/"):
            sample[name] = arrays[name]
    for name, block in layout.sample.items():
        if name not in sample and block in blocks:
            sample[name] = blocks[block]
    if layout.sample.get(ACTION_ROW) in blocks:
        sample[ACTION_ROW] = blocks[layout.sample[ACTION_ROW]][:, 0]
    return _OpenShard(arrays, {name: array.view(np.ndarray) for name, array in sample.items()})

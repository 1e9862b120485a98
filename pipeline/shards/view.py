"""The mapped arrays that training reads: uncompressed members in place, compressed ones unpacked once into a cache.

A cache entry is a folder of ``.npy`` files keyed by the shard's digest, made under a temporary name and renamed, so
that any number of processes may make it at once and none sees half of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.shards.actions import ACTION_ROW, ACTION_VALUE, action_fields, derive_actions
from vlapipe.pipeline.shards.atomic import TEMP_PREFIX
from vlapipe.pipeline.shards.derived import derive_fields, derived_specs
from vlapipe.pipeline.shards.manifest import Manifest
from vlapipe.pipeline.shards.shard_file import map_arrays, read_array, shard_format_of
from vlapipe.schemas.errors import DamageError
from vlapipe.schemas.schema import Schema

__all__ = ["EpisodeRows", "View", "cache_folder"]

_CACHE_VERSION = 2  # part of the key: raise it when the meaning of cached arrays changes
_CACHE_VARIABLE = "VLAPIPE_CACHE_DIR"


@dataclass(frozen=True)
class EpisodeRows:
    """An episode's anchor rows within its shard."""

    start: int
    rows: int


def cache_folder(dataset: Path, chosen: Path | None) -> Path:
    """Where unpacked arrays go: as chosen, else ``$VLAPIPE_CACHE_DIR``, else in the dataset, else the user's cache."""
    if chosen is not None:
        return chosen
    if os.environ.get(_CACHE_VARIABLE):
        return Path(os.environ[_CACHE_VARIABLE])
    if os.access(dataset, os.W_OK):
        return dataset / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vlapipe"


class View:
    """Arrays of a dataset's shards, opened as they are asked for; safe to use from several threads and processes."""

    def __init__(self, folder: Path, manifest: Manifest, schema: Schema, cache: Path) -> None:
        self._folder, self._manifest, self._schema, self._cache = folder, manifest, schema, cache
        self._open: dict[int, dict[str, NDArray[Any]]] = {}

    def arrays(self, shard: int, episodes: Sequence[EpisodeRows]) -> dict[str, NDArray[Any]]:
        """Every array of a shard by name, read-only and mapped, with ``action/value`` and the schema's derived fields.

        Args:
            shard: its place in the manifest.
            episodes: the shard's episodes in order.

        Raises:
            DamageError: the shard is missing, cut short or altered.
        """
        if shard not in self._open:
            self._open[shard] = self._open_shard(self._manifest.shards[shard], episodes)
        return self._open[shard]

    def _open_shard(self, entry: dict[str, Any], episodes: Sequence[EpisodeRows]) -> dict[str, NDArray[Any]]:
        path = self._folder / entry["file"]
        # A file that is shorter than its map kills the process with SIGBUS when it is read: look first.
        size = path.stat().st_size if path.is_file() else -1
        if size != entry["bytes"]:
            found = "no such file" if size < 0 else f"{size}"
            raise DamageError(
                f"{path}: expected {entry['bytes']} bytes, found {found}", "copy it again, or ingest again"
            )
        key = f"{_CACHE_VERSION}-{entry['sha256']}-{self._manifest.schema['sha256']}"
        unpacked = self._cache / hashlib.sha256(key.encode()).hexdigest()[:32]
        mapped = map_arrays(path, shard_format_of(entry["file"]))
        cached = [*(n for n in entry["arrays"] if n not in mapped), *derived_specs(self._schema), ACTION_VALUE]
        arrays = {name: array for name, array in mapped.items() if name in entry["arrays"]}
        # An entry that is there is whole, as it was renamed; one that is not there yet may be in the making elsewhere.
        if unpacked.is_dir():
            try:
                return arrays | _map_cached(unpacked, cached)
            except (OSError, ValueError, EOFError):
                _set_aside(unpacked)
        self._unpack(path, entry, mapped, episodes, unpacked)
        return arrays | _map_cached(unpacked, cached)

    def _unpack(
        self,
        path: Path,
        entry: dict[str, Any],
        mapped: dict[str, NDArray[Any]],
        episodes: Sequence[EpisodeRows],
        unpacked: Path,
    ) -> None:
        """Verify the shard against the manifest, then decode what is compressed and derive what is not stored."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != entry["sha256"]:
            raise DamageError(
                f"{path}: its bytes differ from those that were written", "copy it again, or ingest again"
            )
        temporary = unpacked.with_name(f"{TEMP_PREFIX}{os.getpid()}-{os.urandom(6).hex()}")
        temporary.mkdir(parents=True)
        try:
            fields: dict[str, NDArray[Any]] = dict(mapped)
            for name in entry["arrays"]:
                if name not in mapped:
                    _save(temporary / _file_name(name), read_array(path, name, shard_format_of(entry["file"])))
                    fields[name] = np.load(temporary / _file_name(name), mmap_mode="r")
            derived = derive_fields(self._schema, fields)
            actions = _derive_actions(self._schema, {**fields, **derived}, episodes)
            for name, values in {**derived, ACTION_VALUE: actions}.items():
                _save(temporary / _file_name(name), values)
            try:
                temporary.rename(unpacked)
            except OSError:
                if not unpacked.is_dir():  # otherwise another process was first, with the same bytes
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _map_cached(folder: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Each array on a read-only map; a file that is cut short does not load."""
    return {name: np.load(folder / _file_name(name), mmap_mode="r") for name in names}


def _set_aside(folder: Path) -> None:
    """Take a damaged entry out of the way; who has mapped it keeps it until it ends."""
    aside = folder.with_name(f"{TEMP_PREFIX}{os.getpid()}-{os.urandom(6).hex()}")
    with contextlib.suppress(OSError):
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _save(path: Path, array: NDArray[Any]) -> None:
    with path.open("xb") as file:
        np.save(file, array)
        file.flush()
        os.fsync(file.fileno())  # or a power cut may leave a whole name on half a file


def _file_name(array: str) -> str:
    return array.replace("/", "__") + ".npy"


def _derive_actions(
    schema: Schema, arrays: dict[str, NDArray[Any]], episodes: Sequence[EpisodeRows]
) -> NDArray[np.float32]:
    parts = []
    for episode in episodes:
        span = slice(episode.start, episode.start + episode.rows)
        fields = {path: arrays[path][span] for path in action_fields(schema)}
        parts.append(derive_actions(schema, fields, arrays[ACTION_ROW][span]))
    return np.ascontiguousarray(np.concatenate(parts))  # a window of actions is then one run of bytes

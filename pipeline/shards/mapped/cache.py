"""Unpacks or fetches each shard once for all threads and processes of a machine, and keeps the folder within its limit.

The process that creates an entry holds an exclusive lock on the entry's temporary file. Other processes wait for that
lock. If the creating process dies, one of them takes over. A complete file is synced and renamed. A process that reads
an entry holds a shared lock on it, so that no process removes the entry.

To make room for a new entry, the process removes entries that no living process locks, the least recently used first.
If this is not enough, the process closes its own idle shards. If the limit still cannot be kept, it is exceeded with
one warning, because ending a run would cost more than the bytes. If the disk is full, an error is raised.
"""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Callable
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any, TypeVar

from vlapipe.pipeline.shards.format.atomic import fsync_folder
from vlapipe.pipeline.shards.format.file_locks import Locked, lock_shared, locked_exclusively, remove_unlocked
from vlapipe.pipeline.shards.mapped.cache_files import (
    Blocks,
    Kind,
    entry_header,
    entry_path,
    list_cache,
    map_blocks,
    map_entry,
    temporary_path,
)
from vlapipe.pipeline.shards.mapped.layout import Layout
from vlapipe.schemas.errors import StoppedError, UsageError
from vlapipe.schemas.surroundings import raise_if_stopped, stopped_by

__all__ = ["NO_SPACE", "Cache", "Room"]

T = TypeVar("T")


class Cache:
    """A cache of entries in ``folder``, limited to ``limit_bytes``. The first entry creates the folder."""

    def __init__(self, folder: Path, limit_bytes: int | None = None) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        self._room = Room(folder, limit_bytes)

    def has(self, key: str, layout: Layout) -> bool:
        """Whether an entry can be mapped at once, because its file exists or the entry has no blocks."""
        return not layout.blocks or self._map(key, layout) is not None

    def blocks(
        self,
        key: str,
        layout: Layout,
        described: dict[str, Any],
        fill: Callable[[Blocks], None],
        let_go: Callable[[], bool],
    ) -> Blocks:
        """Returns an entry's blocks, mapped and read-only. Creates a missing entry, or waits for another process to.

        Args:
            key: 32 hexadecimal digits, a hash of all that the entry's bytes depend on.
            layout: the layout of the entry's blocks.
            described: values for the file's header, for a reader of the cache folder.
            fill: writes every byte of the blocks that it is given.
            let_go: closes a shard of this process to make room; returns ``False`` if none is left.

        Raises:
            StoppedError: the disk is full, or a limit of this process is reached.
            UsageError: the folder cannot be used.
        """
        header = entry_header(layout, described)

        def write(file: BufferedRandom) -> None:
            file.write(header)
            file.flush()
            self._room.take(file.fileno(), len(header) + layout.num_bytes, let_go)
            fill(map_blocks(file, len(header), layout, writable=True))

        return self._entry(key, "mapped", layout.num_bytes, lambda: self._map(key, layout), write)

    def has_fetched(self, key: str) -> bool:
        """Whether ``fetched`` needs no store."""
        return entry_path(self.folder, key, "fetched").exists()

    def fetched(
        self, key: str, num_bytes: int, fetch: Callable[[BufferedRandom], None], let_go: Callable[[], bool]
    ) -> BufferedReader:
        """Returns the open file of a shard that lies in a store. It is locked, so no process removes it meanwhile.

        Args:
            key: 32 hexadecimal digits, a hash of the file's bytes.
            num_bytes: size of the file.
            fetch: writes the file's bytes, and raises an error if they are not those that the key stands for.
            let_go: closes a shard of this process to make room; returns ``False`` if none is left.

        Raises:
            StoppedError: the disk is full, a limit of this process is reached, or the store does not answer.
            UsageError: the folder cannot be used.
        """

        def write(file: BufferedRandom) -> None:
            self._room.take(file.fileno(), num_bytes, let_go)
            fetch(file)

        return self._entry(key, "fetched", num_bytes, lambda: self._locked(key), write)

    def _locked(self, key: str) -> BufferedReader | None:
        with contextlib.suppress(FileNotFoundError), contextlib.ExitStack() as stack:
            file = stack.enter_context(entry_path(self.folder, key, "fetched").open("rb"))
            if lock_shared(file):
                with contextlib.suppress(OSError):  # another user's entry can be read, but not touched
                    os.utime(file.fileno())
                stack.pop_all()
                return file
        return None

    def _entry(
        self,
        key: str,
        kind: Kind,
        num_bytes: int,
        find: Callable[[], T | None],
        write: Callable[[BufferedRandom], None],
    ) -> T:
        """Find an entry, or create it, or wait for another process to."""
        try:
            while True:
                found = find()
                if found is not None:
                    return found
                self.folder.mkdir(parents=True, exist_ok=True)
                with locked_exclusively(temporary_path(self.folder, key, kind)) as held:
                    # The process that held the lock before may have created the entry.
                    if held is not None and find() is None:
                        self._make(held, key, kind, write)
        except OSError as error:
            problem = f"{self.folder}: {num_bytes / 1e6:,.0f} MB cannot be unpacked there"
            cure = "choose another folder with --cache-dir (cache_dir=), say on a scratch disk"
            if error.errno in _ABOUT_FOLDER:
                stopped = stopped_by(OSError(error.errno, ""), problem)
                raise StoppedError(stopped.problem, f"{stopped.cure}; or {cure}") from None
            raise_if_stopped(error, problem)
            raise UsageError(f"{problem}: {error.strerror}", cure) from None

    def _map(self, key: str, layout: Layout) -> Blocks | None:
        with contextlib.suppress(FileNotFoundError), entry_path(self.folder, key).open("rb") as file:
            blocks = map_entry(file, layout) if lock_shared(file) else None
            if blocks is not None:
                with contextlib.suppress(OSError):  # another user's entry can be read, but not touched
                    os.utime(file.fileno())
            return blocks
        return None

    def _make(self, held: Locked, key: str, kind: Kind, write: Callable[[BufferedRandom], None]) -> None:
        held.file.truncate(0)
        write(held.file)
        os.fsync(held.file.fileno())  # otherwise a power cut may leave the final name on an incomplete file
        held.path.rename(entry_path(self.folder, key, kind))
        fsync_folder(self.folder)


_LOCK = ".vlapipe-cache.lock"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_ABOUT_FOLDER = (*NO_SPACE, errno.EACCES, errno.EPERM, errno.EROFS)  # another folder may do
_WRITTEN_AT_ONCE = 8 << 20


class Room:
    """Allocates disk space for entries in ``folder``. If ``limit_bytes`` is ``None``, only the disk is the limit."""

    def __init__(self, folder: Path, limit_bytes: int | None) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes
        self._has_warned = False

    def take(self, file: int, num_bytes: int, let_go: Callable[[], bool]) -> None:
        """Extend an open file of the folder to its size, and allocate all its blocks on the disk.

        Args:
            file: descriptor of a new entry's file, which this process has locked.
            num_bytes: final size of the file.
            let_go: closes a shard of this process; returns ``False`` if none is left.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        # Only one process at a time may allocate. Otherwise two processes would count the same free space.
        while True:
            with locked_exclusively(self._folder / _LOCK) as held:
                if held is not None:
                    self._sweep()
                    self._keep_limit(num_bytes - os.fstat(file).st_size, let_go)
                    self._allocate(file, num_bytes, let_go)
                    return

    def _sweep(self) -> None:
        """Remove the temporary files of killed processes. A living process holds a lock on its file."""
        for file in list_cache(self._folder):
            if file.key is None:
                remove_unlocked(file.path, if_unknown=False)

    def _keep_limit(self, num_bytes: int, let_go: Callable[[], bool]) -> None:
        if self._limit_bytes is None:
            return
        while True:
            # Files that are being written count, because they already have their full size.
            excess = sum(file.num_bytes for file in list_cache(self._folder)) + num_bytes - self._limit_bytes
            if excess <= 0 or self._remove(excess) >= excess:
                return
            if not let_go():
                self._warn(excess)
                return

    def _remove(self, num_bytes: int) -> int:
        """Remove unlocked entries until ``num_bytes`` are freed, if possible. Returns the freed bytes."""
        freed = 0
        for file in list_cache(self._folder):
            if freed >= num_bytes:
                break
            if file.key is not None and remove_unlocked(file.path, if_unknown=True):
                freed += file.num_bytes
        return freed

    def _allocate(self, file: int, num_bytes: int, let_go: Callable[[], bool]) -> None:
        """Allocate all blocks of the file now. On a full disk, a later write to its map would kill the process."""
        while True:
            try:
                _fill_up(file, num_bytes)
            except OSError as error:
                if error.errno not in NO_SPACE or not (self._remove(num_bytes) or let_go()):
                    raise
            else:
                return

    def _warn(self, excess: int) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{self._folder}: the shards in use take {excess / 1e6:,.0f} MB more than --cache-size allows "
                f"({(self._limit_bytes or 0) / 1e6:,.0f} MB); going on, as the run would end otherwise",
                stacklevel=2,
            )


def _fill_up(file: int, num_bytes: int) -> None:
    start = os.fstat(file).st_size
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, start, num_bytes - start)
        return
    for at in range(start, num_bytes, _WRITTEN_AT_ONCE):
        os.pwrite(file, bytes(min(_WRITTEN_AT_ONCE, num_bytes - at)), at)

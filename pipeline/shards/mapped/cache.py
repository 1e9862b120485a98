"""Unpacks each shard once for all threads and processes of a machine, and keeps the folder within its limit.

The process that makes an entry holds an exclusive lock on the entry's temporary file. Other processes wait for that
lock, and one of them takes over if the maker dies. The file is synced and renamed when it is whole. A process that
reads an entry holds a shared lock on it, so that nobody removes the entry.

Room for a new entry is made by removing entries that no living process holds, the least recently used first. If that
is not enough, this process closes shards that nobody in it reads. A limit that cannot be kept even so is exceeded
with one warning, because a run that has begun is worth more than the bytes. A full disk cannot be exceeded: it is an
error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlapipe.pipeline.shards.format.atomic import fsync_folder
from vlapipe.pipeline.shards.format.file_locks import Locked, lock_shared, locked_exclusively, remove_unlocked
from vlapipe.pipeline.shards.mapped.cache_files import (
    Blocks,
    entry_header,
    entry_path,
    list_cache,
    map_blocks,
    map_entry,
    temporary_path,
)
from vlapipe.pipeline.shards.mapped.layout import Layout
from vlapipe.schemas.errors import StoppedError, UsageError
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["NO_SPACE", "Cache", "Room"]


class Cache:
    """Entries in ``folder``, which is made when the first one is; they take ``limit_bytes``, if that can be kept."""

    def __init__(self, folder: Path, limit_bytes: int | None = None) -> None:
        self.folder = folder
        self._room = Room(folder, limit_bytes)

    def has(self, key: str, layout: Layout) -> bool:
        """Whether an entry's blocks can be mapped at once, because there are none or they have been made."""
        return not layout.blocks or self._map(key, layout) is not None

    def blocks(
        self,
        key: str,
        layout: Layout,
        described: dict[str, Any],
        fill: Callable[[Blocks], None],
        let_go: Callable[[], bool],
    ) -> Blocks:
        """An entry's blocks, mapped and read-only; made by ``fill``, or waited for, if it is not there.

        Args:
            key: 32 hexadecimal digits that stand for all that the entry's bytes depend on.
            layout: of its blocks.
            described: what the file says of itself to who looks at the folder.
            fill: writes every byte of the blocks that it is given.
            let_go: closes a shard of this process to make room; ``False`` if there is none left.

        Raises:
            StoppedError: the disk is full, or a limit of this process is reached.
            UsageError: the folder cannot be used.
        """
        try:
            while True:
                blocks = self._map(key, layout)
                if blocks is not None:
                    return blocks
                self.folder.mkdir(parents=True, exist_ok=True)
                with locked_exclusively(temporary_path(self.folder, key)) as held:
                    # Who held it before us may have made the entry.
                    if held is not None and self._map(key, layout) is None:
                        self._make(held, key, layout, entry_header(layout, described), fill, let_go)
        except OSError as error:
            problem = f"{self.folder}: {layout.num_bytes / 1e6:,.0f} MB cannot be unpacked there"
            cure = "choose another folder with --cache-dir (cache_dir=), say on a scratch disk"
            if error.errno in NO_SPACE:
                raise StoppedError(f"{problem}: {error.strerror}", f"make room, or {cure}") from None
            raise_if_stopped(error, problem)
            raise UsageError(f"{problem}: {error.strerror}", cure) from None

    def _map(self, key: str, layout: Layout) -> Blocks | None:
        with contextlib.suppress(FileNotFoundError), entry_path(self.folder, key).open("rb") as file:
            blocks = map_entry(file, layout) if lock_shared(file) else None
            if blocks is not None:
                with contextlib.suppress(OSError):  # another user's entry can be read all the same
                    os.utime(file.fileno())
            return blocks
        return None

    def _make(
        self,
        held: Locked,
        key: str,
        layout: Layout,
        header: bytes,
        fill: Callable[[Blocks], None],
        let_go: Callable[[], bool],
    ) -> None:
        held.file.truncate(0)
        held.file.write(header)
        held.file.flush()
        self._room.take(held.file.fileno(), len(header) + layout.num_bytes, let_go)
        fill(map_blocks(held.file, len(header), layout, writable=True))
        os.fsync(held.file.fileno())  # or a power cut may leave a whole name on half a file
        held.path.rename(entry_path(self.folder, key))
        fsync_folder(self.folder)


_LOCK = ".vlapipe-cache.lock"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_WRITTEN_AT_ONCE = 8 << 20


class Room:
    """The room that entries in ``folder`` may take; ``limit_bytes`` ``None`` means all that the disk has."""

    def __init__(self, folder: Path, limit_bytes: int | None) -> None:
        self._folder, self._limit_bytes = folder, limit_bytes
        self._has_warned = False

    def take(self, file: int, num_bytes: int, let_go: Callable[[], bool]) -> None:
        """Give an open file of the folder its size, with all its blocks on the disk.

        Args:
            file: a new entry's, which is written nowhere else.
            num_bytes: its size.
            let_go: closes a shard of this process; ``False`` if there is none left.

        Raises:
            OSError: the disk has no room, or the folder cannot be written.
        """
        # One process at a time, or two would take the same room.
        while True:
            with locked_exclusively(self._folder / _LOCK) as held:
                if held is not None:
                    self._sweep()
                    self._keep_limit(num_bytes - os.fstat(file).st_size, let_go)
                    self._allocate(file, num_bytes, let_go)
                    return

    def _sweep(self) -> None:
        """Remove what killed processes left; whoever is writing holds its file."""
        for file in list_cache(self._folder):
            if file.key is None:
                remove_unlocked(file.path, if_unknown=False)

    def _keep_limit(self, num_bytes: int, let_go: Callable[[], bool]) -> None:
        if self._limit_bytes is None:
            return
        while True:
            # A file that is being written has its full size already.
            excess = sum(file.num_bytes for file in list_cache(self._folder)) + num_bytes - self._limit_bytes
            if excess <= 0 or self._remove(excess) >= excess:
                return
            if not let_go():
                self._warn(excess)
                return

    def _remove(self, num_bytes: int) -> int:
        """Remove entries that nobody holds until that much is free, if possible; returns how much is."""
        freed = 0
        for file in list_cache(self._folder):
            if freed >= num_bytes:
                break
            if file.key is not None and remove_unlocked(file.path, if_unknown=True):
                freed += file.num_bytes
        return freed

    def _allocate(self, file: int, num_bytes: int, let_go: Callable[[], bool]) -> None:
        """A write to a map that finds no block on the disk would kill the process: take them all now."""
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

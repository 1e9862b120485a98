"""Makes room for a new entry: within the folder's limit, and on its disk.

Entries that no living process holds are removed, those that were not used for longest first. Where that is not enough,
this process lets go of shards that nobody in it reads. A limit that cannot be kept even so is exceeded, with one
warning: a run that has begun is worth more than the bytes. A full disk cannot be exceeded: that is an error.
"""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable
from pathlib import Path

from vlapipe.pipeline.shards.cache_folder import list_cache
from vlapipe.pipeline.shards.format.file_locks import held_alone, remove_unheld

__all__ = ["NO_SPACE", "Room"]

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
            with held_alone(self._folder / _LOCK) as held:
                if held is not None:
                    self._sweep()
                    self._keep_limit(num_bytes - os.fstat(file).st_size, let_go)
                    self._allocate(file, num_bytes, let_go)
                    return

    def _sweep(self) -> None:
        """Remove what killed processes left; whoever is writing holds its file."""
        for file in list_cache(self._folder):
            if file.key is None:
                remove_unheld(file.path, if_unknown=False)

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
            if file.key is not None and remove_unheld(file.path, if_unknown=True):
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

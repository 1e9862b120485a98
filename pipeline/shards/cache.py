"""Unpacks each shard once for all threads and processes of a machine, and keeps the folder within its limit.

Whoever makes an entry holds its temporary file; others wait for that, and take over if the maker dies. It is synced and
renamed when it is whole. Whoever reads an entry holds it too, so that it is not removed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlapipe.pipeline.shards.atomic import fsync_folder
from vlapipe.pipeline.shards.cache_entry import Blocks, entry_header, map_blocks, map_entry
from vlapipe.pipeline.shards.cache_folder import entry_path, list_cache, temporary_path
from vlapipe.pipeline.shards.cache_layout import Layout
from vlapipe.pipeline.shards.cache_locks import Held, held_alone, remove_unheld, share
from vlapipe.schemas.errors import UsageError

__all__ = ["Cache"]


class Cache:
    """Entries in ``folder``, which is made when the first one is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def blocks(self, key: str, layout: Layout, described: dict[str, Any], fill: Callable[[Blocks], None]) -> Blocks:
        """An entry's blocks, mapped and read-only; made by ``fill``, or waited for, if it is not there.

        Args:
            key: 32 hexadecimal digits that stand for all that the entry's bytes depend on.
            layout: of its blocks.
            described: what the file says of itself to who looks at the folder.
            fill: writes every byte of the blocks that it is given.

        Raises:
            UsageError: the folder cannot be used, or its disk is full.
        """
        try:
            while True:
                blocks = self._map(key, layout)
                if blocks is not None:
                    return blocks
                self.folder.mkdir(parents=True, exist_ok=True)
                with held_alone(temporary_path(self.folder, key)) as held:
                    # Who held it before us may have made the entry.
                    if held is not None and self._map(key, layout) is None:
                        self._make(held, key, layout, entry_header(layout, described), fill)
        except OSError as error:
            problem = f"{self.folder}: the shards cannot be unpacked there: {error.strerror}"
            raise UsageError(
                problem, "choose another folder with --cache-dir (cache_dir=), say on a scratch disk"
            ) from None

    def _map(self, key: str, layout: Layout) -> Blocks | None:
        with contextlib.suppress(FileNotFoundError), entry_path(self.folder, key).open("rb") as file:
            blocks = map_entry(file, layout) if share(file) else None
            if blocks is not None:
                with contextlib.suppress(OSError):  # another user's entry can be read all the same
                    os.utime(file.fileno())
            return blocks
        return None

    def _make(self, held: Held, key: str, layout: Layout, header: bytes, fill: Callable[[Blocks], None]) -> None:
        for file in list_cache(self.folder):
            if file.key is None:
                remove_unheld(file.path, if_unknown=False)  # what killed processes left; this one's is held
        held.file.truncate(0)
        held.file.write(header)
        held.file.flush()
        _allocate(held.file.fileno(), len(header) + layout.num_bytes)
        fill(map_blocks(held.file, len(header), layout, writable=True))
        os.fsync(held.file.fileno())  # or a power cut may leave a whole name on half a file
        held.path.rename(entry_path(self.folder, key))
        fsync_folder(self.folder)


def _allocate(file: int, num_bytes: int) -> None:
    """Give a file its size with all its blocks on the disk: a write to a map that finds none kills the process."""
    os.posix_fallocate(file, 0, num_bytes)

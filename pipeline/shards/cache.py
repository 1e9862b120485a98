"""Unpacks each shard once for all threads and processes of a machine, and keeps them for the next ones.

Whoever makes an entry holds its temporary file; others wait for that, and take over if the maker dies. It is synced and
renamed when it is whole. Whoever reads an entry holds it too, so that it is not removed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlapipe.pipeline.shards.cache_entry import Blocks, entry_header, map_blocks, map_entry
from vlapipe.pipeline.shards.cache_folder import entry_path, temporary_path
from vlapipe.pipeline.shards.cache_layout import Layout
from vlapipe.pipeline.shards.cache_room import NO_SPACE, Room
from vlapipe.pipeline.shards.format.atomic import fsync_folder
from vlapipe.pipeline.shards.format.file_locks import Held, held_alone, share
from vlapipe.schemas.errors import StoppedError, UsageError
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["Cache"]


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
                with held_alone(temporary_path(self.folder, key)) as held:
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
            blocks = map_entry(file, layout) if share(file) else None
            if blocks is not None:
                with contextlib.suppress(OSError):  # another user's entry can be read all the same
                    os.utime(file.fileno())
            return blocks
        return None

    def _make(
        self,
        held: Held,
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

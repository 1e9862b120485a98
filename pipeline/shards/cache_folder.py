"""The folder that unpacked shards lie in, one file each: what is there, who uses it, and what may be removed.

Nothing but files of ours is ever looked into or removed; the folder may hold anything else beside them.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from vlapipe.schemas.paths import local_path
from vlapipe.schemas.sizes import parse_size

__all__ = ["CacheFile", "cache_folder", "cache_limit", "entry_path", "list_cache", "temporary_path"]

CACHE_VARIABLE = "VLAPIPE_CACHE_DIR"
SIZE_VARIABLE = "VLAPIPE_CACHE_SIZE"
_ENTRY = re.compile(r"vlapipe-([0-9a-f]{32})\.view\Z")
_TEMPORARY = re.compile(r"\.vlapipe-[0-9a-f]{32}\.view(-[0-9]+-[0-9a-f]{12})?\Z")


@dataclass(frozen=True, kw_only=True)
class CacheFile:
    """An unpacked shard; ``key`` is ``None`` for one that is being made, or was when its process died."""

    path: Path
    key: str | None
    num_bytes: int
    last_used_s: float  # since the epoch


def cache_folder(dataset: Path | None, chosen: Path | None) -> Path:
    """Where unpacked arrays go: as chosen, else ``$VLAPIPE_CACHE_DIR``, else in the dataset, else the user's cache."""
    if chosen is not None:
        return chosen
    if os.environ.get(CACHE_VARIABLE):
        return local_path(os.environ[CACHE_VARIABLE], f"${CACHE_VARIABLE}")
    if dataset is not None and os.access(dataset, os.W_OK):
        return dataset / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vlapipe"


def cache_limit(chosen: int | None) -> int | None:
    """How many bytes unpacked arrays may take: as chosen, else ``$VLAPIPE_CACHE_SIZE``, else ``None``: any number.

    Raises:
        UsageError: the variable holds no size.
    """
    text = os.environ.get(SIZE_VARIABLE)
    return parse_size(text) if chosen is None and text else chosen


def entry_path(folder: Path, key: str) -> Path:
    """The file of a shard that is unpacked; ``key`` is 32 hexadecimal digits."""
    return folder / f"vlapipe-{key}.view"


def temporary_path(folder: Path, key: str) -> Path:
    """The file of a shard that is being unpacked; whoever does so holds it."""
    return folder / f".vlapipe-{key}.view"


def list_cache(folder: Path) -> list[CacheFile]:
    """The files of ours in ``folder``, those that were not used for longest first."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            match = _ENTRY.match(entry.name)
            if match is None and _TEMPORARY.match(entry.name) is None:
                continue
            try:
                stat = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            key = match[1] if match else None
            path = Path(entry.path)
            found.append(CacheFile(path=path, key=key, num_bytes=stat.st_size, last_used_s=stat.st_mtime))
    return sorted(found, key=lambda file: file.last_used_s)

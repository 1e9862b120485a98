"""How many bytes a file may become when it is read: in proportion to those that it takes on the disk.

A few KB of a hostile file unpack to any size, and a file of holes has any size.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["MOST_FREE", "holes_of", "limit_bytes"]

MOST_FREE = 256 << 20  # bytes that anything in a file may take, however few bytes the file has for it
_MOST_SHRUNK = 200  # an honest array shrinks at most so much; deflate can shrink zeros 1000 times, others even more


def limit_bytes(stored_bytes: int) -> int:
    """Returns the bytes that ``stored_bytes`` of a file may become."""
    return max(MOST_FREE, _MOST_SHRUNK * stored_bytes)


def holes_of(path: Path) -> str | None:
    """Returns what was found if hardly any of a large file is on the disk, else ``None``.

    Holes are read as zeros. A file system that does not say how much is on the disk says 0.

    Raises:
        OSError: there is no such file.
    """
    status = path.stat()
    on_disk = status.st_blocks * 512
    if not on_disk or status.st_size <= limit_bytes(on_disk):
        return None
    return f"{status.st_size:,} bytes, of which {on_disk:,} are on the disk"

"""Counts files that the schema does not ask for, by their kind."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

__all__ = ["Unread", "merged", "unread_of"]


class Unread(NamedTuple):
    """Files of one kind: their suffix (or name), the folder that holds them within an episode, the first, how many."""

    suffix: str
    parent: str
    first: str
    num_files: int


def unread_of(paths: Iterable[str]) -> tuple[Unread, ...]:
    """Returns files by suffix and by parent folder within an episode, so that notes do not hide an unread camera."""
    return merged((_one(PurePosixPath(path)),) for path in paths)


def _one(path: PurePosixPath) -> Unread:
    return Unread(path.suffix or path.name, path.parent.name if len(path.parts) > 2 else "", str(path), 1)


def merged(parts: Iterable[Iterable[Unread]]) -> tuple[Unread, ...]:
    """Returns one entry a kind, in the order of their first paths."""
    kinds: dict[tuple[str, str], Unread] = {}
    for part in parts:
        for each in part:
            key = each.suffix, each.parent
            before = kinds.get(key)
            if before is not None:
                each = each._replace(first=min(before.first, each.first), num_files=before.num_files + each.num_files)
            kinds[key] = each
    return tuple(sorted(kinds.values(), key=lambda each: each.first))

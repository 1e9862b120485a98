"""Names datasets by the ends of their paths, and finds the dataset that a name means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

__all__ = ["index_of", "short_names"]


def short_names(paths: Sequence[Path]) -> list[str]:
    """Returns for each path its folder name, with as many parent folders before it as tell the paths apart.

    A path that comes twice gets a number from its second time on: ``lab``, ``lab-2``.
    """
    parts = [path.resolve().parts for path in paths]
    names = []
    for i, own in enumerate(parts):
        others = [other for other in parts if other != own]
        length = 1
        while length < len(own) and any(other[-length:] == own[-length:] for other in others):
            length += 1
        again = Counter(parts[: i + 1])[own]
        names.append("/".join(own[-length:]) + (f"-{again}" if again > 1 else ""))
    return names


def index_of(name: str, paths: Sequence[Path]) -> int | None:
    """Returns the index of the dataset with path ``name``; else of the only dataset whose path ends with ``name``."""
    known = [path.resolve() for path in paths]
    if Path(name).resolve() in known:
        return known.index(Path(name).resolve())
    end = Path(name).parts
    ending = [i for i, path in enumerate(known) if path.parts[-len(end) :] == end] if end else []
    return ending[0] if len(ending) == 1 else None

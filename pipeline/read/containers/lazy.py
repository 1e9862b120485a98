"""Arrays by name that are looked up only when they are asked for: a container may hold 100,000 of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from vlapipe.pipeline.read.containers.arrays import ArrayEntry

__all__ = ["LazyArrays"]


class LazyArrays(Mapping[str, ArrayEntry]):
    """The arrays below ``base``. A name that begins with ``/`` counts from the container's top."""

    def __init__(
        self,
        find: Callable[[str], ArrayEntry | None],
        names: Callable[[str], list[str]],
        base: str | None,
        *,
        groups: Callable[[str], list[str]],
        attributes: Callable[[str], dict[str, Any]],
    ) -> None:
        """``find`` returns the array at a path from the top; ``names`` lists the arrays below a group.

        ``groups`` returns the groups that fit a pattern, ``attributes`` those of a group.
        """
        self._find, self._list, self._base = find, names, (base or "").strip("/")
        self.groups, self.attributes = groups, attributes
        self._found: dict[str, ArrayEntry | None] = {}

    def _look_up(self, name: str) -> ArrayEntry | None:
        if name not in self._found:
            path = name.lstrip("/") if name.startswith("/") or not self._base else f"{self._base}/{name}"
            self._found[name] = self._find(path)
        return self._found[name]

    def __getitem__(self, name: str) -> ArrayEntry:
        """Returns the array called ``name``; raises ``KeyError`` if there is none."""
        entry = self._look_up(name)
        if entry is None:
            raise KeyError(name)
        return entry

    def __contains__(self, name: object) -> bool:
        """Returns whether there is an array called ``name``."""
        return isinstance(name, str) and self._look_up(name) is not None

    def __iter__(self) -> Iterator[str]:
        """Yields the names of the arrays below the base; listing them opens every group."""
        return iter(self._list(self._base))

    def __len__(self) -> int:
        """Returns the number of arrays below the base."""
        return len(self._list(self._base))

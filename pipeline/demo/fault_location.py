"""The location in an episode where a fault was planted."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FaultLocation"]


@dataclass(frozen=True, kw_only=True)
class FaultLocation:
    """``file`` is relative to the episode. ``line`` counts from 1, the CSV's header. ``column`` may name an array."""

    file: str
    description: str
    line: int | None = None
    column: str | None = None

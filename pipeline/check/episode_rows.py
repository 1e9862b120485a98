"""What the checks of a whole dataset see of an episode: its row of the episodes table, with the evidence beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vlapipe.schemas.findings import Findings

__all__ = ["EVIDENCE", "FindingsOf", "Row", "files_of"]

EVIDENCE = "evidence"  # key in an episode's row; no column of the episodes table

Row = Mapping[str, Any]
FindingsOf = Callable[[int, Row], Findings]  # what collects the findings of an episode, by its number and its row


def files_of(row: Row) -> dict[str, str]:
    """Returns the source file of each stream; an episode's row lists its sources in the order of its streams."""
    streams = [key.removesuffix("/start") for key in row if key.endswith("/start")]
    return {stream: source["path"] for stream, source in zip(streams, row["sources"], strict=True)}

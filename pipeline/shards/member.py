"""One member of a shard before it is written: its name, whose bytes it holds, and the jobs that make them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlapipe.pipeline.shards.aligned_zip import Encoded

__all__ = ["Member"]


@dataclass(frozen=True, kw_only=True)
class Member:
    """``jobs`` make the member's bytes run by run; any thread may run any of them."""

    name: str
    array: str
    jobs: Sequence[Callable[[], Encoded]]
    deflated: bool = False

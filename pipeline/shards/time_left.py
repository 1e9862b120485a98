"""Estimates how long a run still takes from its recent pace; says nothing before that is known.

The start of a run (imports, compiling, a first file that all threads wait for) says nothing about what follows, and
neither does its average once the pace has changed.
"""

from __future__ import annotations

import time
from collections import deque

__all__ = ["BAR_FORMAT", "TimeLeft"]

BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]"  # tqdm's, without its own estimate

_WINDOW_S = 30.0
_LEAST_S = 2.0  # a pace over less is chance
_LEAST_MARKS = 4
_MARKS_A_WINDOW = 100


class TimeLeft:
    """Takes how much is done, again and again; the first time is the end of the start, and counts for nothing else."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, float]] = deque()  # time and amount done, the oldest first

    def mark(self, done: float, now: float | None = None) -> None:
        """Note that ``done`` is done by ``now``, a time of ``time.monotonic``; by default that is this moment."""
        now = time.monotonic() if now is None else now
        marks = self._marks
        # Marks that come faster than needed replace the newest, so that there are always few.
        if len(marks) >= _LEAST_MARKS and now - marks[-2][0] < _WINDOW_S / _MARKS_A_WINDOW:
            marks.pop()
        marks.append((now, done))
        while len(marks) > _LEAST_MARKS and now - marks[1][0] >= _WINDOW_S:
            marks.popleft()

    def seconds(self, total: float, now: float | None = None) -> float | None:
        """Until ``total`` is done at the pace of the last half minute; ``None`` while that is not known."""
        if len(self._marks) < _LEAST_MARKS:
            return None
        (began, first), (ended, last) = self._marks[0], self._marks[-1]
        if ended - began < _LEAST_S or last <= first:
            return None
        now = time.monotonic() if now is None else now
        return max(0.0, (total - last) * (ended - began) / (last - first) - (now - ended))

    def text(self, total: float, now: float | None = None) -> str:
        """``about 32 s left``; empty while that is not known."""
        left = self.seconds(total, now)
        if left is None:
            return ""
        if left < 120:
            return f"about {left:.0f} s left"
        return f"about {left / 60:.0f} min left" if left < 7200 else f"about {left / 3600:.1f} h left"

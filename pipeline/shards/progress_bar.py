"""Shows on stderr how far a long run is, and how long it still takes: a bar on a terminal, lines elsewhere.

The time left follows the recent pace and is not shown before that is known. The start of a run (imports, compiling, a
first file that all threads wait for) says nothing about what follows, and neither does the average once the pace has
changed.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType
from typing import Any

from tqdm import tqdm

__all__ = ["Progress", "TimeLeft"]

_BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]"  # tqdm's, without its own estimate
_SECONDS_BETWEEN_LINES = 10.0
_WINDOW_S = 30.0
_LEAST_S = 2.0  # a pace over less is chance
_LEAST_MARKS = 4
_MARKS_A_WINDOW = 100


class Progress:
    """Counts up to ``total``. Use it as a context manager, which takes the bar away in the end."""

    def __init__(self, what: str, total: int, unit: str, *, silent: bool = False) -> None:
        """Show nothing yet.

        Args:
            what: the work, as the first word of each line.
            total: how many units there are.
            unit: the name of one.
            silent: show and say nothing at all, as on every rank but the first.
        """
        self._what, self._total, self._unit, self._silent = what, total, unit, silent
        self._done = 0
        self._left = TimeLeft()
        self._last_line, self._has_spoken = time.monotonic(), False
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count ``count`` more units as done. ``note`` says how the work stands, such as its loss."""
        self.reach(self._done + count, note)

    def reach(self, done: int, note: str = "") -> None:
        """Count ``done`` units as done in all."""
        if self._silent:
            return
        if self._bar is None and sys.stderr.isatty():
            self._bar = tqdm(
                total=self._total,
                initial=self._done or done - 1,
                desc=self._what,
                unit=self._unit,
                leave=False,
                bar_format=_BAR_FORMAT,
            )
        self._done = done
        self._left.mark(done)
        left = self._left.text(self._total) if done < self._total else ""
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(filter(None, [note, left])), refresh=False)
            self._bar.update(done - self._bar.n)
            return
        now = time.monotonic()
        is_end = done == self._total and (self._has_spoken or bool(note))  # short work without a note stays silent
        if now - self._last_line >= _SECONDS_BETWEEN_LINES or is_end:
            self._last_line, self._has_spoken = now, True
            count = f"{self._what}: {done} of {self._total} {self._unit}s"
            self.say(", ".join(filter(None, [count, note, left])))

    def say(self, text: str) -> None:
        """Write one line, above the bar if there is one."""
        if not self._silent:
            tqdm.write(text, file=sys.stderr)
            sys.stderr.flush()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


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

"""Shows progress and remaining time of a long command on stderr: a bar on a terminal, lines otherwise.

The remaining time follows the recent pace. It is not shown until the pace is known. The start (imports, compiling, a
first file that all threads wait for) is not counted, because it does not predict the rest. An average over all of the
time is not used, because the pace may change.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType
from typing import Any

from tqdm import tqdm

__all__ = ["Progress", "TimeLeft"]

# tqdm's own format, without tqdm's estimate of the remaining time.
_BAR_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]"
_SECONDS_BETWEEN_LINES = 10.0
_WINDOW_S = 30.0
_LEAST_S = 2.0  # a pace over a shorter time is not reliable
_LEAST_MARKS = 4
_MARKS_A_WINDOW = 100


class Progress:
    """Counts up to ``total``. Use ``Progress`` as a context manager, which removes the bar at the end."""

    def __init__(self, what: str, total: int, unit: str, *, silent: bool = False) -> None:
        """Store the arguments. Shows nothing yet.

        Args:
            what: name of the work, the first word of each line.
            total: number of units; it may be set anew until the first is done.
            unit: name of one unit, in the singular.
            silent: if True, show and print nothing, as on every rank except rank 0.
        """
        self._what, self.total, self._unit, self._silent = what, total, unit, silent
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
        """Add ``count`` to the units that are done. ``note`` is a short status, for example the loss."""
        self.reach(self._done + count, note)

    def reach(self, done: int, note: str = "") -> None:
        """Set the number of units that are done in total to ``done``."""
        if self._silent:
            return
        if self._bar is None and sys.stderr.isatty():
            self._bar = tqdm(
                total=self.total,
                initial=self._done or done - 1,
                desc=self._what,
                unit=self._unit,
                leave=False,
                bar_format=_BAR_FORMAT,
            )
        self._done = done
        self._left.mark(done)
        left = self._left.text(self.total) if done < self.total else ""
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(filter(None, [note, left])), refresh=False)
            self._bar.update(done - self._bar.n)
            return
        now = time.monotonic()
        is_end = done == self.total and (self._has_spoken or bool(note))  # short work without a note stays silent
        if now - self._last_line >= _SECONDS_BETWEEN_LINES or is_end:
            self._last_line, self._has_spoken = now, True
            count = f"{self._what}: {done} of {self.total} {self._unit}s"
            self.say(", ".join(filter(None, [count, note, left])))

    def say(self, text: str) -> None:
        """Print one line, above the bar if there is a bar."""
        if not self._silent:
            tqdm.write(text, file=sys.stderr)
            sys.stderr.flush()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class TimeLeft:
    """Estimates the remaining time from marks of the work done. The time before the first mark is not counted."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, float]] = deque()  # time and amount done, the oldest first

    def mark(self, done: float, now: float | None = None) -> None:
        """Record that ``done`` is done at time ``now`` (of ``time.monotonic``; by default the current time)."""
        now = time.monotonic() if now is None else now
        marks = self._marks
        # If marks come faster than needed, a new mark replaces the newest one, so that the number of marks stays small.
        if len(marks) >= _LEAST_MARKS and now - marks[-2][0] < _WINDOW_S / _MARKS_A_WINDOW:
            marks.pop()
        marks.append((now, done))
        while len(marks) > _LEAST_MARKS and now - marks[1][0] >= _WINDOW_S:
            marks.popleft()

    def seconds(self, total: float, now: float | None = None) -> float | None:
        """Returns the seconds until ``total`` is done at the pace of the last 30 s; ``None`` if the pace is unknown."""
        if len(self._marks) < _LEAST_MARKS:
            return None
        (began, first), (ended, last) = self._marks[0], self._marks[-1]
        if ended - began < _LEAST_S or last <= first:
            return None
        now = time.monotonic() if now is None else now
        return max(0.0, (total - last) * (ended - began) / (last - first) - (now - ended))

    def text(self, total: float, now: float | None = None) -> str:
        """Returns the remaining time as text, ``about 32 s left``; empty if the pace is unknown."""
        left = self.seconds(total, now)
        if left is None:
            return ""
        if left < 120:
            return f"about {left:.0f} s left"
        return f"about {left / 60:.0f} min left" if left < 7200 else f"about {left / 3600:.1f} h left"

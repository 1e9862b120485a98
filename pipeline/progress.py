"""Shows how far a long run is: a bar on a terminal, a line now and then in a file; always on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from tqdm import tqdm

from vlapipe.pipeline.shards.time_left import BAR_FORMAT, TimeLeft

__all__ = ["Progress"]

_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts up to ``total``; use as a context manager."""

    def __init__(self, what: str, total: int, unit: str) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done = 0
        self._left = TimeLeft()
        self._last_line = time.monotonic()
        on_terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=what, unit=unit, leave=False, bar_format=BAR_FORMAT) if on_terminal else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, steps: int = 1) -> None:
        """Count ``steps`` more as done."""
        self._done += steps
        self._left.mark(self._done)
        if self._bar is not None:
            self._bar.set_postfix_str(self._left.text(self._total), refresh=False)
            self._bar.update(steps)
            return
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            left = self._left.text(self._total)
            line = f"{self._what}: {self._done} of {self._total} {self._unit}s{left and f', {left}'}"
            self.say(line)

    def say(self, text: str) -> None:
        """One line, above the bar if there is one."""
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()

"""Speaks on stderr for rank 0 and keeps silent on every other: lines, and how far the run is."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from tqdm import tqdm

from vlapipe.pipeline.shards.time_left import BAR_FORMAT, TimeLeft

__all__ = ["Console"]

_SECONDS_BETWEEN_LINES = 10.0


class Console:
    """A bar on a terminal, a line now and then elsewhere; use as a context manager."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._bar: tqdm[Any] | None = None
        self._left = TimeLeft()
        self._last_line = -float("inf")

    def say(self, text: str) -> None:
        """One line, above the bar if there is one."""
        if not self._silent:
            tqdm.write(text, file=sys.stderr)
            sys.stderr.flush()

    def progress(self, step: int, max_steps: int, loss: float, steps_per_s: float) -> None:
        """Show that ``step`` of ``max_steps`` are done."""
        if self._silent:
            return
        self._left.mark(step)
        left = self._left.text(max_steps) if step < max_steps else ""
        ahead = left and f", {left}"
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = tqdm(
                    total=max_steps, initial=step - 1, desc="train", unit="step", leave=False, bar_format=BAR_FORMAT
                )
            self._bar.set_postfix_str(f"loss {loss:.3f}{ahead}", refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES or step == max_steps:
            self._last_line = now
            self.say(f"train: step {step} of {max_steps}, loss {loss:.3f}, {steps_per_s:.2f} steps/s{ahead}")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Console:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

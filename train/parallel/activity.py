"""Says what the main thread of this rank does, and finds the ranks that hang.

A limited phase is work that takes about as long in every step: forward, backward, the optimizer. A rank hangs if its
limited phase lasts longer than the limit, and longer than three times the longest such phase of any rank so far. No
rank hangs in a phase that no rank has completed yet, because ``torch.compile`` may compile for many minutes there. All
other work may take any time, such as reading data, saving, or waiting for the other ranks.
"""

from __future__ import annotations

import contextlib
import math
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

import torch

__all__ = ["WAITING", "Activity", "hanging_ranks", "seconds_kept_waiting"]

WAITING = "waiting for the other ranks"

_LIMITED = ("forward", "backward", "optimizer", "validation")
_FREE, _WAITS = -1, -2  # every other phase
_TIMES_LONGEST = 3
_SOON_S = 1.0  # a phase that is younger is not looked at
# A rank whose main thread is here waits for the gradients or parameters of another rank.
_TORCH = Path(torch.__file__).parent
_PYTHON = sysconfig.get_path("stdlib")
_WAITS_IN = tuple(str(_TORCH / place) for place in ("distributed", "nn/parallel", "autograd/graph.py"))


class Activity:
    """What the thread that made this object does. Another thread may ask."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._now = (_FREE, "", time.monotonic())
        self._longest_s = [0.0] * len(_LIMITED)

    @contextlib.contextmanager
    def during(self, name: str) -> Iterator[None]:
        """Say that the block is phase ``name``. The time of an inner phase does not count for the outer one."""
        number = _LIMITED.index(name) if name in _LIMITED else _WAITS if name == WAITING else _FREE
        outer, entered = self._now, time.monotonic()
        self._now = (number, name, entered)
        try:
            yield
            if number >= 0:
                began = self._now[2]
                self._longest_s[number] = max(self._longest_s[number], time.monotonic() - began)
        finally:
            self._now = (*outer[:2], outer[2] + time.monotonic() - entered)

    def row(self) -> list[int]:
        """Returns what the other ranks have to know, as integers.

        They are the phase's number, its milliseconds, whether another rank seems to be waited for, and the most
        milliseconds of each limited phase.
        """
        number, _, began = self._now
        lasts = time.monotonic() - began
        waits = number >= 0 and lasts > _SOON_S and self._frame().f_code.co_filename.startswith(_WAITS_IN)
        return [number, int(1e3 * lasts), int(waits), *(math.ceil(1e3 * longest) for longest in self._longest_s)]

    def place(self) -> str:
        """Returns the place of the thread, for a message: the innermost one outside of Python's library and torch."""
        innermost = frame = self._frame()
        while _is_library(frame.f_code.co_filename) and frame.f_back is not None:
            frame = frame.f_back
        frame = innermost if _is_library(frame.f_code.co_filename) else frame
        return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"

    @property
    def phase(self) -> str:
        """Name and seconds of the phase, for a message."""
        _, name, began = self._now
        return f"{name} takes {time.monotonic() - began:.0f} s so far"

    def stack(self) -> str:
        """Returns the thread's stack, as a traceback shows it."""
        return "".join(traceback.format_stack(self._frame()))

    def _frame(self) -> FrameType:
        return sys._current_frames()[self._thread]


def _is_library(file: str) -> bool:
    return file.startswith((str(_TORCH), "<")) or (file.startswith(_PYTHON) and "site-packages" not in file)


def hanging_ranks(rows: Sequence[Sequence[int]], limit_s: float) -> list[int]:
    """Returns the ranks that hang, by the rows of all ranks. Ranks that wait for one of them are not returned.

    If every rank is late, all are returned if all of them seem to wait, and none if none of them does.
    """
    late, waiting = [], 0
    for rank, (number, milliseconds, waits, *_) in enumerate(rows):
        if number < 0:
            continue
        longest = max(row[3 + number] for row in rows)
        if longest and milliseconds > max(1e3 * limit_s, _TIMES_LONGEST * longest):
            late.append(rank)
            waiting += waits
    if waiting == len(rows):
        return late
    if not waiting and len(late) == len(rows):
        return []  # all of them work: the step is long, for example because it compiles
    return [rank for rank in late if not rows[rank][2]]


def seconds_kept_waiting(rows: Sequence[Sequence[int]], rank: int) -> float:
    """Returns for how long all other ranks have waited for ``rank``, which does something else; 0 if they do not."""
    others = [row for other, row in enumerate(rows) if other != rank]
    if rows[rank][0] == _WAITS or any(row[0] != _WAITS for row in others):
        return 0.0
    return min(row[1] for row in others) / 1e3

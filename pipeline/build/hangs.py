"""Ends a worker's process when its work hangs, so that the cluster gives the work to another one."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["ends_if_hung"]

_lock = threading.Lock()
_works: dict[object, list[float]] = {}  # of each work in progress: when it last did something, and how long it may not
_is_watched = False


@contextlib.contextmanager
def ends_if_hung(limit_s: float) -> Iterator[Callable[[], None]]:
    """End this process if the block does not call the function that it gets for ``limit_s`` seconds.

    A thread looks after all such blocks of the process. If the interpreter itself is blocked, so that no thread runs, a
    timer of the C library ends the process after about the same time.
    """
    global _is_watched
    key, state = object(), [time.monotonic(), limit_s]
    with _lock:
        _works[key] = state
        if not _is_watched:
            _is_watched = True
            threading.Thread(target=_look, daemon=True).start()
    try:
        yield lambda: state.__setitem__(0, time.monotonic())
    finally:
        with _lock:
            del _works[key]


def _look() -> None:
    global _is_watched
    with Path(os.devnull).open("w") as nowhere:
        while True:
            with _lock:
                if not _works:
                    _is_watched = False
                    faulthandler.cancel_dump_traceback_later()
                    return
                works = list(_works.values())
            now = time.monotonic()
            if any(now - since > limit_s for since, limit_s in works):
                os._exit(1)
            shortest, longest = min(limit_s for _, limit_s in works), max(limit_s for _, limit_s in works)
            faulthandler.dump_traceback_later(longest, exit=True, file=nowhere)
            time.sleep(min(1.0, shortest / 10))

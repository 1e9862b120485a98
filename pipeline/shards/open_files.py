"""Keeps a process below its limit of open files: each map keeps one, and a dataset may have thousands of shards."""

from __future__ import annotations

import os
import resource

__all__ = ["reserve_open_files"]

_SPARE = 64  # for whatever else the process opens meanwhile


def reserve_open_files() -> bool:
    """Whether some more files may be opened; raises this process's own limit, as far as it may, where they are few.

    Only when it is needed: a program that waits with ``select`` cannot use files from number 1024 on.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or _is_free(soft - _SPARE):
        return True
    needed = _num_open() + _SPARE
    if needed <= soft:
        return True
    wanted = max(2 * soft, needed)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return False
    return needed <= wanted


def _is_free(number: int) -> bool:
    """Whether no open file has this number. They are given from below, so there are then hardly more than that."""
    try:
        os.fstat(number)
    except OSError:
        return True
    return False


def _num_open() -> int:
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - numbers, not paths

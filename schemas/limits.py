"""Tells an error of the surroundings (memory, open files, disk, network) from one of the file that was to be read."""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable
from pathlib import Path

from vlapipe.schemas.errors import StoppedError

__all__ = ["max_map_count", "raise_if_stopped", "stopped_by"]

Said = tuple[str, str]  # a problem and its cure


def stopped_by(error: BaseException, what: object) -> StoppedError | None:
    """The error that tells a user which limit was reached; ``None`` if the surroundings are not to blame.

    Args:
        error: what was raised.
        what: the file or the work that was under way, for the message.
    """
    if isinstance(error, StoppedError):
        return error
    if isinstance(error, MemoryError):
        problem, cure = _memory()
    elif isinstance(error, OSError) and error.errno in _SAID:
        problem, cure = _SAID[error.errno]()
    elif isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        problem, cure = "no more threads can be started", "raise the limit (ulimit -u), or end other programs"
    else:
        return None
    return StoppedError(f"{what}: {problem}", cure)


def raise_if_stopped(error: BaseException, what: object) -> None:
    """For whoever would call ``error`` damage: raise what ``stopped_by`` gives, if anything.

    Raises:
        StoppedError: the surroundings are to blame.
    """
    stopped = stopped_by(error, what)
    if stopped is not None:
        raise stopped from None


def max_map_count() -> int | None:
    """How many memory maps the kernel lets a process have; ``None`` where that has no such limit."""
    try:
        return int(Path("/proc/sys/vm/max_map_count").read_text())
    except (OSError, ValueError):
        return None


def _memory() -> Said:
    """The kernel has one error for three limits: look which it is."""
    most = max_map_count()
    if most is not None and _num_maps() >= 0.95 * most:
        cure = f"raise it (sysctl -w vm.max_map_count={4 * most}), or ingest with a larger --shard-size"
        return f"this process has as many memory maps as it may (vm.max_map_count = {most})", cure
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY:
        return f"out of memory: this process may use {space / 1e6:,.0f} MB (ulimit -v)", "raise the limit (ulimit -v)"
    return "out of memory", "end other programs, or ask for less at a time (--batch-size, --num-workers, --workers)"


def _num_maps() -> int:
    try:
        with Path("/proc/self/maps").open("rb") as file:
            return sum(1 for _ in file)
    except (OSError, MemoryError):
        return 0


def _open_files() -> Said:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"this process has as many files open as it may ({soft})", "raise the limit (ulimit -n 65536)"


def _always(problem: str, cure: str) -> Callable[[], Said]:
    return lambda: (problem, cure)


_NETWORK = _always("the network or its server does not answer", "the same command goes on when it does")
_SAID: dict[int, Callable[[], Said]] = {
    errno.ENOMEM: _memory,
    errno.EMFILE: _open_files,
    errno.ENFILE: _always("this machine has as many files open as it may (fs.file-max)", "end other programs"),
    errno.EAGAIN: _always("this machine has no more of what was asked for", "end other programs, and try again"),
    errno.ENOSPC: _always("the disk is full", "make room on it"),
    errno.EDQUOT: _always("the disk quota is used up", "make room, or ask for more"),
    errno.ESTALE: _NETWORK,
    errno.ETIMEDOUT: _NETWORK,
    errno.EHOSTDOWN: _NETWORK,
    errno.EHOSTUNREACH: _NETWORK,
    errno.ENETDOWN: _NETWORK,
    errno.ENETUNREACH: _NETWORK,
}

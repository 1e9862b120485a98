"""Tells errors of the surroundings (disk, quota, permission, memory, limits, network) from errors of one file.

An error of the surroundings becomes a ``StoppedError``: nothing is wrong with the data, other files would fail in the
same way, and the same command continues once the cause is gone.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

from vlapipe.schemas.errors import OutOfMemoryError, StoppedError

__all__ = ["is_from_surroundings", "max_map_count", "raise_if_stopped", "stopped_by"]

Said = tuple[str, str]  # the reason in words, and the cure

_GO_ON = "the same command then goes on"
_NO_THREAD = "can't start new thread"  # the message of CPython's RuntimeError


def is_from_surroundings(error: BaseException) -> bool:
    """Returns whether disk, quota, permission, memory, network or a limit caused the error, rather than one file."""
    return _reason(error) is not None


def stopped_by(error: BaseException, where: str | os.PathLike[str] = "") -> StoppedError:
    """Returns the error that ends a stopped command: the path, the reason in words, and the cure.

    Args:
        error: the error that was raised. A ``StoppedError`` is returned as it is.
        where: the file, folder or work in progress; used if ``error`` names no file.
    """
    if isinstance(error, StoppedError):
        return error
    named = error.filename if isinstance(error, OSError) else None
    place = os.fsdecode(named if isinstance(named, str | bytes) else where)
    said = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
    reason, cure = _reason(error) or (said, "correct that")
    is_memory = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    return (OutOfMemoryError if is_memory else StoppedError)(f"{place or 'stopped'}: {reason}", f"{cure}; {_GO_ON}")


def raise_if_stopped(error: BaseException, where: str | os.PathLike[str]) -> None:
    """Raises if ``error`` comes from the surroundings; returns if ``where`` itself is at fault.

    Raises:
        StoppedError: the surroundings caused the error.
    """
    if is_from_surroundings(error):
        raise stopped_by(error, where) from None


def _reason(error: BaseException) -> Said | None:
    if isinstance(error, StoppedError):
        return error.problem, error.cure
    if isinstance(error, MemoryError):
        return _memory()
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return _REASONS[errno.EAGAIN]()
    if isinstance(error, OSError) and error.errno in _REASONS:
        return _REASONS[error.errno]()
    return None


def max_map_count() -> int | None:
    """Returns how many memory maps the kernel allows per process, or ``None`` if there is no such limit."""
    try:
        return int(Path("/proc/sys/vm/max_map_count").read_text())
    except (OSError, ValueError):
        return None


def _memory() -> Said:
    """Finds out which of three limits was reached: the kernel has one error code for all three."""
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


def _always(reason: str, cure: str) -> Callable[[], Said]:
    return lambda: (reason, cure)


_FORBIDDEN = _always("no permission", "have it given; if this file alone cannot be read, move it away")
_LOST = _always("the connection was lost", "check the network and the other machine")
_GONE = _always("the disk is gone", "attach it again")
# Errors of system calls that are caused by the machine, not by the user's data or command.
_REASONS: dict[int, Callable[[], Said]] = {
    errno.ENOSPC: _always("the disk is full", "free some space there"),
    errno.EDQUOT: _always("the disk quota is used up", "free some space there, or have the quota raised"),
    errno.EFBIG: _always("no file may become so large here", "raise the limit (ulimit -f)"),
    errno.EIO: _always(
        "the disk or its connection failed", "check them; if this file alone cannot be read, move it away"
    ),
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _always("the file system is read-only", "make it writable"),
    errno.EMFILE: _open_files,
    errno.ENFILE: _always("this machine has as many files open as it may (fs.file-max)", "end other programs"),
    errno.ENOMEM: _memory,
    errno.EAGAIN: _always("no more threads or processes can be started", "end other programs, or raise ulimit -u"),
    errno.ENOLCK: _always("the file system gives no locks", "check its server"),
    errno.ESTALE: _always("the network file system lost the file", "mount it again"),
    errno.ENXIO: _GONE,
    errno.ENODEV: _GONE,
    errno.ENOTCONN: _always("the file system is not connected", "mount it again"),
    errno.ETIMEDOUT: _always("the file system or network did not answer in time", "check it"),
    errno.ECONNREFUSED: _always("the connection was refused", "check the network and the other machine"),
    errno.ECONNRESET: _LOST,
    errno.ECONNABORTED: _LOST,
    errno.EPIPE: _LOST,
    errno.EHOSTDOWN: _always("the other machine is down", "check it"),
    errno.EHOSTUNREACH: _always("the other machine cannot be reached", "check the network"),
    errno.ENETDOWN: _always("the network is down", "check it"),
    errno.ENETUNREACH: _always("the network cannot be reached", "check it"),
}

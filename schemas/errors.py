"""Every exception that vlapipe raises on purpose; each is one clear line with its cure and survives pickling.

Arguments are kept in ``args`` and the message is put together in ``__str__``, because an exception
that formats its message in ``super().__init__`` cannot be unpickled by a process pool.
"""

from __future__ import annotations

import errno
import os
import re

__all__ = [
    "DamageError",
    "ImageError",
    "NewerFormatError",
    "NotADatasetError",
    "StoppedError",
    "UsageError",
    "VlapipeError",
    "is_from_surroundings",
    "is_text",
    "printable",
    "stop_for",
    "stopped_by",
]

# Control characters, halves of characters, ends of lines and of directions: a name may hold them, one line may not.
_NOT_PRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_GO_ON = "the same command then goes on"
# What a system call may say that tells of the machine, not of the user's data or command: in words, and the cure.
_SURROUNDINGS: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("the disk is full", "free some space there"),
    errno.EDQUOT: ("the disk quota is used up", "free some space there, or have the quota raised"),
    errno.EFBIG: ("no file may become so large here", "raise the limit (ulimit -f)"),
    errno.EIO: ("the disk or its connection failed", "check them"),
    errno.EROFS: ("the file system is read-only", "make it writable"),
    errno.EMFILE: ("this process may open no more files", "raise the limit (ulimit -n 65536)"),
    errno.ENFILE: ("this machine may open no more files", "close other programs, or raise the limit (fs.file-max)"),
    errno.ENOMEM: ("there is no memory left", "close other programs, or use fewer workers"),
    errno.EAGAIN: ("no more threads or processes can be started", "close other programs, or raise ulimit -u"),
    errno.ENOLCK: ("the file system gives no locks", "check its server"),
    errno.ESTALE: ("the network file system lost the file", "mount it again"),
    errno.ENXIO: ("the disk is gone", "attach it again"),
    errno.ENODEV: ("the disk is gone", "attach it again"),
    errno.ENOTCONN: ("the file system is not connected", "mount it again"),
    errno.ETIMEDOUT: ("the file system or network did not answer in time", "check it"),
    errno.ECONNREFUSED: ("the connection was refused", "check the network and the other machine"),
    errno.ECONNRESET: ("the connection was lost", "check the network and the other machine"),
    errno.ECONNABORTED: ("the connection was lost", "check the network and the other machine"),
    errno.EPIPE: ("the connection was lost", "check the network and the other machine"),
    errno.EHOSTDOWN: ("the other machine is down", "check it"),
    errno.EHOSTUNREACH: ("the other machine cannot be reached", "check the network"),
    errno.ENETDOWN: ("the network is down", "check it"),
    errno.ENETUNREACH: ("the network cannot be reached", "check it"),
}


def printable(text: str) -> str:
    r"""``text`` on one line, as UTF-8 can hold it; a byte of a name that is no text becomes ``\xNN``."""
    return _NOT_PRINTABLE.sub(lambda match: _escaped(match[0]), text)


def is_text(text: str) -> bool:
    """Whether UTF-8 can hold it; a name from the file system may be other bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escaped(character: str) -> str:
    is_byte = "\udc80" <= character <= "\udcff"  # as the system's names are decoded (surrogateescape)
    return f"\\x{ord(character) - 0xDC00:02x}" if is_byte else character.encode("unicode_escape").decode()


class VlapipeError(ValueError):
    """Base of all errors meant for a user: what is wrong, and what would cure it."""

    exit_code = 1

    def __init__(self, problem: str, cure: str = "") -> None:
        super().__init__(problem, cure)

    @property
    def problem(self) -> str:
        """What was expected and what was found."""
        return str(self.args[0])

    @property
    def cure(self) -> str:
        """What the user can do, or an empty string."""
        return str(self.args[1])

    def __str__(self) -> str:
        return printable(f"{self.problem} ({self.cure})" if self.cure else self.problem)


class UsageError(VlapipeError):
    """An option, a path, a schema or a configuration that cannot be used."""

    exit_code = 2


class NotADatasetError(VlapipeError):
    """The folder has no manifest that this version can read."""

    exit_code = 3


class NewerFormatError(VlapipeError):
    """The dataset was made by a newer vlapipe."""

    exit_code = 4


class StoppedError(VlapipeError):
    """The work was stopped by its surroundings: disk, quota, memory, network or a worker.

    Nothing is wrong with the data. The same command goes on once the cause is gone.
    """

    exit_code = 5


def is_from_surroundings(error: OSError) -> bool:
    """Whether disk, quota, memory, network or a limit is the reason, rather than one file or path."""
    return error.errno in _SURROUNDINGS


def stopped_by(error: OSError | MemoryError, where: str | os.PathLike[str] = "") -> StoppedError:
    """The error that ends a command which its surroundings stopped: the path, the reason in words, and the cure.

    Args:
        error: what a system call said.
        where: the file or folder that was worked on, for an ``error`` that names none.
    """
    number = errno.ENOMEM if isinstance(error, MemoryError) else error.errno
    named = None if isinstance(error, MemoryError) else error.filename
    place = os.fsdecode(named if isinstance(named, str | bytes) else where)
    said = str(error) if isinstance(error, MemoryError) else error.strerror or str(error)
    reason, cure = _SURROUNDINGS.get(number or 0, (said or type(error).__name__, "correct that"))
    problem = f"stopped: {reason}" if not place else f"{place}: {reason}"
    return StoppedError(problem, f"{cure}; {_GO_ON}")


def stop_for(error: OSError, where: str | os.PathLike[str]) -> None:
    """End the command if ``error`` comes from its surroundings; return if ``where``, one file, is at fault.

    Raises:
        StoppedError: it does. Other files would fail alike, and each would seem to be faulty.
    """
    if is_from_surroundings(error):
        raise stopped_by(error, where) from None


class DamageError(VlapipeError):
    """A stored file is missing, cut short or altered."""


class ImageError(DamageError):
    """One image of several cannot be decoded; whoever gave the list knows which shard and episode it is from."""

    def __init__(self, problem: str, cure: str = "", index: int = 0) -> None:
        super().__init__(problem, cure)
        self.args = (problem, cure, index)

    @property
    def index(self) -> int:
        """Of the image in the list that was to be decoded."""
        return int(self.args[2])

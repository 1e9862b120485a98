"""Every exception that vlapipe raises on purpose. Each is one clear line with its cure, and survives pickling.

The arguments are kept in ``args``, and ``__str__`` puts the message together. An exception that formats its message
in ``super().__init__`` cannot be unpickled by a process pool.
"""

from __future__ import annotations

import re

__all__ = [
    "DamageError",
    "ImageError",
    "NewerFormatError",
    "NotADatasetError",
    "OutOfMemoryError",
    "StoppedError",
    "UsageError",
    "VlapipeError",
    "is_text",
    "printable",
]

# Control characters, lone surrogates, line ends and text-direction marks: a name may hold them, one line may not.
_NOT_PRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Returns ``text`` as one line that UTF-8 can encode; a byte of a file name that is no text becomes ``\xNN``."""
    return _NOT_PRINTABLE.sub(lambda match: _escaped(match[0]), text)


def is_text(text: str) -> bool:
    """Returns whether UTF-8 can encode ``text``; names from the file system may hold other bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escaped(character: str) -> str:
    is_byte = "\udc80" <= character <= "\udcff"  # Python decodes such bytes of file names this way (surrogateescape)
    return f"\\x{ord(character) - 0xDC00:02x}" if is_byte else character.encode("unicode_escape").decode()


class VlapipeError(ValueError):
    """Base class of all errors meant for a user. An error says what is wrong and how to cure it."""

    exit_code = 1

    def __init__(self, problem: str, cure: str = "") -> None:
        super().__init__(problem, cure)

    @property
    def problem(self) -> str:
        """Returns what was expected and what was found."""
        return str(self.args[0])

    @property
    def cure(self) -> str:
        """Returns what the user can do, or an empty string."""
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
    """The surroundings stopped the work: disk, quota, memory, network or a worker.

    Nothing is wrong with the data. The same command continues the work once the cause is gone.
    """

    exit_code = 5


class OutOfMemoryError(StoppedError):
    """There was no memory left, or this process may not have more."""


class DamageError(VlapipeError):
    """A stored file is missing, cut short or altered."""


class ImageError(DamageError):
    """One image of a list cannot be decoded. The caller that made the list knows the image's shard and episode."""

    def __init__(self, problem: str, cure: str = "", index: int = 0) -> None:
        super().__init__(problem, cure)
        self.args = (problem, cure, index)

    @property
    def index(self) -> int:
        """Returns the image's index in the list that was to be decoded."""
        return int(self.args[2])

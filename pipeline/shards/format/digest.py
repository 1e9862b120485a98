"""Whether a file's bytes are those that were written: its SHA-256, taken in a thread beside whatever reads the file."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from vlapipe.schemas.errors import DamageError, VlapipeError
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["damage_or_bug", "file_sha256", "require_digest"]

_CURE = "copy it again, or ingest again"


def file_sha256(path: Path) -> str:
    """Of the whole file, in hexadecimal.

    Raises:
        DamageError: it cannot be read.
        StoppedError: nothing can be read now.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise_if_stopped(error, path)
        raise DamageError(f"{path}: cannot be read: {error.strerror}", _CURE) from None


def require_digest(path: Path, found: str, expected: str) -> None:
    """Refuse a file of another digest than the manifest's.

    Raises:
        DamageError: it is another.
    """
    if found != expected:
        raise DamageError(f"{path}: its bytes differ from those that were written", _CURE)


@contextlib.contextmanager
def damage_or_bug(path: Path, sha256: str) -> Iterator[None]:
    """Tell what fails in the block: the file's damage, or a fault of ours, which is raised as it is.

    A damaged file makes its readers fail in dozens of ways, as do our own bugs. The digest tells them apart; it is
    taken only when something has failed.

    Raises:
        DamageError: the file's bytes are not those that were written.
        StoppedError: the surroundings are to blame.
    """
    try:
        yield
    except VlapipeError:
        raise
    except Exception as error:
        require_digest(path, file_sha256(path), sha256)  # first: what asks for too much memory may be a damaged number
        raise_if_stopped(error, path)
        raise

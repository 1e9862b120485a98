"""Checks with SHA-256 whether a file's bytes have changed since they were written."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from vlapipe.schemas.errors import DamageError, VlapipeError
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["RESTORE", "damage_or_bug", "file_sha256", "require_digest"]

RESTORE = "copy it again, or remove it and run the same vlapipe ingest command again"


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of the whole file, in hexadecimal.

    Raises:
        DamageError: the file cannot be read.
        StoppedError: a limit of the system (memory, disk, network) prevents reading.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise_if_stopped(error, path)
        raise DamageError(f"{path}: cannot be read: {error.strerror}", RESTORE) from None


def require_digest(path: Path, found: str, expected: str) -> None:
    """Compare a file's digest with the manifest's digest.

    Raises:
        DamageError: the digests differ.
    """
    if found != expected:
        raise DamageError(f"{path}: its bytes differ from those that were written", RESTORE)


@contextlib.contextmanager
def damage_or_bug(path: Path, sha256: str) -> Iterator[None]:
    """Find the reason of an error in the block: a damaged file, or a bug of ours. A bug is raised unchanged.

    A damaged file makes its readers fail in dozens of ways, and so do our own bugs. The digest tells them apart. It is
    computed only if the block fails.

    Raises:
        DamageError: the file's bytes have changed since they were written.
        StoppedError: a limit of the system (memory, disk, network) is the reason.
    """
    try:
        yield
    except VlapipeError:
        raise
    except Exception as error:
        require_digest(path, file_sha256(path), sha256)  # first, because a damaged number may ask for too much memory
        raise_if_stopped(error, path)
        raise

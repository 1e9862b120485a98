"""Whether a file's bytes are those that were written: its SHA-256, taken in a thread beside whatever reads the file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vlapipe.schemas.errors import DamageError

__all__ = ["file_sha256", "require_digest"]

_CURE = "copy it again, or ingest again"


def file_sha256(path: Path) -> str:
    """Of the whole file, in hexadecimal.

    Raises:
        DamageError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DamageError(f"{path}: cannot be read: {error.strerror}", _CURE) from None


def require_digest(path: Path, found: str, expected: str) -> None:
    """Refuse a file of another digest than the manifest's.

    Raises:
        DamageError: it is another.
    """
    if found != expected:
        raise DamageError(f"{path}: its bytes differ from those that were written", _CURE)

"""A file that the user wants written: its folder must be there, and what the disk refuses is told in one line."""

from __future__ import annotations

from pathlib import Path

from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["require_folder_of", "write_text"]


def require_folder_of(path: Path, option: str = "") -> None:
    """Refuse a file whose folder is missing, before the work. ``option`` is the option that gave the path.

    Raises:
        UsageError: the folder is not there.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: no folder {path.parent}".lstrip(), "make it first")


def write_text(path: Path, text: str) -> None:
    """Write the file, in UTF-8 and with ``\\n`` at the end of lines.

    Raises:
        UsageError: the file cannot be written there.
        StoppedError: the disk is full, for example.
    """
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise_if_stopped(error, path)
        raise UsageError(f"{path}: cannot be written: {error.strerror}", "check its folder") from None

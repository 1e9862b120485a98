"""Finds the one table, and the one JSON file of metadata, among the members of a ZIP archive."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path, PurePosixPath

__all__ = ["ArchiveError", "json_in_zip", "table_members"]

_MOST_BYTES = 16 << 20  # of a JSON file; a decompression bomb would fill the memory

_TABLES = {".csv", ".tsv", ".txt", ".dat", ".data", ".log"}
_SURE_TABLES = {".csv", ".tsv"}
_NO_TABLES = {
    ".json", ".jsonl", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".xml", ".html", ".htm", ".md", ".rst", ".pdf",
    ".py", ".m", ".sh", ".urdf", ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".svg",
    ".mp4", ".avi", ".mkv", ".mov", ".npy", ".npz", ".mat", ".h5", ".hdf5", ".bag", ".mcap", ".db3", ".pkl",
}  # fmt: skip


class ArchiveError(Exception):
    """An archive does not hold what is looked for. The message says what it holds instead."""


def table_members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Returns the members that may be the archive's table; exactly one if the table is certain.

    A file of a kind that is no table (JSON, images) never is one. Among several others, a CSV goes before plain text
    (a README), and text before files of an unknown kind.
    """
    found = [member for member in _files(archive) if _suffix(member) not in _NO_TABLES]
    for suffixes in (_SURE_TABLES, _TABLES):
        likely = [member for member in found if _suffix(member) in suffixes]
        if len(found) > 1 and likely:
            return likely
    return found


def json_in_zip(path: Path) -> bytes:
    """Returns the one JSON file in an archive: the metadata that a recorder packs beside its table.

    Raises:
        ArchiveError: the archive holds none or several, or cannot be read.
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in _files(archive) if _suffix(member) == ".json"]
            if len(members) != 1:
                raise ArchiveError(f"{len(members)} JSON files")
            with archive.open(members[0]) as file:
                content = file.read(_MOST_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: a password is asked for
        raise ArchiveError(str(error) or type(error).__name__) from None
    if len(content) > _MOST_BYTES:
        raise ArchiveError(f"{members[0].filename} of more than {_MOST_BYTES} bytes")
    return content


def _files(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Returns all members but folders and the files that macOS or Windows adds to an archive."""
    return [
        member
        for member in archive.infolist()
        if not member.is_dir()
        and not member.filename.startswith("__MACOSX/")
        and not PurePosixPath(member.filename).name.startswith(".")
        and PurePosixPath(member.filename).name.lower() not in ("thumbs.db", "desktop.ini")
    ]


def _suffix(member: zipfile.ZipInfo) -> str:
    return PurePosixPath(member.filename).suffix.lower()

"""The one check for every path that a user gives: a path of this machine, or the address of a store (``s3://…``)."""

from __future__ import annotations

import os
import re
from pathlib import Path, PosixPath

from vlapipe.schemas.errors import UsageError

__all__ = ["Address", "dataset_path", "local_path"]

# pathlib turns s3://x into s3:/x and would create a folder named "s3:". One letter before ":/" is a Windows drive.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_LOCAL = re.compile(r"file:/+", re.IGNORECASE)
_STORE = re.compile(r"(s3|gs|az):/+([^/@?#]+)((?:/[^/?#]+)*)/*")


class Address(PosixPath):
    """The address of a folder in a store, such as ``s3://bucket/robots``. It has no files; see ``shards.stores``."""

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    @property
    def scheme(self) -> str:
        """Returns ``s3``, ``gs`` or ``az``."""
        return self.parts[0].rstrip(":")

    @property
    def bucket(self) -> str:
        """Returns the name of the bucket, or of the container on Azure."""
        return self.parts[1]

    @property
    def prefix(self) -> str:
        """Returns what the names of the folder's objects begin with, without the last slash."""
        return "/".join(self.parts[2:])


def dataset_path(path: str | os.PathLike[str], what: str = "") -> Path:
    """Returns ``path`` as an ``Address`` if it names a folder of a store, else as a path of the local file system.

    ``what`` is the option or argument that gave the path.

    Raises:
        UsageError: ``path`` is an address that is not of a store that vlapipe knows, or holds a password.
    """
    text = os.fspath(path)
    if not _ADDRESS.match(text):
        return Path(path)
    if _LOCAL.match(text):
        return Path(_LOCAL.sub("/", text))
    match = _STORE.fullmatch(text)
    if match is None:
        cure = "stores are s3://bucket/folder, gs://bucket/folder and az://container/folder"
        raise UsageError(f"{what} {_shown(text)}: not the address of a store's folder".lstrip(), cure)
    if any(part in (".", "..") for part in match[3].split("/")):
        raise UsageError(f"{what} {_shown(text)}: has . or .. in it".lstrip(), "give the address without")
    return Address(f"{match[1]}:/{match[2]}{match[3]}")


def local_path(path: str | os.PathLike[str], what: str = "") -> Path:
    """Returns ``path`` as a path of the local file system; ``what`` is the option or argument that gave the path.

    Raises:
        UsageError: ``path`` is the address of a store.
    """
    text = os.fspath(path)
    if _ADDRESS.match(text):
        cure = "give the path alone" if _LOCAL.match(text) else "give a folder or file of this machine, or mount it"
        raise UsageError(f"{what} {_shown(text)}: a store cannot be used for this".lstrip(), cure)
    return Path(path)


def _shown(text: str) -> str:
    """Return an address as users write it, without what stands before an @: it may be a password."""
    text = text if "://" in text else text.replace(":/", "://", 1)
    return re.sub(r"(?<=://)[^/]*@", "…@", text)

"""The one check for every path that a user gives. Addresses of stores (``s3://bucket/x``) are not supported yet."""

from __future__ import annotations

import os
import re
from pathlib import Path

from vlapipe.schemas.errors import UsageError

__all__ = ["local_path"]

# pathlib turns s3://x into s3:/x and would create a folder named "s3:". One letter before ":/" is a Windows drive.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_LOCAL = re.compile(r"file:/+", re.IGNORECASE)


def local_path(path: str | os.PathLike[str], what: str = "") -> Path:
    """Returns ``path`` as a path of the local file system; ``what`` is the option or argument that gave the path.

    Raises:
        UsageError: ``path`` is the address of a store.
    """
    text = os.fspath(path)
    if _ADDRESS.match(text):
        cure = "give the path alone" if _LOCAL.match(text) else "give a folder or file of this machine, or mount it"
        shown = text if "://" in text else text.replace(":/", "://", 1)
        raise UsageError(f"{what} {shown}: stores are not supported yet".lstrip(), cure)
    return Path(path)

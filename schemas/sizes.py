"""Parses sizes as people type them: 256MB, 1.5 GiB."""

from __future__ import annotations

import re

from vlapipe.schemas.errors import UsageError

__all__ = ["parse_size"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?\Z", re.IGNORECASE)
_PREFIX = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_size(text: str) -> int:
    """Returns the bytes of a size such as 256MB (powers of 1000) or 256MiB (powers of 1024).

    Raises:
        UsageError: the text is not a size, or the size is more than any disk holds.
    """
    match = _SIZE.match(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a size", "write for example 256MB")
    size = float(match[1]) * (1024 if match[3] else 1000) ** _PREFIX[match[2].lower()]
    if size >= 2**63:
        raise UsageError(f"{text!r} is more than any disk holds", "write for example 256MB")
    return int(size)

"""JSON files whose last entry is their own digest, so that one flipped bit in them is found.

The entry ``sha256`` is the SHA-256 of all lines of the file but the last two: ``head -n -2 FILE | sha256sum``. Files
that an older vlapipe wrote have no such entry.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["SEAL", "Seal", "is_cut", "is_sealed", "sealed_json"]

SEAL = "sha256"  # the last entry's name
_LAST_LINES = re.compile(rb' ?"sha256": "([0-9a-f]{64})"\n\}\n\Z')
_MOST_BYTES = 100  # of the last two lines
_END = b"\n}\n"


def sealed_json(document: dict[str, Any], *, indent: int) -> bytes:
    """Returns the document as JSON that ends with its own digest. Equal documents give equal bytes."""
    lines = json.dumps(document, indent=indent).encode().removesuffix(b"\n}") + b",\n"
    digest = hashlib.sha256(lines).hexdigest()
    return lines + f'{" " * indent}"{SEAL}": "{digest}"\n}}\n'.encode()


@dataclass(frozen=True, kw_only=True)
class Seal:
    """What a file says of its own bytes. ``stated`` is ``None`` if the file ends without a well-formed digest."""

    stated: str | None
    computed: str

    @classmethod
    def of(cls, data: bytes) -> Seal:
        """Read the digest at the end of a file, and compute it."""
        match = _LAST_LINES.search(data, max(0, len(data) - _MOST_BYTES))
        lines = memoryview(data)[: match.start()] if match else data
        return cls(stated=match[1].decode() if match else None, computed=hashlib.sha256(lines).hexdigest())

    @property
    def is_broken(self) -> bool:
        """True if there is a digest, and it is not that of the file's bytes."""
        return self.stated not in (None, self.computed)


def is_cut(data: bytes) -> bool:
    """Returns whether the end of such a file is missing. One flipped bit in the last bytes is no cut."""
    return (int.from_bytes(data[-len(_END) :]) ^ int.from_bytes(_END)).bit_count() > 1


def is_sealed(path: Path) -> bool:
    """Returns whether the file ends with a digest, right or wrong. Only its end is read."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _MOST_BYTES))
        return _LAST_LINES.search(file.read()) is not None

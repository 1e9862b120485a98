"""Decides whether an episode trains or validates: by its own id alone, so that no other episode can move it."""

from __future__ import annotations

import hashlib

__all__ = ["split_of"]


def split_of(episode_id: str, val_fraction: float) -> str:
    """Which split an episode belongs to: by its own id and the fraction alone, so that no other episode can move it.

    The hash of the id is a number in [0, 1) that neither the time of recording nor the task decides. The episodes
    below ``val_fraction`` validate: about that share of many, of a few perhaps none.
    """
    sha = hashlib.sha256(f"vlapipe.split{episode_id}".encode(errors="surrogateescape"))
    return "val" if int.from_bytes(sha.digest()[:8]) < val_fraction * 2**64 else "train"

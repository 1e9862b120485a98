"""Decides whether an episode is for training or validation. Only the episode's own id decides, not other episodes."""

from __future__ import annotations

import hashlib

__all__ = ["split_of"]


def split_of(episode_id: str, val_fraction: float) -> str:
    """Return the split of an episode.

    The split depends only on the episode's own id and ``val_fraction``, so other episodes cannot change it. A hash of
    the id gives a number in [0, 1), independent of recording time and task. An episode whose number is below
    ``val_fraction`` is for validation: about that fraction of many episodes, perhaps none of a few.
    """
    sha = hashlib.sha256(f"vlapipe.split{episode_id}".encode(errors="surrogateescape"))
    return "val" if int.from_bytes(sha.digest()[:8]) < val_fraction * 2**64 else "train"

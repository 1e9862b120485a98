"""Finds the newest whole checkpoint of a run: a damaged one is named, set aside and never loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vlapipe.schemas.errors import DamageError
from vlapipe.train.checkpoint.files import (
    StoredCheckpoint,
    all_checkpoints,
    checkpoint_path,
    damage_of,
    open_checkpoint,
    step_of,
)
from vlapipe.train.parallel.ranks import Ranks, agree, gather_bytes

__all__ = ["newest_whole"]

_ASIDE = ".damaged"


def newest_whole(newest: Path, ranks: Ranks, say: Callable[[str], None]) -> StoredCheckpoint:
    """Returns the newest whole checkpoint, beginning with ``newest``. A collective; each rank verifies some files.

    Damaged checkpoints that are newer get another name, so that the run does not count them among its own.

    Raises:
        DamageError: no checkpoint is whole.
        NewerFormatError: a newer vlapipe wrote the checkpoint.
    """
    out, damages = newest.parent.parent, dict[Path, str]()
    for path in _candidates(newest, ranks):
        with agree(ranks):
            stored, found = _opened(path)
            if stored is not None:
                found = damage_of(stored, sorted(stored.files)[ranks.rank :: ranks.world_size])
        damage = next((text.decode() for text in gather_bytes(found.encode(), ranks) if text), "")
        if not damage and stored is not None:
            with agree(ranks):
                if ranks.is_first:
                    for damaged, why in damages.items():
                        aside = _set_aside(damaged)
                        say(f"damaged: {why}; set aside as {aside.name}, the run goes on from {path.name}")
            return stored
        damages[path] = damage
    raise DamageError(
        f"{out}: no checkpoint is whole: {'; '.join(damages.values())}",
        "restore one from a copy, or begin a new run with another --out",
    )


def _candidates(newest: Path, ranks: Ranks) -> list[Path]:
    """Returns the checkpoints up to ``newest`` that rank 0 sees, newest first; a collective."""
    out = newest.parent.parent
    found = [step_of(path) for path in all_checkpoints(out) if step_of(path) <= step_of(newest)]
    steps = gather_bytes(" ".join(map(str, found if ranks.is_first else [])).encode(), ranks)[0].split()
    return [checkpoint_path(out, int(step)) for step in reversed(steps)]


def _opened(path: Path) -> tuple[StoredCheckpoint | None, str]:
    try:
        return open_checkpoint(path), ""
    except DamageError as error:
        return None, error.problem


def _set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint. Its files stay for whoever wants to rescue something."""
    number, aside = 1, path.with_name(f"{path.name}{_ASIDE}")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}{_ASIDE}-{number}")
    return path.rename(aside)

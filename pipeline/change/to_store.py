"""Puts a dataset that was made in a folder into a store, where there is none yet."""

from __future__ import annotations

from pathlib import Path

from vlapipe.pipeline.shards.manifest.generations import GENERATIONS, MANIFEST, generation_file, generations
from vlapipe.pipeline.shards.manifest.history import HISTORY
from vlapipe.pipeline.shards.manifest.manifest import MADE_FROM, REJECTS, SHARD_FOLDER, is_table
from vlapipe.pipeline.shards.stores.copies import Copy
from vlapipe.pipeline.shards.stores.upload import upload
from vlapipe.schemas.errors import UsageError

__all__ = ["holds_dataset", "require_free", "to_store"]

_OURS = (MANIFEST, MADE_FROM, REJECTS)


def holds_dataset(copy: Copy) -> bool:
    """Return whether the store has a dataset at the address."""
    return MANIFEST in copy.names() or bool(generations(copy.folder))


def require_free(copy: Copy) -> None:
    """Refuse an address where something else lies than what a killed upload left.

    Raises:
        UsageError: there is something else.
    """
    others = sorted(name for name in copy.names() if name not in _OURS and not is_table(name))
    if others:
        problem = f"--out {copy.store.address}: holds something else: {others[0]}"
        raise UsageError(problem, "choose a folder that is not there yet")


def to_store(made: Path, copy: Copy) -> None:
    """Put every file of a finished dataset into the store, its manifest last: until then there is no dataset.

    Raises:
        UsageError: another command has made a dataset there meanwhile.
        StoppedError: the store refuses, or has not answered for too long. Called again, this goes on.
    """
    store, there = copy.store, generations(made)
    upload(store, (made / SHARD_FOLDER).glob("shard-*"), SHARD_FOLDER)
    upload(store, [file for file in made.iterdir() if is_table(file.name) or file.name == REJECTS])
    store.put(MADE_FROM, (made / MADE_FROM).read_bytes())
    if (made / HISTORY).is_dir():
        upload(store, (made / HISTORY).glob("*.json"), HISTORY)
    first = (made / (generation_file(1) if there else MANIFEST)).read_bytes()
    if not store.put_new(generation_file(1) if there else MANIFEST, first):
        problem = f"--out {store.address}: another command has made a dataset there meanwhile"
        raise UsageError(problem, "run the same command again: it adds what is new")
    if there:
        upload(store, [made / generation_file(number) for number in there[1:]], GENERATIONS)
        store.put(MANIFEST, (made / MANIFEST).read_bytes())

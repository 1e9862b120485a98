"""Fetches recordings that lie in a store: an ingest reads files of a folder, so the folder is copied first.

The copy stays in the user's cache. The next ingest fetches what is new or has another size or date, and removes what
the store no longer has; an interrupted copy goes on.
"""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

from vlapipe.pipeline.shards.format.atomic import sweep_temporaries, temporary_file
from vlapipe.pipeline.shards.ordered_map import in_order
from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.pipeline.shards.stores.copies import folder_name, user_cache
from vlapipe.pipeline.shards.stores.store import Store, StoredObject, leads_out
from vlapipe.schemas.errors import StoppedError, UsageError
from vlapipe.schemas.paths import Address
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["fetch_recordings"]

_AT_ONCE = 16  # files: recordings have many small ones
_MB = 1_000_000


def fetch_recordings(address: Address) -> Path:
    """Returns a folder of this machine that holds what the store has below an address, or the file of this address.

    Raises:
        UsageError: there is nothing at the address, or a name leads out of the folder.
        StoppedError: the disk is full, or the store refuses or does not answer.
    """
    there = Store(address).walk()
    # A folder's name may be that of a task, so it stays.
    root = user_cache().absolute() / "recordings" / folder_name(address) / address.name
    if there:
        _fetch_all(Store(address), there, root)
        return root
    if address.prefix:
        above = Store(Address(*address.parts[:-1]))
        found = above.objects().get(address.name)
        if found is not None:
            root = root.with_name(above.address.name)
            _fetch_all(above, {address.name: found}, root)
            return root / address.name
    raise UsageError(f"{address}: there is nothing in the store", "check the address")


def _fetch_all(store: Store, there: dict[str, StoredObject], root: Path) -> None:
    for name in there:
        if leads_out(name):
            raise UsageError(f"{store.address}: a name in it leads out of the folder: {name}", "rename that object")
    try:
        _remove_others(root, there)
        missing = [name for name, each in there.items() if not _is_here(root / name, each)]
        num_bytes = sum(there[name].num_bytes for name in missing)
        root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(root).free
        if num_bytes > free:
            problem = f"{root}: has room for {free / _MB:,.0f} MB, and {num_bytes / _MB:,.0f} MB are to be fetched"
            raise StoppedError(problem, "choose another disk with $VLAPIPE_CACHE_DIR; the same command then goes on")
        for folder in {(root / name).parent for name in missing}:
            folder.mkdir(parents=True, exist_ok=True)
            sweep_temporaries(folder)
        done = 0
        jobs = (partial(_fetch, store, name, there[name], root / name) for name in missing)
        with Progress("fetch recordings", max(1, -(-num_bytes // _MB)), "megabyte") as progress:
            for size in in_order(jobs, _AT_ONCE):
                done += size
                progress.reach(min(progress.total, -(-done // _MB)))
    except OSError as error:
        raise_if_stopped(error, root)
        raise


def _remove_others(root: Path, there: dict[str, StoredObject]) -> None:
    for folder, _, files in os.walk(root, topdown=False):
        for file in files:
            path = Path(folder, file)
            if path.relative_to(root).as_posix() not in there:
                path.unlink()
        if Path(folder) != root and not any(Path(folder).iterdir()):
            Path(folder).rmdir()


def _is_here(path: Path, stored: StoredObject) -> bool:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return status.st_size == stored.num_bytes and status.st_mtime == stored.modified_s


def _fetch(store: Store, name: str, stored: StoredObject, path: Path) -> int:
    with temporary_file(path.parent) as (temporary, file):
        try:
            store.download(name, file, stored.num_bytes)
        except FileNotFoundError:
            raise StoppedError(f"{store.address}/{name}: was removed meanwhile", "run the same command again") from None
        os.utime(temporary, (stored.modified_s, stored.modified_s))
        temporary.rename(path)
    return stored.num_bytes

"""Puts files into a store: shards of a change, or a whole dataset that was made in a folder."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from vlapipe.pipeline.shards.progress_bar import Progress
from vlapipe.pipeline.shards.stores.store import Store

__all__ = ["upload"]

_MB = 1_000_000
_RECENT_S = 3600.0


def upload(store: Store, files: Iterable[Path], folder: str = "") -> None:
    """Put files into a folder of the store. One that is there with the same size is left: names have digests.

    One that was put there long ago is put again, so that gc of another machine does not take it for a left one.

    Raises:
        StoppedError: the store refuses, or has not answered for too long. What is there already is not sent again.
    """
    there = store.objects(folder)
    todo = {file: file.stat().st_size for file in sorted(files)}
    recent_s = time.time() - _RECENT_S
    there = {name: each for name, each in there.items() if each.modified_s > recent_s}
    todo = {f: size for f, size in todo.items() if f.name not in there or there[f.name].num_bytes != size}
    done = 0
    with Progress("upload", max(1, -(-sum(todo.values()) // _MB)), "megabyte") as progress:
        for file, size in todo.items():
            store.put(f"{folder}/{file.name}" if folder else file.name, file)
            done += size
            progress.reach(min(progress.total, -(-done // _MB)))

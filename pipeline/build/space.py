"""Compares the bytes that an ingest is going to write with the space that its disk has."""

from __future__ import annotations

import shutil
from pathlib import Path

from vlapipe.pipeline.discover.file_kinds import suffix_of
from vlapipe.pipeline.discover.many_files import sizes_of
from vlapipe.pipeline.plan.plan import Plan, PlannedShard
from vlapipe.pipeline.shards.manifest.manifest import SHARD_FOLDER
from vlapipe.schemas.errors import StoppedError

__all__ = ["no_room", "require_room", "room_for"]

_IMAGES = (".jpg", ".jpeg", ".png")
_SURE = 0.8  # of the images: some episodes may be set aside


def room_for(dataset: Path) -> int:
    """Return the bytes that a dataset may take: what is free on its disk, and what its shards take already."""
    there = dataset.absolute()
    while not there.exists():
        there = there.parent
    shards = (dataset / SHARD_FOLDER).glob("shard-*")
    return shutil.disk_usage(there).free + sum(shard.stat().st_size for shard in shards)


def no_room(
    dataset: Path, num_bytes: float, room: int, cure: str = "free some space there, or choose another --out"
) -> StoppedError:
    """Return the error of a command whose output does not fit."""
    problem = f"{dataset}: has room for {room / 1e6:,.0f} MB, and about {num_bytes / 1e6:,.0f} MB are to be written"
    return StoppedError(problem, f"{cure}; the same command then goes on")


def require_room(folder: Path, plan: Plan, shards: list[PlannedShard]) -> None:
    """Refuse shards that surely do not fit, before any recording is read.

    Only images that are stored as they were recorded are counted, because nobody knows how small other values become.

    Raises:
        StoppedError: the disk has too little space for these images.
    """
    if not (plan.images.keeps("jpeg") and plan.images.keeps("png")):
        return
    cameras = {camera for each in plan.cameras.values() for camera in each}
    num_bytes = _SURE * sum(
        size
        for shard in shards
        for episode in shard.episodes
        for camera in cameras & episode.files.keys()
        for path, size in sizes_of(episode.files[camera]).items()
        if suffix_of(path) in _IMAGES
    )
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise no_room(folder, num_bytes, free)

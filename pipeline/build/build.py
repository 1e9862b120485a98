"""Builds one shard: reads its episodes, sets the broken ones aside, writes the good ones, and leaves a commit record.

Runs in a worker process; what it returns is plain data, the same as the record on disk.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.build.record import Record, ShardRecord
from vlapipe.pipeline.discover.discovery import RawEpisode
from vlapipe.pipeline.plan.plan import PlannedShard
from vlapipe.pipeline.read.episode import Episode, read_episode
from vlapipe.pipeline.read.file_parts import files_kept
from vlapipe.pipeline.read.images.image_options import AS_RECORDED, ImageOptions
from vlapipe.pipeline.shards.derive.actions import ACTION_ROW
from vlapipe.pipeline.shards.format.atomic import write_bytes
from vlapipe.pipeline.shards.format.codec import Codec
from vlapipe.pipeline.shards.format.joined import Joined
from vlapipe.pipeline.shards.format.shard_file import stored_sizes, write_shard
from vlapipe.pipeline.shards.ordered_map import in_order
from vlapipe.pipeline.stream_rows import ImageRows
from vlapipe.schemas.errors import StoppedError
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import Schema
from vlapipe.schemas.surroundings import raise_if_stopped

__all__ = ["RecordFile", "ShardTask", "build_shard"]


@dataclass(frozen=True, kw_only=True)
class RecordFile:
    """Where a shard and its commit record go."""

    shards: Path
    records: Path


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """What a worker needs to build one shard; without ``place`` it only reads and checks."""

    root: Path
    schema: Schema
    cameras: dict[str, tuple[str, ...]]
    shard: PlannedShard
    shard_format: str
    codec: Codec
    place: RecordFile | None
    images: ImageOptions = AS_RECORDED
    num_threads: int = 1  # read episodes, and compress; what is written does not depend on it


def build_shard(task: ShardTask, on_episode: Callable[[], None] | None = None) -> Record:
    """Read, check and (unless it is a dry run) write one shard; ``on_episode`` is called after each episode read.

    Returns:
        ``shard`` (file, bytes, sha256, arrays; ``None`` if nothing was written), ``episodes`` (a row each),
        ``rejects``, ``findings`` of kept episodes, ``statistics`` over the train split, and in a dry run ``sample``:
        what it would take to write one episode.

    Raises:
        StoppedError: this machine does not reach the folders, or its disk, memory or a limit failed.
    """
    _require_folders(task)
    parts: dict[str, list[NDArray[Any]]] = {}
    sample: Record | None = None
    described = ShardRecord(task.schema)
    rejects: list[Record] = []
    kept_findings: list[Record] = []
    jobs = (partial(_read_safely, task, raw) for raw in task.shard.episodes)
    read = in_order(jobs, task.num_threads)
    with files_kept(task.root, task.shard.episodes, task.schema, task.images):
        for raw, split, (episode, findings) in zip(task.shard.episodes, task.shard.splits, read, strict=True):
            reasons = [finding.to_dict() for finding in findings]
            if episode is None:
                rejects.append({"episode": raw.id, "task": raw.task, "reasons": reasons})
            else:
                if task.place is None:
                    sample = sample or _write_nowhere(task, episode)
                else:
                    for name, array in _arrays_of(episode):
                        parts.setdefault(name, []).append(array)
                described.add(episode, split)
                kept_findings += [{"episode": raw.id, **reason} for reason in reasons]
            if on_episode:
                on_episode()
    record: Record = {
        "index": task.shard.index,
        "shard": None,
        "episodes": described.rows,
        "rejects": rejects,
        "findings": kept_findings,
        "statistics": described.statistics(task.num_threads),
    }
    if task.place is None:
        return {**record, "sample": sample}
    if not parts:
        return record
    stored = write_shard(
        task.place.shards,
        task.shard.index,
        _join(parts),
        shard_format=task.shard_format,
        codec=task.codec,
        num_threads=task.num_threads,
    )
    record |= {"plan": task.shard.digest, "shard": vars(stored)}
    write_bytes(task.place.records / f"shard-{task.shard.index:05d}.json", json.dumps(record).encode())
    return record


def _require_folders(task: ShardTask) -> None:
    """A worker on another machine may not have them, and a disk may be gone meanwhile."""
    for folder in (task.root, *(() if task.place is None else (task.place.shards, task.place.records))):
        if not folder.is_dir():
            cure = "attach or mount it there under this path; the same command then goes on"
            raise StoppedError(f"{folder}: no such folder on {socket.gethostname()}", cure)


def _read_safely(task: ShardTask, raw: RawEpisode) -> tuple[Episode | None, Findings]:
    findings = Findings(task.schema.checks.severity)
    try:
        episode = read_episode(task.root, raw, task.schema, task.cameras, findings, task.images)
    except (StoppedError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - one episode that we cannot read must not end a run of thousands
        raise_if_stopped(error, raw.folder)  # but it must not be lost because others took the memory, say
        findings.add("episode.failed", raw.folder, found=f"{type(error).__name__}: {error}")
        episode = None
    if episode is None:
        _require_folders(task)  # else the disk is at fault, not the episode
    return episode, findings


def _write_nowhere(task: ShardTask, episode: Episode) -> Record:
    """Rows and stored bytes by stream, and the seconds to encode them: one episode, for an estimate of the whole."""
    began = time.perf_counter()
    stored_bytes = stored_sizes(dict(_arrays_of(episode)), shard_format=task.shard_format, codec=task.codec)
    return {
        "rows": {name: stream.num_rows for name, stream in episode.streams.items()},
        "stored_bytes": stored_bytes,
        "seconds": time.perf_counter() - began,
    }


def _arrays_of(episode: Episode) -> Iterator[tuple[str, NDArray[Any]]]:
    """All that a shard keeps of an episode; the text that it was read from can go."""
    for name, stream in episode.streams.items():
        yield f"{name}/timestamp", stream.timestamp
        if isinstance(stream, ImageRows):
            yield from ((f"{name}/{array}", values) for array, values in stream.arrays.items())
        else:
            yield from ((f"{name}/{field}", values) for field, values in stream.fields.items())
    yield from ((f"align/{name}", rows) for name, rows in episode.align.items())
    yield ACTION_ROW, episode.action_row


def _join(parts: dict[str, list[NDArray[Any]]]) -> dict[str, Joined]:
    """All arrays of a shard, the episodes end to end; ``align`` and ``action/row`` stay local to their episode."""
    arrays: dict[str, Joined] = {}
    for name, each in parts.items():
        is_offset = name.endswith("/offset") and name.replace("/offset", "/bytes") in parts
        arrays[name] = Joined([_join_offsets(each)] if is_offset else each)
    return arrays


def _join_offsets(offsets: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    ends = np.cumsum([0, *(int(offset[-1]) for offset in offsets)])
    return np.concatenate([[0], *(offset[1:] + end for offset, end in zip(offsets, ends[:-1], strict=True))])

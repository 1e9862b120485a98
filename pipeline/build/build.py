"""Builds one shard: reads its episodes, sets broken ones aside, writes the good ones, and writes a commit record.

This module runs in a worker process. ``build_shard`` returns plain data, the same as the record on disk.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.build.estimate import decode_seconds
from vlapipe.pipeline.build.record import Record, ShardRecord, record_file
from vlapipe.pipeline.discover.discovery import RawEpisode
from vlapipe.pipeline.long_images import LongImages
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

__all__ = ["RecordFile", "ShardTask", "build_shard", "join_arrays"]


@dataclass(frozen=True, kw_only=True)
class RecordFile:
    """The folders that a shard and its commit record are written to."""

    shards: Path
    records: Path


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """Everything a worker needs to build one shard. If ``place`` is ``None``, the worker only reads and checks."""

    root: Path
    schema: Schema
    cameras: dict[str, tuple[str, ...]]
    shard: PlannedShard
    shard_format: str
    codec: Codec
    place: RecordFile | None
    images: ImageOptions = AS_RECORDED
    harmful: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # episodes not to be read: code and cause
    num_threads: int = 1  # threads that read episodes and compress; the number does not change what is written


def build_shard(task: ShardTask, on_episode: Callable[[], None] | None = None) -> Record:
    """Read and check the episodes of one shard, and write the shard unless this is a dry run.

    ``on_episode`` is called after each episode is read.

    Returns:
        A record with the entries ``shard`` (file, bytes, sha256, arrays; ``None`` if nothing was written), ``episodes``
        (one row each), ``rejects``, ``findings`` of kept episodes, and ``statistics`` over the train split. A dry run
        adds ``sample``: the rows, stored bytes and encoding seconds of one episode for each stream.

    Raises:
        StoppedError: a folder cannot be reached from this machine, or its disk, memory or a limit failed.
    """
    _require_folders(task)
    with LongImages(None if task.place is None else task.place.records) as long_images:
        return _build(task, long_images, on_episode)


def _build(task: ShardTask, long_images: LongImages, on_episode: Callable[[], None] | None) -> Record:
    parts: dict[str, list[NDArray[Any]]] = {}
    nothing: dict[str, list[NDArray[Any]]] = {}  # of cameras that an episode lacks
    cameras: dict[str, _Kind] = {}
    sample: Record | None = None
    described = ShardRecord(task.schema)
    rejects: list[Record] = []
    kept_findings: list[Record] = []
    jobs = (partial(_read_safely, task, raw, long_images) for raw in task.shard.episodes)
    read = in_order(jobs, task.num_threads)
    with files_kept(task.root, task.shard.episodes, task.schema, task.images):
        for raw, split, (episode, findings) in zip(task.shard.episodes, task.shard.splits, read, strict=True):
            if episode is not None and not _fits(episode, cameras, findings):
                episode = None
            reasons = [finding.to_dict() for finding in findings]
            if episode is None:
                rejects.append({"episode": raw.id, "task": raw.task, "reasons": reasons})
            else:
                if task.place is None:
                    sample = _write_nowhere(task, episode, sample)
                else:
                    for name, array in _arrays_of(episode):
                        into = nothing if _is_of_absent(episode, name) else parts
                        into.setdefault(name, []).append(array)
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
        join_arrays(parts | {name: each for name, each in nothing.items() if name.partition("/")[0] not in cameras}),
        shard_format=task.shard_format,
        codec=task.codec,
        num_threads=task.num_threads,
    )
    record |= {"plan": task.shard.digest, "shard": vars(stored)}
    write_bytes(record_file(task.place.records, task.shard.index), json.dumps(record).encode())
    return record


_Kind = tuple[bool, tuple[int, ...], Any]  # whether images are pixels, and then the shape and type of one


def _fits(episode: Episode, cameras: dict[str, _Kind], findings: Findings) -> bool:
    """Returns whether a camera's images can stand beside those of earlier episodes in one array; reports those not.

    ``cameras`` has the kind of each camera's images so far, and takes that of the episode.
    """
    kinds: dict[str, _Kind] = {}
    for name, rows in episode.streams.items():
        if not isinstance(rows, ImageRows) or not rows.num_rows:
            continue
        kind: _Kind = (True, rows.data.shape[1:], rows.data.dtype) if rows.offset is None else (False, (), None)
        before = kinds[name] = cameras.get(name, kind)
        if before[0] != kind[0]:
            expected, found = ("pixels" if each[0] else "files" for each in (before, kind))
            findings.add("image.storage_differs", rows.source.path, expected=expected, found=found)
        elif before != kind:
            expected, found = (f"{shape[1]}x{shape[0]}" for _, shape, _ in (before, kind))
            expected += ", as in the episodes before"
            findings.add("image.size_differs", rows.source.path, expected=expected, found=found)
    if findings.errors:
        return False
    cameras |= kinds
    return True


def _is_of_absent(episode: Episode, name: str) -> bool:
    """Returns whether an array belongs to a camera of which the episode has no image."""
    camera, _, array = name.partition("/")
    rows = episode.streams.get(camera)
    return isinstance(rows, ImageRows) and not rows.num_rows and array in ("bytes", "offset", "pixels")


def _require_folders(task: ShardTask) -> None:
    """Raise an error if a folder is missing: a worker's machine may not mount it, or a disk may have gone since."""
    for folder in (task.root, *(() if task.place is None else (task.place.shards, task.place.records))):
        if not folder.is_dir():
            cure = "attach or mount it there under this path; the same command then goes on"
            raise StoppedError(f"{folder}: no such folder on {socket.gethostname()}", cure)


def _read_safely(task: ShardTask, raw: RawEpisode, long_images: LongImages) -> tuple[Episode | None, Findings]:
    findings = Findings(task.schema.checks.severity)
    if raw.id in task.harmful:
        code, found = task.harmful[raw.id]
        findings.add(code, _place_of(task, raw), found=found)
        return None, findings
    try:
        with long_images.of_this_thread():
            episode = read_episode(task.root, raw, task.schema, task.cameras, findings, task.images)
    except (StoppedError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - one episode that we cannot read must not end a run of thousands
        raise_if_stopped(error, raw.folder)  # not the episode's fault if memory ran out, for example
        findings.add("episode.failed", _place_of(task, raw), found=f"{type(error).__name__}: {error}")
        episode = None
    if episode is None:
        _require_folders(task)  # if the folder is gone, the disk is at fault and not the episode
    return episode, findings


def _place_of(task: ShardTask, raw: RawEpisode) -> str:
    files = raw.files[task.schema.anchor]
    return files[0].path if len(files) == 1 else raw.folder


def _write_nowhere(task: ShardTask, episode: Episode, before: Record | None) -> Record:
    """Encode one episode without writing it, and return the figures from which the whole run is estimated.

    The entries are ``rows`` and ``stored_bytes`` by stream, and the ``seconds`` that encoding took. Of an episode after
    the first one, only streams that all episodes ``before`` lacked are encoded.
    """
    sample = before or {"rows": {}, "stored_bytes": {}, "seconds": 0.0, "decode_s": {}}
    rows = {name: stream.num_rows for name, stream in episode.streams.items() if stream.num_rows}
    fresh = rows.keys() - sample["rows"].keys()
    if not fresh:
        return sample
    wanted = fresh if before else {*fresh, "align", "action"}
    began = time.perf_counter()
    arrays = {name: array for name, array in _arrays_of(episode) if name.partition("/")[0] in wanted}
    stored_bytes = stored_sizes(arrays, shard_format=task.shard_format, codec=task.codec)
    cameras = {name: each for name in fresh if isinstance(each := episode.streams[name], ImageRows)}
    return {
        "decode_s": {name: decode_seconds(each) for name, each in cameras.items()} | sample["decode_s"],
        "rows": rows | sample["rows"],
        "stored_bytes": stored_bytes | sample["stored_bytes"],
        "seconds": sample["seconds"] + time.perf_counter() - began,
    }


def _arrays_of(episode: Episode) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the name and values of every array that a shard stores of an episode.

    The caller keeps only these arrays, so that the source text of the episode can be freed.
    """
    for name, stream in episode.streams.items():
        yield f"{name}/timestamp", stream.timestamp
        if isinstance(stream, ImageRows):
            yield from ((f"{name}/{array}", values) for array, values in stream.arrays.items())
        else:
            yield from ((f"{name}/{field}", values) for field, values in stream.fields.items())
    yield from ((f"align/{name}", rows) for name, rows in episode.align.items())
    yield ACTION_ROW, episode.action_row


def join_arrays(parts: dict[str, list[NDArray[Any]]]) -> dict[str, Joined]:
    """Join the arrays of a shard's episodes end to end.

    ``align`` and ``action/row`` keep row numbers that count from the start of their own episode.
    """
    arrays: dict[str, Joined] = {}
    for name, each in parts.items():
        is_offset = name.endswith("/offset") and name.replace("/offset", "/bytes") in parts
        arrays[name] = Joined([_join_offsets(each)] if is_offset else each)
    return arrays


def _join_offsets(offsets: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    ends = np.cumsum([0, *(int(offset[-1]) for offset in offsets)])
    return np.concatenate([[0], *(offset[1:] + end for offset, end in zip(offsets, ends[:-1], strict=True))])

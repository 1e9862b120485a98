"""Decides from the input alone which shard and which split each episode goes to. Workers do not take part in this."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

from vlapipe.pipeline.discover.discovery import Discovery, RawEpisode
from vlapipe.pipeline.discover.many_files import first_of, sizes_of
from vlapipe.pipeline.discover.packed import Packed
from vlapipe.pipeline.plan.image_sample import ImageSample, look_at_images
from vlapipe.pipeline.plan.split import split_of
from vlapipe.pipeline.read.images.image_options import AS_RECORDED, ImageOptions, ImageSize
from vlapipe.schemas.errors import UsageError
from vlapipe.schemas.schema import CsvStream, ImageStream, Schema

__all__ = ["MOST_EPISODES", "Given", "Plan", "PlannedShard", "make_plan"]

MOST_EPISODES = 1000  # of a shard: tiny episodes would otherwise make one shard, which one worker builds in memory
_CSV_SHRINKS = 8  # CSV text is about this many times as large as its stored bytes; used only to fill shards evenly


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """The episodes of one shard, in order, with the split of each."""

    index: int
    episodes: Sequence[RawEpisode]
    splits: tuple[str, ...]
    digest: str  # digest of the shard's input and of every option that changes its bytes


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that workers must know about the whole ingest."""

    root: Path
    schema: Schema
    cameras: dict[str, tuple[str, ...]]
    images: ImageOptions
    shards: tuple[PlannedShard, ...]


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a dataset that grows has decided already: its cameras and their sizes, splits by episode, the next number.

    ``splits`` has the episodes that an edit has moved; the ids of all others decide.
    """

    cameras: tuple[str, ...] | None = None
    camera_sizes: tuple[tuple[str, ImageSize], ...] = ()
    splits: Mapping[str, str] = field(default_factory=dict)
    first_shard: int = 0


def make_plan(
    discovery: Discovery,
    schema: Schema,
    *,
    shard_bytes: int,
    options: dict[str, str],
    images: ImageOptions = AS_RECORDED,
    given: Given | None = None,
) -> Plan:
    """Group episodes, ordered by id, into shards of about ``shard_bytes``, and of ``MOST_EPISODES`` at most.

    ``options`` do not change the grouping; they only enter the shards' digests. ``given`` is what the dataset that the
    shards are added to has decided.
    """
    given = given or Given()
    cameras = _expected_cameras(discovery, schema, given.cameras)
    of_videos = {s.name for s in schema.streams if s.kind == "video"}
    videos = {camera for name in of_videos for camera in cameras[name]}
    sample = look_at_images(discovery, [camera for each in cameras.values() for camera in each], images, videos)
    if given.camera_sizes:
        sample = replace(sample, images=replace(sample.images, camera_sizes=given.camera_sizes))
    stored = [images.described(), sample.images.camera_sizes]
    common = json.dumps([schema.toml, sorted(options.items()), sorted(cameras.items()), stored])
    shards = tuple(
        _plan_shard(i, group, schema.val_fraction, given.splits, common)
        for i, group in enumerate(_groups(discovery.episodes, schema, sample, shard_bytes), given.first_shard)
    )
    return Plan(root=discovery.root, schema=schema, cameras=cameras, images=sample.images, shards=shards)


def _groups(
    episodes: Sequence[RawEpisode], schema: Schema, sample: ImageSample, shard_bytes: int
) -> Iterator[list[RawEpisode]]:
    """Yield the episodes of one shard after another."""
    group: list[RawEpisode] = []
    filled = 0
    for episode in episodes:
        size = _expected_bytes(episode, schema, sample)
        if group and (filled + size > shard_bytes or len(group) == MOST_EPISODES):
            yield group
            group, filled = [], 0
        group.append(episode)
        filled += size
    yield group


def _plan_shard(
    index: int, episodes: list[RawEpisode], val_fraction: float, given: Mapping[str, str], common: str
) -> PlannedShard:
    ours = tuple(given.get(episode.id) or split_of(episode.id, val_fraction) for episode in episodes)
    sha = hashlib.sha256(json.dumps([common, index, ours]).encode())
    for episode in episodes:
        described = [episode.id, episode.task, episode.files_digest, episode.rows, episode.entry, episode.numbers]
        described += [part for part in (episode.group, episode.times, episode.says and astuple(episode.says)) if part]
        sha.update(json.dumps(described).encode())
    return PlannedShard(index=index, episodes=Packed(episodes), splits=ours, digest=sha.hexdigest())


def _expected_bytes(episode: RawEpisode, schema: Schema, sample: ImageSample) -> int:
    text = {stream.name for stream in schema.streams if isinstance(stream, CsvStream)}
    readers = Counter(path for files in episode.files.values() for path in sizes_of(files))
    size = 0
    for name, files in episode.files.items():
        num_bytes = sample.stored_bytes(name, files)
        if files:
            num_bytes //= readers[first_of(files)]  # streams of one container share its bytes
        size += int((num_bytes // _CSV_SHRINKS if name in text else num_bytes) * episode.share_of(name))
    return size


def _expected_cameras(
    discovery: Discovery, schema: Schema, given: tuple[str, ...] | None
) -> dict[str, tuple[str, ...]]:
    """Return the cameras of a dataset, by stream: an episode must have them unless the stream is optional.

    ``given`` are the cameras of the dataset that grows, if there is one; new episodes do not change them.

    These are the cameras that the schema lists, or else the cameras that at least half of the episodes have. Of an
    optional stream, they are all cameras that an episode may have: by default those that any episode has.
    """
    cameras: dict[str, tuple[str, ...]] = {}
    taken = {stream.name for stream in schema.streams}
    seen_in = {stream.name: Counter[str]() for stream in schema.streams}
    if any(isinstance(stream, ImageStream) and stream.many_cameras for stream in schema.streams):
        for episode in discovery.episodes:
            for name, ours in episode.cameras.items():
                seen_in[name].update(ours)
    for stream in schema.streams:
        if not isinstance(stream, ImageStream):
            continue
        if not stream.many_cameras:
            cameras[stream.name] = (stream.name,)
            continue
        seen = seen_in[stream.name]
        least = 1 if stream.optional else len(discovery.episodes) / 2
        common = tuple(sorted(camera for camera, count in seen.items() if count >= least))
        if given is not None:
            is_only_one = sum(isinstance(s, ImageStream) and s.many_cameras for s in schema.streams) == 1
            common = tuple(camera for camera in given if camera not in taken and (is_only_one or camera in seen))
        cameras[stream.name] = stream.cameras or common
        clash = sorted((taken - {stream.name}) & set(cameras[stream.name]))
        if clash:
            problem = f"camera {clash[0]!r} has the name of another stream"
            raise UsageError(problem, "call that stream something else in the schema")
        taken |= set(cameras[stream.name])
    return cameras

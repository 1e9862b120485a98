"""Tries a schema on the first episodes of a dataset: reads and checks as an ingest does, and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vlapipe.pipeline.build.build import ShardTask, build_shard
from vlapipe.pipeline.build.record import Record
from vlapipe.pipeline.discover.discovery import Discovery, RawEpisode
from vlapipe.pipeline.discover.file_tree import WholeTree
from vlapipe.pipeline.layouts.layouts import find_episodes
from vlapipe.pipeline.plan.chosen_episodes import choose_episodes, describe_episodes
from vlapipe.pipeline.plan.plan import make_plan
from vlapipe.pipeline.read.segments import cut_files, has_cameras, is_cut
from vlapipe.pipeline.shards.format.codec import parse_codec
from vlapipe.schemas.schema import Schema

__all__ = ["Trial", "try_schema"]

_ALL_BYTES = 1 << 62  # shard size large enough for all episodes that are tried


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Result for the first episodes: ``rejects``, and ``rows`` and ``findings`` of the good episodes."""

    discovery: Discovery
    tried: Sequence[RawEpisode]
    cameras: dict[str, tuple[str, ...]]
    rows: list[Record]
    rejects: list[Record]
    findings: list[Record]


def try_schema(root: Path, schema: Schema, *, num_episodes: int, tree: WholeTree | None = None) -> Trial:
    """Read the first episodes of a dataset. ``tree`` holds its files if they have been listed before.

    Raises:
        UsageError: the folder does not exist, or holds no episode.
    """
    discovery = find_episodes(root, schema, tree=tree)
    if not is_cut(schema):
        discovery = choose_episodes(describe_episodes(discovery, schema), schema, None)
    # A file with many episodes is cut only if the file is among those tried.
    few = cut_files(replace(discovery, episodes=discovery.episodes[:num_episodes]), schema)
    tried = few.episodes[:num_episodes]
    # Cameras whose names stand in containers are known only of the files tried.
    known = few if has_cameras(schema) else discovery
    plan = make_plan(known, schema, shard_bytes=_ALL_BYTES, options={})
    shard = replace(plan.shards[0], episodes=tried, splits=("val",) * len(tried))
    codec = parse_codec(None, "npz")
    record = build_shard(
        ShardTask(
            root=plan.root,
            schema=schema,
            cameras=plan.cameras,
            shard=shard,
            shard_format="npz",
            codec=codec,
            place=None,
        )
    )
    return Trial(
        discovery=discovery,
        tried=tried,
        cameras=plan.cameras,
        rows=record["episodes"],
        rejects=record["rejects"],
        findings=record["findings"],
    )

"""Chooses episodes by what was written down about them, before any recording is read, and names their tasks.

The metadata of an episode is read here only if the schema or the command needs it for that. An episode whose metadata
cannot be read stays; reading the episode then reports the fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from vlapipe.pipeline.discover.discovery import Discovery, RawEpisode, stream_name
from vlapipe.pipeline.discover.packed import Packed
from vlapipe.pipeline.plan.split import split_of
from vlapipe.pipeline.read.instruction import read_instructions
from vlapipe.pipeline.read.metadata import metadata_value, read_metadata, with_entries_of_table
from vlapipe.pipeline.shards.manifest.metadata_columns import PREFIX, flat_metadata, metadata_text
from vlapipe.pipeline.shards.manifest.where import Where
from vlapipe.pipeline.shards.ordered_map import in_order
from vlapipe.schemas.errors import UsageError, printable
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream, Schema
from vlapipe.schemas.templates import metadata_keys

__all__ = ["choose_episodes", "describe_episodes", "metadata_and_instruction"]

_THREADS = 8  # files of metadata read at the same time: on a network disk each takes milliseconds
_COLUMNS = ("id", "task", "split", "instruction")
_KEY = re.compile(r"\{metadata\.([^{}]*)\}")
_AFTER_READING = ("num_frames", "seconds", "num_left_out", "frame_start", "shard", "episode_index")


def describe_episodes(discovery: Discovery, schema: Schema) -> Discovery:
    """Returns the episodes with their entries in the table of metadata, and what the metadata calls tasks and cameras.

    Raises:
        UsageError: the table of metadata cannot be used.
    """
    discovery = with_entries_of_table(discovery, schema)
    if any(isinstance(stream, ImageStream) and stream.named_by for stream in schema.streams):
        discovery = replace(discovery, episodes=Packed(_in_threads(_with_camera_names, discovery, schema)))
    if not metadata_keys(schema.episodes.task):
        return discovery
    return replace(discovery, episodes=Packed(_in_threads(_with_task, discovery, schema)))


def _with_camera_names(discovery: Discovery, schema: Schema, raw: RawEpisode) -> RawEpisode:
    """Calls cameras as the metadata does. Cameras that the metadata does not name are left out, if it names any."""
    metadata = read_metadata(discovery.root, raw, Findings(schema.checks.severity))
    files, clocks, cameras = dict(raw.files), dict(raw.clock_files), dict(raw.cameras)
    for stream in schema.streams:
        if not isinstance(stream, ImageStream) or not stream.named_by:
            continue
        told = {name: stream_name(str(metadata_value(metadata, key))) for name, key in stream.named_by}
        named = {name: own for name, own in told.items() if own in raw.files}
        if not named:
            continue
        ours = {name: (files[own], clocks.get(own)) for name, own in named.items()}
        for own in raw.cameras[stream.name]:
            files.pop(own)
            clocks.pop(own, None)
        cameras[stream.name] = tuple(sorted(named))
        for name, (images, stamps) in sorted(ours.items()):
            files[name] = images
            clocks |= {name: stamps} if stamps is not None else {}
    return replace(raw, files=files, clock_files=clocks, cameras=cameras)


def _with_task(discovery: Discovery, schema: Schema, raw: RawEpisode) -> RawEpisode:
    """Fills in the metadata keys, which discovery has left in the task; of a missing key nothing is left."""
    metadata = read_metadata(discovery.root, raw, Findings(schema.checks.severity))

    def text(match: re.Match[str]) -> str:
        value = metadata_value(metadata, match[1])
        return "" if value is None else metadata_text(value)

    return replace(raw, task=printable(_KEY.sub(text, raw.task)).strip())


@dataclass(frozen=True, kw_only=True)
class _Described:
    """What ``where`` may ask of one episode: ``metadata`` by column name; ``is_faulty`` if it could not be read."""

    id: str
    task: str
    metadata: dict[str, Any]
    instruction: str
    is_faulty: bool


def choose_episodes(discovery: Discovery, schema: Schema, where: str | None) -> Discovery:
    """Returns the episodes of which the schema's ``where`` and the command's ``where`` are true.

    Raises:
        UsageError: an expression cannot be used, or fits no episode.
    """
    rules = [(schema.episodes.where, "where in the schema"), (where, "--where")]
    wheres = [Where.parse(text, what) for text, what in rules if text is not None]
    if not wheres:
        return discovery
    described = list(_in_threads(_describe, discovery, schema))
    for one in wheres:
        discovery, described = _fitting(discovery, schema, described, one)
    return discovery


def _fitting(
    discovery: Discovery, schema: Schema, described: list[_Described], where: Where
) -> tuple[Discovery, list[_Described]]:
    unknown = [name for name in where.names if name in _AFTER_READING]
    keys = {name for one in described for name in one.metadata}
    if set(unknown) - keys:
        problem = f"{where.what}: {unknown[0]} is known only after an episode was read"
        raise UsageError(problem, "leave it to vlapipe train --where, or to min_seconds and min_frames of the schema")
    columns = where.columns(keys, _COLUMNS)
    values = [_values(one, columns, schema) for one in described]
    fits = [one.is_faulty or where.holds(of_one) for one, of_one in zip(described, values, strict=True)]
    if not any(fits):
        raise where.none_fits(len(described), {name: [of_one[name] for of_one in values] for name in where.names})
    kept = [one for one, is_chosen in zip(described, fits, strict=True) if is_chosen]
    gone = tuple(one.id for one, is_chosen in zip(described, fits, strict=True) if not is_chosen)
    left_out = {**discovery.left_out, **({f"{where.what} {where.text}": gone} if gone else {})}
    chosen = replace(
        discovery,
        episodes=Packed(raw for raw, is_chosen in zip(discovery.episodes, fits, strict=True) if is_chosen),
        left_out=left_out,
    )
    return chosen, kept


def _values(one: _Described, columns: dict[str, str], schema: Schema) -> dict[str, Any]:
    split = split_of(one.id, schema.val_fraction)
    own = {"id": one.id, "task": one.task, "split": split, "instruction": one.instruction}
    return {
        name: one.metadata.get(column.removeprefix(PREFIX)) if column.startswith(PREFIX) else own[column]
        for name, column in columns.items()
    }


def _describe(discovery: Discovery, schema: Schema, raw: RawEpisode) -> _Described:
    findings = Findings(schema.checks.severity)
    metadata = read_metadata(discovery.root, raw, findings)
    is_faulty = bool(findings.errors)
    instruction = read_instructions(discovery.root, raw, schema, metadata, Findings())[0]
    return _Described(
        id=raw.id, task=raw.task, metadata=flat_metadata(metadata)[0], instruction=instruction, is_faulty=is_faulty
    )


def metadata_and_instruction(discovery: Discovery, schema: Schema, raw: RawEpisode) -> tuple[dict[str, Any], str]:
    """Returns the flat metadata and the instruction of an episode, as the episodes table has them."""
    one = _describe(discovery, schema, raw)
    return one.metadata, one.instruction


def _in_threads(work: Any, discovery: Discovery, schema: Schema) -> Iterable[Any]:
    """Apply ``work(discovery, schema, episode)`` to each episode; the results are in the episodes' order."""
    return in_order((partial(work, discovery, schema, raw) for raw in discovery.episodes), _THREADS)

"""Reads one raw episode whole: all streams, their alignment, the actions and the frames, or all faults found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.check.camera_looks import CameraLook, check_cameras
from vlapipe.pipeline.check.idle import find_idle, report_idle, without_idle
from vlapipe.pipeline.check.streams import check_streams
from vlapipe.pipeline.discover.discovery import RawEpisode
from vlapipe.pipeline.read.absent import absent_rows
from vlapipe.pipeline.read.file_parts import read_part
from vlapipe.pipeline.read.images.image_options import AS_RECORDED, ImageOptions
from vlapipe.pipeline.read.instruction import read_instructions, require_keys
from vlapipe.pipeline.read.metadata import read_metadata
from vlapipe.pipeline.read.streams import place_of, read_streams
from vlapipe.pipeline.shards.derive.actions import ACTION_ROW, action_fields, masks_of_action
from vlapipe.pipeline.shards.derive.aligned_fields import Use, place, tolerance_s
from vlapipe.pipeline.shards.derive.episode_sample import EpisodeSample, foreign_streams
from vlapipe.pipeline.shards.derive.gaps import find_gaps
from vlapipe.pipeline.shards.derive.rows_in_time import action_rows, last_row_at_or_before
from vlapipe.pipeline.shards.derive.stamps import seconds_between
from vlapipe.pipeline.shards.manifest.metadata_columns import flat_metadata
from vlapipe.pipeline.stream_rows import Rows, StreamRows
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream, Schema, Stream

__all__ = ["Episode", "read_episode"]

_HALF = float(np.finfo(np.float32).max) / 2  # the difference of two values below it is a finite float32


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A readable episode. An optional stream that the episode lacks has no rows.

    ``align[stream][i]`` is the index of the stream's last row at or before anchor row ``i``, or -1 if there is none.
    ``gaps[stream]`` holds the rows that follow a gap: the step of the clock before such a row is longer than
    ``max_gaps_s[stream]``. Frames are the anchor rows ``frame_start <= i < frame_start + num_frames``. The first frame
    is the first anchor row at which each stream of the episode has begun. The last frame is the last anchor row that
    has an action. If the schema trims idle frames, the first and the last frame are those at which something moves, and
    no anchor row of ``pauses`` (``start <= i < stop``) is a frame.
    ``looks`` tells what the cameras' images look like; a camera is missing if no image of it could be looked at.
    """

    raw: RawEpisode
    instructions: tuple[str, ...]  # the instruction, then its paraphrases
    metadata: dict[str, Any]  # by the names of flat_metadata
    streams: dict[str, Rows]
    looks: dict[str, CameraLook]
    align: dict[str, NDArray[np.int32]]
    gaps: dict[str, NDArray[np.int32]]
    max_gaps_s: dict[str, float | None]
    action_row: NDArray[np.int32]
    frame_start: int
    num_frames: int
    pauses: tuple[tuple[int, int], ...] = ()

    def fields(self) -> dict[str, NDArray[Any]]:
        """Returns each field's array, ``(rows, ...)``, under the name ``<stream>/<field>``; cameras have no fields."""
        return {
            f"{name}/{field}": values
            for name, stream in self.streams.items()
            if isinstance(stream, StreamRows)
            for field, values in stream.fields.items()
        }

    def rate_hz(self, stream: str) -> float:
        """Returns the mean rate of a stream's clock; 1 if all its rows have one time."""
        clock = self.streams[stream].timestamp
        span = seconds_between(clock, 0, -1) if len(clock) > 1 else 0.0
        return (len(clock) - 1) / span if span > 0 else 1.0

    def sample(self, schema: Schema) -> EpisodeSample:
        """Returns what training reads of the episode by the schema's own sample."""
        return _sample(self.streams, schema, self.action_row)


def read_episode(
    root: Path,
    raw: RawEpisode,
    schema: Schema,
    cameras: dict[str, tuple[str, ...]],
    findings: Findings,
    images: ImageOptions = AS_RECORDED,
) -> Episode | None:
    """Reads and checks one episode. Returns ``None`` if there was an error. All faults go to ``findings``.

    Args:
        root: the dataset's folder.
        raw: the episode's files.
        schema: how the files are to be read.
        cameras: the cameras of each image stream; an episode must have them unless the stream is optional.
        findings: collects the faults.
        images: how images are to be stored.
    """
    raw = raw.listed()
    described = _describe(root, raw, schema, findings)

    def read(found: Findings) -> dict[str, Rows]:
        return read_streams(root, raw, schema, cameras, found, images)

    streams = read_part(root, raw, schema, findings, read, images)
    specs = _specs(schema, cameras)
    check_streams(streams, specs, schema, findings)
    looks = {} if findings.errors else check_cameras(streams, specs, schema, findings)
    if findings.errors:
        return None
    absent = [name for name in specs if name not in streams]
    assert all(specs[name].optional for name in absent), "a stream was refused without an error"
    for name in absent:
        findings.add("stream.absent", place_of(raw, specs[name], name), found=f"no {name}")
    streams |= {name: absent_rows(name, specs[name], images) for name in absent}
    streams = {name: streams[name] for name in specs}
    return _relate(raw, described, streams, looks, specs, schema, findings)


def _specs(schema: Schema, cameras: dict[str, tuple[str, ...]]) -> dict[str, Stream]:
    """Returns the schema's entry for each stream of the dataset; each camera counts as one stream."""
    specs: dict[str, Stream] = {}
    for stream in schema.streams:
        names = cameras[stream.name] if isinstance(stream, ImageStream) else (stream.name,)
        specs |= dict.fromkeys(names, stream)
    return specs


def _describe(
    root: Path, raw: RawEpisode, schema: Schema, findings: Findings
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Returns the instruction with its paraphrases, and the metadata by column name."""
    metadata = read_metadata(root, raw, findings)
    if not findings.errors:
        require_keys(schema.episodes.task, raw, metadata, findings)
    instructions = read_instructions(root, raw, schema, metadata, findings)
    flat, not_kept = flat_metadata(metadata)
    if not_kept:
        file = raw.metadata or raw.container
        place = file.path if file is not None else raw.folder
        findings.add("metadata.not_kept", place, found=f"{not_kept[0]!r:.80}", count=len(not_kept))
    return instructions, flat


def _relate(
    raw: RawEpisode,
    described: tuple[tuple[str, ...], dict[str, Any]],
    streams: dict[str, Rows],
    looks: dict[str, CameraLook],
    specs: dict[str, Stream],
    schema: Schema,
    findings: Findings,
) -> Episode | None:
    """Aligns every stream to the anchor's clock, and finds the rows that have all streams and an action."""
    clock = streams[schema.anchor].timestamp
    label = streams[schema.anchor].source.path
    others = {name: stream for name, stream in streams.items() if name != schema.anchor}
    align = {name: last_row_at_or_before(clock, stream.timestamp) for name, stream in others.items()}
    action = schema.action
    action_row = _usable(action_rows(clock, schema), streams, schema)
    begin = {name: int(np.argmax(rows >= 0)) for name, rows in align.items()}
    begun = max(begin.values(), default=0)
    with_action = np.flatnonzero(action_row >= 0)
    num_frames = int(with_action[-1]) + 1 - begun if len(with_action) else 0
    span = seconds_between(clock, 0, -1)
    if num_frames <= 0:
        expected = f"rows {action.period_s:g} s apart" if action.period_s else "rows after every stream has begun"
        found = f"{len(clock)} rows over {span:.4g} s"
        for name in foreign_streams(schema, tuple(action_fields(schema))):
            if not streams[name].num_rows:
                expected, found = f"rows of {name}, from which the action is taken", "none in this episode"
        findings.add("episode.no_frames", label, expected=expected, found=found)
        return None
    frames, pauses = (begun, begun + num_frames), list[tuple[int, int]]()
    idle = find_idle(streams, schema)
    if schema.episodes.idle == "trim":
        frames, pauses = without_idle(frames, idle, action_row)
        num_frames = frames[1] - frames[0]
        if not num_frames:
            expected, found = "rows in which something moves", f"none over {span:.4g} s"
            findings.add("episode.no_frames", label, expected=expected, found=found)
            return None
    anchor = streams[schema.anchor]
    assert isinstance(anchor, StreamRows)
    report_idle(idle, anchor, schema, findings)
    checks = schema.checks
    if span < checks.min_seconds:
        expected = f"{checks.min_seconds:g} s or longer"
        findings.add("episode.too_short", label, expected=expected, found=f"{span:.4g} s")
    elif num_frames < checks.min_frames:
        expected = f"{checks.min_frames} frames or more"
        findings.add("episode.too_short", label, expected=expected, found=f"{num_frames}")
    _report_missing(streams, schema, range(begun, begun + num_frames), findings)
    if findings.errors:
        return None
    return Episode(
        raw=raw,
        instructions=described[0],
        metadata=described[1],
        streams=streams,
        looks=looks,
        align=align,
        gaps={name: find_gaps(stream.timestamp, specs[name].max_gap_s) for name, stream in streams.items()},
        max_gaps_s={name: specs[name].max_gap_s for name in streams},
        action_row=action_row,
        frame_start=frames[0],
        num_frames=num_frames,
        pauses=tuple(pauses),
    )


def _sample(streams: dict[str, Rows], schema: Schema, action_row: NDArray[np.int32]) -> EpisodeSample:
    def read(name: str, start: int, stop: int) -> NDArray[Any]:
        stream, _, field = name.partition("/")
        if name == ACTION_ROW:
            return action_row[start:stop]
        rows = streams[stream]
        assert isinstance(rows, StreamRows) or field == "timestamp"
        values: NDArray[Any] = rows.timestamp if field == "timestamp" else rows.fields[field]  # type: ignore[union-attr]
        return values[start:stop]

    return EpisodeSample(schema, read, {name: rows.num_rows for name, rows in streams.items()}, chosen=False)


def _usable(action_row: NDArray[np.int32], streams: dict[str, Rows], schema: Schema) -> NDArray[np.int32]:
    """Marks rows as rows without an action: a field has no value (within its tolerance), or the action is not finite.

    The schema may allow NaN and infinite values in a field, so actions that follow from them are possible.
    """
    paths = tuple(action_fields(schema))
    foreign = foreign_streams(schema, paths)
    fields: list[NDArray[Any]] = []
    for name in (schema.anchor, *foreign):
        rows = streams[name]
        assert isinstance(rows, StreamRows)
        fields += [values for values in rows.fields.values() if values.dtype.kind == "f" and len(values)]
    are_plain = all((np.abs([values.min(), values.max()]) < _HALF).all() for values in fields)
    if are_plain and not foreign and not masks_of_action(schema):
        return action_row
    sample = _sample(streams, schema, action_row)
    return sample.usable_actions(action_row, {path: sample.field(path, "action", 0, len(action_row)) for path in paths})


def _report_missing(streams: dict[str, Rows], schema: Schema, frames: range, findings: Findings) -> None:
    """Reports frames at which a stream has no value for the state or the action within its tolerance."""
    clock = streams[schema.anchor].timestamp
    uses: list[tuple[Use, tuple[str, ...]]] = [("state", schema.sample.state), ("action", tuple(action_fields(schema)))]
    for use, paths in uses:
        for name in foreign_streams(schema, paths):
            spec, rows = schema.stream(name), streams[name]
            assert not isinstance(spec, ImageStream)
            placed = place(spec, use, clock[frames.start : frames.stop], rows.timestamp)
            missing = np.flatnonzero(placed.is_missing)
            if len(missing) and rows.num_rows:
                row = frames.start + int(missing[0])
                near = seconds_between(np.array([clock[row], rows.timestamp[placed.before[missing[0]]]]), 0, 1)
                findings.add(
                    "align.too_far",
                    rows.source.path,
                    expected=f"a row within {tolerance_s(spec, rows.timestamp):.4g} s for the {use}",
                    found=f"{abs(near):.4g} s away at row {row} of {schema.anchor}; such rows are padding",
                    count=len(missing),
                )

"""Looks into containers before the plan is made: for the episodes in them, and for the cameras whose images are arrays.

Only names and the ends of episodes are read. A container in which no episode is found stays one episode; reading that
episode reports the reason.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.discover.discovery import RawEpisode, stream_name
from vlapipe.pipeline.discover.listing import RawFile
from vlapipe.pipeline.discover.many_files import in_number_order, number_of
from vlapipe.pipeline.read.containers.container import groups_of, open_container
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ArrayStream, ImageStream, Schema

__all__ = ["cameras_in", "has_parts", "parts_of_container", "with_cameras"]


def has_parts(schema: Schema) -> bool:
    """Returns whether the anchor's containers may hold several episodes."""
    layout = schema.episodes
    return bool(layout.group or layout.ends or layout.ranges)


def parts_of_container(root: Path, raw: RawEpisode, schema: Schema, findings: Findings) -> list[RawEpisode]:
    """Returns the episodes in the anchor's container; none, with a finding, if they cannot be told."""
    if schema.episodes.ranges:
        return _parts_by_number(root, raw, schema, findings)
    stream, files = schema.anchor_stream, [file.path for file in raw.files[schema.anchor]]
    assert isinstance(stream, ArrayStream)
    if len(files) != 1:
        return []  # reading the episode reports it
    with open_container(root, files, findings, kind=stream.kind, hashed=False) as opened:
        if opened is None:
            return []
        if schema.episodes.group:
            groups = groups_of(opened.arrays, schema.episodes.group)
            if not groups:
                expected = f"groups called {schema.episodes.group!r}"
                findings.add("npz.missing_array", files[0], expected=expected, found="none")
            return _parts_by_group(raw, groups)
        assert schema.episodes.ends
        name = opened.find((schema.episodes.ends,), findings)
        ends = opened.load(name, findings) if name is not None else None
        if name is None or ends is None:
            return []
        wanted = [one for field in stream.fields for names in field.columns for one in names]
        lengths = [entry.shape[0] for one in wanted if (entry := opened.arrays.get(one)) is not None and entry.shape]
        return _parts_by_end(raw, ends, max(lengths, default=None), files[0], name, findings)


def _parts_by_group(raw: RawEpisode, groups: list[str]) -> list[RawEpisode]:
    last = [group.rpartition("/")[2] for group in groups]
    names = last if len(set(last)) == len(groups) else groups
    return [
        replace(raw, id=f"{raw.id}/{name}", group=group, num_groups=len(groups))
        for name, group in zip(names, groups, strict=True)
    ]


def _parts_by_end(
    raw: RawEpisode, ends: NDArray[np.generic], num_rows: int | None, file: str, name: str, findings: Findings
) -> list[RawEpisode]:
    is_whole = ends.dtype.kind in "iu" and ends.ndim == 1 and len(ends) > 0
    edges = np.concatenate([[0], ends.astype(np.int64)]) if is_whole else np.zeros(0, dtype=np.int64)
    if not is_whole or (np.diff(edges) <= 0).any():
        wrong = int(np.argmax(np.diff(edges) <= 0)) if is_whole else 0
        found = f"{int(edges[wrong + 1])} after {int(edges[wrong])}" if is_whole else f"{ends.dtype} {ends.shape}"
        findings.add(
            "npz.ends", file, column=name, expected="rows past the end of each episode, ascending", found=found
        )
        return []
    if num_rows is not None and int(edges[-1]) > num_rows:
        expected, found = f"ends within the {num_rows} rows of the arrays", f"{int(edges[-1])}"
        findings.add("npz.ends", file, column=name, expected=expected, found=found)
        return []
    edges_list = edges.tolist()
    return [
        replace(raw, id=f"{raw.id}/part_{i:04d}", rows=(start, stop), num_rows=edges_list[-1], reads_part=True)
        for i, (start, stop) in enumerate(itertools.pairwise(edges_list))
    ]


def _parts_by_number(root: Path, raw: RawEpisode, schema: Schema, findings: Findings) -> list[RawEpisode]:
    if raw.ranges is None:
        found, place = f"no {schema.episodes.ranges}", raw.folder
        findings.add(
            "file.missing", place, expected=f"{schema.episodes.ranges}, the numbers of each episode", found=found
        )
        return []
    file = raw.ranges.path
    with open_container(root, [file], findings, hashed=False) as opened:
        name = next(iter(opened.arrays)) if opened is not None else ""
        ranges = opened.load(name, findings) if opened is not None else None
    if ranges is None:
        return []
    if ranges.dtype.kind not in "iu" or ranges.ndim != 2 or ranges.shape[1] != 2 or not len(ranges):
        expected = "whole numbers (episodes, 2): the first and the last number of each"
        findings.add("npz.ends", file, column=name, expected=expected, found=f"{ranges.dtype} {ranges.shape}")
        return []
    pairs = ranges.tolist()
    wrong = next((pair for pair in pairs if pair[0] > pair[1]), None)
    if wrong is not None:
        found = f"{wrong[0]} to {wrong[1]}"
        findings.add("npz.ends", file, column=name, expected="a first number before the last", found=found)
        return []
    streams = [name for name, files in raw.files.items() if _is_numbered(schema, name, raw, files)]
    numbered = {name: in_number_order(raw.files[name]) for name in streams}
    numbers = {name: [number_of(file.path) for file in files] for name, files in numbered.items()}
    parts = []
    for i, (first, last) in enumerate(pairs):
        ours = {
            name: files[bisect_left(numbers[name], first) : bisect_right(numbers[name], last)]
            for name, files in numbered.items()
        }
        parts.append(replace(raw, id=f"{raw.id}/part_{i:04d}", files={**raw.files, **ours}, numbers=(first, last)))
    return parts


def _is_numbered(schema: Schema, name: str, raw: RawEpisode, files: Sequence[RawFile]) -> bool:
    """Returns whether a stream has a file a row: the anchor's own files, or as many of another stream."""
    return name == schema.anchor or len(files) == len(raw.files[schema.anchor])


def with_cameras(root: Path, raw: RawEpisode, schema: Schema) -> RawEpisode:
    """Returns the episode with a stream for each camera whose images are an array that fits ``array`` with {camera}."""
    files, cameras = dict(raw.files), dict(raw.cameras)
    for stream in schema.streams:
        if not isinstance(stream, ImageStream) or not any("{camera}" in name for name in stream.array):
            continue
        ours = files.pop(stream.name, ())
        found = cameras_in(root, ours, stream, raw.group)
        found = {name: array for name, array in found.items() if not stream.cameras or name in stream.cameras}
        files |= dict.fromkeys(found, ours)
        cameras[stream.name] = tuple(found)
    return replace(raw, files=files, cameras=cameras)


def cameras_in(root: Path, files: Sequence[RawFile], stream: ImageStream, group: str | None) -> dict[str, str]:
    """Returns the cameras of a container: the name of each stream, and the array that holds its images."""
    if not files:
        return {}
    many = len(files) > 1 and not files[0].path.endswith(".npy")
    paths = [file.path for file in (files[:1] if many else files)]
    with open_container(root, paths, Findings(), base=group, hashed=False) as opened:
        names = list(opened.arrays) if opened is not None else []
        if opened is not None and group and any(name.startswith("/") for name in stream.array):
            with open_container(root, paths, Findings(), hashed=False) as top:
                names += [f"/{name}" for name in top.arrays] if top is not None else []
    for pattern in stream.array:
        start, _, end = pattern.partition("{camera}")
        if not group:
            start = start.lstrip("/")
        regex = re.compile(f"{re.escape(start)}([^/]+){re.escape(end)}")
        found = {stream_name(match[1]): name for name in names if (match := regex.fullmatch(name))}
        if found:
            return dict(sorted(found.items()))
    return {}

"""Checks that need all episodes at once: duplicate recordings, duplicates in both splits, small splits and tasks."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.check.as_trained import check_sides_of_wrap
from vlapipe.pipeline.check.camera_looks import swapped_episodes
from vlapipe.pipeline.check.episode_rows import EVIDENCE, Row, files_of
from vlapipe.pipeline.check.flicker import check_flicker
from vlapipe.pipeline.check.same_content import Sketches
from vlapipe.pipeline.check.spikes import check_spikes
from vlapipe.pipeline.discover.discovery import Discovery
from vlapipe.pipeline.discover.file_kinds import kind_that_reads
from vlapipe.pipeline.shards.manifest.metadata_columns import chosen_names
from vlapipe.schemas.findings import Findings
from vlapipe.schemas.schema import ImageStream, Schema

__all__ = ["check_across_episodes", "check_what_is_left_out"]

_MOST_NAMED = 5  # limit on the names that a finding lists
_SUCCESS = {"success", "is_success", "successful", "succeeded", "is_episode_successful"}

_RATE_RATIO = 1.5  # pauses lower an episode's row count, but not by this factor


def check_across_episodes(rows: Sequence[Row], discovery: Discovery, schema: Schema) -> list[dict[str, Any]]:
    """Returns the findings about the dataset as a whole, in the same form as an episode's findings.

    Args:
        rows: the rows of the episodes table, in order. They are gone through several times, and need not be in memory.
        discovery: the episodes that were found, and the files and folders that were left out.
        schema: names the anchor stream, whose file identifies a recording, and sets the severity of findings.
    """
    findings = Findings(schema.checks.severity)
    findings.extend(discovery.findings)
    check_what_is_left_out(discovery, schema, findings)
    for kind, _, path, count in discovery.unread:
        reader = kind_that_reads(path)
        if reader is None or reader == "images":  # a picture beside a recording is no camera
            findings.add("file.not_read", path, column=kind, found="not read", count=count)
        else:
            found = f"not in the dataset; a stream of kind = {reader!r} reads such files"
            findings.add("file.data_not_read", path, column=kind, found=found, count=count)
    seen = _Seen.of(rows, schema.anchor)
    _check_content(rows, seen, schema.anchor, findings)
    _check_rates(rows, schema.anchor, findings)
    _check_optional(discovery, schema, findings)
    count = len(rows)
    if count and not seen.trained:
        found = f"{count} of {count} episodes validate"
        findings.add("split.no_train", rows[0]["id"], expected="some that train", found=found)
    for key, (first, failed) in sorted(seen.failed.items()):
        findings.add("episode.failed_try", first, column=key, found="false", count=failed)
    _, beyond = chosen_names(row.get("metadata", {}) for row in rows)
    if beyond:
        findings.add("metadata.not_kept", rows[0]["id"], found=f"{beyond[0]!r:.80}", count=len(beyond))
    for task, of_task in sorted(seen.tasks.items()):
        validates = task not in seen.trained
        if of_task == 1 and count > 1:
            findings.add("task.one_episode", task, found="1 episode" + (", which only validates" if validates else ""))
        elif validates and count > of_task:
            found = f"{of_task} of {of_task} episodes validate"
            findings.add("split.task_only_in_val", task, expected="some that train", found=found)
    named = _named(rows, seen, {finding.file for finding in findings}, schema.anchor)
    listed = [{"episode": named.get(finding.file), **finding.to_dict()} for finding in findings]
    of_episode = _check_evidence(rows, seen, schema, findings)
    return listed + [{"episode": i, **finding.to_dict()} for i, each in of_episode.items() for finding in each]


@dataclass(kw_only=True)
class _Seen:
    """What one pass over all episodes keeps: some hundred bytes of each.

    ``paths`` and ``contents`` are hashes of the anchor's path, and of its bytes and rows. ``first`` is the number of
    the first episode with the same content. ``same`` tells the episodes of which most content is in an earlier one.
    ``grids`` are the mean pictures of each camera, with the numbers of the episodes that have one.
    """

    shared: frozenset[int]  # hashes of paths that several episodes have
    first: NDArray[np.int64]
    same: Mapping[int, tuple[int, str]]
    grids: Mapping[str, tuple[NDArray[np.float32], NDArray[np.int64]]]
    tasks: Counter[str]
    trained: set[str]
    failed: Mapping[str, tuple[str, int]]  # by key of metadata: the first failed demonstration, and how many there are
    has_outliers: bool

    @classmethod
    def of(cls, rows: Sequence[Row], anchor: str) -> _Seen:
        paths, contents = array("Q"), array("Q")
        sketches = Sketches()
        grids: dict[str, tuple[array[float], array[int]]] = {}
        tasks, trained = Counter[str](), set[str]()
        failed: dict[str, tuple[str, int]] = {}
        has_outliers = False
        for number, row in enumerate(rows):
            source, evidence = _anchor_source(row, anchor), row[EVIDENCE]
            paths.append(_hash(source["path"]))
            # Parts of one file share its digest, but not their group or their rows in the file.
            contents.append(_hash(source["sha256"], evidence["group"], row["source_row"], row[f"{anchor}/rows"]))
            sketches.add(evidence["content"])
            for camera, grid in evidence["grids"].items():
                levels, numbers = grids.setdefault(camera, (array("f"), array("q")))
                levels.extend(np.asarray(grid, dtype=np.float32).ravel())
                numbers.append(number)
            tasks[row["task"]] += 1
            if row["split"] == "train":
                trained.add(row["task"])
            for key in _SUCCESS & row.get("metadata", {}).keys():
                if row["metadata"][key] is False:
                    first, count = failed.get(key, (row["id"], 0))
                    failed[key] = first, count + 1
            has_outliers = has_outliers or bool(evidence["outliers"])
        found, counts = np.unique(np.array(paths), return_counts=True)
        _, first_with, kind = np.unique(np.array(contents), return_index=True, return_inverse=True)
        return cls(
            shared=frozenset(found[counts > 1].tolist()),
            first=first_with[kind],
            same=sketches.same(),
            grids={camera: _pictures(*each) for camera, each in grids.items()},
            tasks=tasks,
            trained=trained,
            failed=failed,
            has_outliers=has_outliers,
        )

    def place(self, row: Row, anchor: str) -> str:
        """Returns what a finding calls an episode: its file, or its id if other episodes are in the file."""
        path: str = _anchor_source(row, anchor)["path"]
        return row["id"] if _hash(path) in self.shared else path


def _pictures(levels: array[float], numbers: array[int]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    side = math.isqrt(len(levels) // (3 * len(numbers)))
    return np.array(levels, dtype=np.float32).reshape(len(numbers), side, side, 3), np.array(numbers)


def _hash(*told: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(told).encode(), digest_size=8).digest(), "little")


def _check_content(rows: Sequence[Row], seen: _Seen, anchor: str, findings: Findings) -> None:
    """Reports episodes whose recording, or most of its content, is in an earlier episode."""
    again = np.flatnonzero(seen.first != np.arange(len(seen.first))).tolist()
    for number in sorted({*again, *seen.same}):
        row, first, what = rows[number], int(seen.first[number]), "the same bytes as"
        if first == number:
            first, stream = seen.same[number]
            kind = "rows" if stream == anchor else f"images of {stream}"
            what = f"most {kind} the same, under other stamps, as in"
        other, place = rows[first], seen.place(row, anchor)
        findings.add("episode.duplicate", place, found=f"{what} {seen.place(other, anchor)}")
        if other["split"] != row["split"]:
            expected = f"to be in split {other['split']} as {seen.place(other, anchor)}"
            findings.add("split.same_content", place, expected=expected, found=row["split"])


def _named(rows: Sequence[Row], seen: _Seen, places: Collection[str], anchor: str) -> dict[str, str]:
    """Returns the first episode that a finding may mean by each of these places."""
    named: dict[str, str] = {}
    for row in rows if places else ():
        place = seen.place(row, anchor)
        if place in places:
            named.setdefault(place, row["id"])
    return named


def _check_evidence(rows: Sequence[Row], seen: _Seen, schema: Schema, findings: Findings) -> dict[str, Findings]:
    """Returns the findings of single episodes that only a comparison with all others can tell, in their order."""
    found: dict[int, tuple[str, Findings]] = {}

    def of(number: int, row: Row) -> Findings:
        return found.setdefault(number, (row["id"], findings.fresh()))[1]

    if seen.has_outliers:
        check_spikes(rows, schema, of)
    check_flicker(rows, schema, of)
    check_sides_of_wrap(rows, schema, of)
    for camera, (grids, numbers) in seen.grids.items():
        for place in swapped_episodes(grids):
            number = int(numbers[place])
            row = rows[number]
            red, _, blue = grids[place].mean(axis=(0, 1))
            told = f"red {red:.0f} and blue {blue:.0f} on average, as if exchanged"
            path = files_of(row)[camera]
            of(number, row).add("image.channels", path, expected="the colours of the other episodes", found=told)
    return dict(found[number] for number in sorted(found))


def check_what_is_left_out(discovery: Discovery, schema: Schema, findings: Findings) -> None:
    """Reports files and folders that are in no episode, although the user may have meant them to be."""
    if discovery.not_matched:
        expected = "a folder called " + " or ".join(schema.episodes.folders)
        found = _first_names(discovery.not_matched, "another name, with an episode's files in it")
        findings.add(
            "episode.not_matched",
            discovery.not_matched[0],
            expected=expected,
            found=found,
            count=len(discovery.not_matched),
        )
    if discovery.misnamed:
        found = _first_names(discovery.misnamed, "no UTF-8 text, or too long")
        findings.add("file.bad_name", discovery.misnamed[0], found=found, count=len(discovery.misnamed))


def _first_names(names: tuple[str, ...], what: str) -> str:
    others = ", ".join(names[1:_MOST_NAMED])
    return f"{what}, as in {others}" if others else what


def _check_rates(rows: Sequence[Row], anchor: str, findings: Findings) -> None:
    """Reports episodes of different rates: windows and chunks count rows, so their duration depends on the rate."""
    slow: tuple[float, str] | None = None
    fast: tuple[float, str] | None = None
    for row in rows:
        span = row[f"{anchor}/last_s"] - row[f"{anchor}/first_s"]
        if not span > 0:
            continue
        rate, path = (row[f"{anchor}/rows"] - 1) / span, _anchor_source(row, anchor)["path"]
        slow = (rate, path) if slow is None or rate < slow[0] else slow
        fast = (rate, path) if fast is None or rate > fast[0] else fast
    if slow is not None and fast is not None and fast[0] > _RATE_RATIO * slow[0]:
        expected = f"about {fast[0]:.4g} Hz as in {fast[1]}"
        findings.add("clock.rates_differ", slow[1], expected=expected, found=f"{slow[0]:.4g} Hz")


def _check_optional(discovery: Discovery, schema: Schema, findings: Findings) -> None:
    """Reports optional streams that no episode has: a pattern that fits no file would otherwise go unnoticed."""
    for stream in schema.streams:
        if not stream.optional:
            continue
        present = {
            name
            for episode in discovery.episodes
            for name in episode.cameras.get(stream.name, (stream.name,))
            if episode.files.get(name)
        }
        listed = set(stream.cameras) if isinstance(stream, ImageStream) else set()
        for name in sorted(listed - present) if listed or present else [stream.name]:
            findings.add("stream.in_no_episode", name, expected=" or ".join(stream.files), found="no such file")


def _anchor_source(row: Row, anchor: str) -> dict[str, Any]:
    """Returns the file that the anchor's rows were read from; a row lists its sources in the order of its streams."""
    streams = [key.removesuffix("/start") for key in row if key.endswith("/start")]
    source: dict[str, Any] = row["sources"][streams.index(anchor)]
    return source

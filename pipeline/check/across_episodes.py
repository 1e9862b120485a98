"""Checks that need all episodes at once: duplicate recordings, duplicates in both splits, small splits and tasks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from vlapipe.pipeline.check.as_trained import check_sides_of_wrap
from vlapipe.pipeline.check.camera_looks import swapped_episodes
from vlapipe.pipeline.check.evidence import EVIDENCE, files_of
from vlapipe.pipeline.check.flicker import check_flicker
from vlapipe.pipeline.check.same_content import KnownContent
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


def check_across_episodes(rows: list[dict[str, Any]], discovery: Discovery, schema: Schema) -> list[dict[str, Any]]:
    """Returns the findings about the dataset as a whole, in the same form as an episode's findings.

    Args:
        rows: the rows of the episodes table, in order.
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
    first_of: dict[tuple[object, ...], dict[str, Any]] = {}
    named: dict[str, str] = {}
    known = KnownContent()
    shared = Counter(_anchor_source(row, schema.anchor)["path"] for row in rows)
    for row in rows:
        source = _anchor_source(row, schema.anchor)
        # Parts of one file share its digest, but not their group or their rows in the file.
        content = (source["sha256"], row[EVIDENCE]["group"], row["source_row"], row[f"{schema.anchor}/rows"])
        first = first_of.setdefault(content, row)
        place = row["id"] if shared[source["path"]] > 1 else source["path"]
        named.setdefault(place, row["id"])
        same = known.add(row[EVIDENCE]["content"])
        what = "the same bytes as"
        if first is row:
            if same is None:
                continue
            first = rows[same[0]]
            kind = "rows" if same[1] == schema.anchor else f"images of {same[1]}"
            what = f"most {kind} the same, under other stamps, as in"
        other = _anchor_source(first, schema.anchor)["path"]
        other = first["id"] if shared[other] > 1 else other
        findings.add("episode.duplicate", place, found=f"{what} {other}")
        if first["split"] != row["split"]:
            findings.add(
                "split.same_content",
                place,
                expected=f"to be in split {first['split']} as {other}",
                found=row["split"],
            )
    _check_rates(rows, schema.anchor, findings)
    _check_optional(discovery, schema, findings)
    if rows and all(row["split"] == "val" for row in rows):
        found = f"{len(rows)} of {len(rows)} episodes validate"
        findings.add("split.no_train", rows[0]["id"], expected="some that train", found=found)
    _check_metadata([row.get("metadata", {}) for row in rows], rows, findings)
    trained = {row["task"] for row in rows if row["split"] == "train"}
    for task, count in sorted(Counter(row["task"] for row in rows).items()):
        validates = task not in trained
        if count == 1 and len(rows) > 1:
            findings.add("task.one_episode", task, found="1 episode" + (", which only validates" if validates else ""))
        elif validates and len(rows) > count:
            found = f"{count} of {count} episodes validate"
            findings.add("split.task_only_in_val", task, expected="some that train", found=found)
    listed = [{"episode": named.get(finding.file), **finding.to_dict()} for finding in findings]
    of_episode = _check_evidence(rows, schema, findings)
    return listed + [{"episode": i, **finding.to_dict()} for i, each in of_episode.items() for finding in each]


def _check_evidence(rows: list[dict[str, Any]], schema: Schema, findings: Findings) -> dict[str, Findings]:
    """Returns the findings of single episodes that only a comparison with all others can tell, by episode."""
    found: dict[str, Findings] = {row["id"]: findings.fresh() for row in rows}
    files = [files_of(row) for row in rows]
    evidence = [row[EVIDENCE] for row in rows]
    outliers = [(row, each["outliers"], of) for row, each, of in zip(rows, evidence, files, strict=True)]
    check_spikes(outliers, schema, found)
    still = [(row, each["still"], of) for row, each, of in zip(rows, evidence, files, strict=True)]
    check_flicker(still, schema, found)
    check_sides_of_wrap(list(zip(rows, files, strict=True)), schema, found)
    for camera in dict.fromkeys(camera for each in evidence for camera in each["grids"]):
        ours = [i for i, each in enumerate(evidence) if camera in each["grids"]]
        grids = [np.array(evidence[i]["grids"][camera], dtype=np.float32) for i in ours]
        for number in swapped_episodes(grids):
            row, path = rows[ours[number]], files[ours[number]][camera]
            red, _, blue = grids[number].mean(axis=(0, 1))
            told = f"red {red:.0f} and blue {blue:.0f} on average, as if exchanged"
            found[row["id"]].add("image.channels", path, expected="the colours of the other episodes", found=told)
    return {episode: each for episode, each in found.items() if len(each)}


def _check_metadata(metadata: list[dict[str, Any]], rows: list[dict[str, Any]], findings: Findings) -> None:
    """Reports failed demonstrations that are kept, and metadata keys beyond those that the table has columns for."""
    for key in sorted(_SUCCESS & {name for one in metadata for name in one}):
        failed = [row["id"] for row, one in zip(rows, metadata, strict=True) if one.get(key) is False]
        if failed:
            findings.add("episode.failed_try", failed[0], column=key, found="false", count=len(failed))
    _, beyond = chosen_names(metadata)
    if beyond:
        findings.add("metadata.not_kept", rows[0]["id"], found=f"{beyond[0]!r:.80}", count=len(beyond))


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


def _check_rates(rows: list[dict[str, Any]], anchor: str, findings: Findings) -> None:
    """Reports episodes of different rates: windows and chunks count rows, so their duration depends on the rate."""
    spans = [(row, row[f"{anchor}/last_s"] - row[f"{anchor}/first_s"]) for row in rows]
    rates = [((row[f"{anchor}/rows"] - 1) / span, row) for row, span in spans if span > 0]
    if not rates:
        return
    (low, slow), (high, fast) = (choose(rates, key=lambda rate: rate[0]) for choose in (min, max))
    if high > _RATE_RATIO * low:
        expected = f"about {high:.4g} Hz as in {_anchor_source(fast, anchor)['path']}"
        findings.add(
            "clock.rates_differ", _anchor_source(slow, anchor)["path"], expected=expected, found=f"{low:.4g} Hz"
        )


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


def _anchor_source(row: dict[str, Any], anchor: str) -> dict[str, Any]:
    """Returns the file that the anchor's rows were read from; a row lists its sources in the order of its streams."""
    streams = [key.removesuffix("/start") for key in row if key.endswith("/start")]
    source: dict[str, Any] = row["sources"][streams.index(anchor)]
    return source

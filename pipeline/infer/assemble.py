"""Builds a whole schema from the guesses about the layout, the tables, the arrays and the images."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from vlapipe.pipeline.discover.file_tree import match_end
from vlapipe.pipeline.infer.arrays.arrays import ArraysGuess, guess_arrays
from vlapipe.pipeline.infer.choices import Choices
from vlapipe.pipeline.infer.columns.clock import ClockGuess
from vlapipe.pipeline.infer.columns.groups import identifier
from vlapipe.pipeline.infer.columns.tables import guess_table
from vlapipe.pipeline.infer.files.beside_files import (
    cameras_beside,
    files_below,
    pattern_of_anchor,
    relative_path,
    videos_beside,
)
from vlapipe.pipeline.infer.files.cameras import Beside
from vlapipe.pipeline.infer.files.clock_files import StampTable, stamp_table
from vlapipe.pipeline.infer.files.layout import Bucket, Layout, pattern_of, telling_name
from vlapipe.pipeline.infer.files.unread import unread_files
from vlapipe.pipeline.infer.guess import SchemaGuess, StreamGuess
from vlapipe.pipeline.infer.roles.sample import choose_sample
from vlapipe.pipeline.read.archives import ArchiveError, json_in_zip
from vlapipe.schemas.schema import EpisodeLayout, InstructionSpec

__all__ = ["guess_schema"]

ANCHOR = "robot"
_LOOKED_AT = 3
_INSTRUCTION_KEYS = ("instruction", "language_instruction", "task_description", "prompt", "task", "goal")
_RESERVED = {"action", "align", ANCHOR}


@dataclass(frozen=True)
class _Anchor:
    stream: StreamGuess
    clock: ClockGuess
    num_rows: int
    split_column: str | None = None
    split_gap_s: float | None = None
    split_reasons: tuple[str, ...] = ()
    cameras: tuple[StreamGuess, ...] = ()  # arrays of images beside the anchor's arrays
    not_read: tuple[str, ...] = ()


def guess_schema(layout: Layout, choices: Choices) -> SchemaGuess | None:
    """Guess the whole schema. Returns ``None`` if the anchor's files hold no numbers after all."""
    files = list(layout.anchor.files)
    anchor = _guess_anchor(layout, choices)
    if anchor is None:
        return None
    chosen = [files[i] for i in sorted({0, len(files) // 2, len(files) - 1})][:_LOOKED_AT]
    tables = _stamp_tables(layout)
    anchor = _with_clock_file(anchor, tables)
    beside = Beside(name=ANCHOR, clock=anchor.clock, num_rows=anchor.num_rows, tables=tables)
    by_stem = layout.per_file and len(files) > 1
    cameras = cameras_beside(layout, chosen, beside, by_stem=by_stem)
    videos, not_read_videos = videos_beside(layout, chosen, beside, by_stem=by_stem)
    cameras += videos
    streams = [anchor.stream, *anchor.cameras]
    not_read = [f"{file}: other columns than {files[0]}; it needs a schema of its own" for file in layout.unlike]
    not_read += [f"{file}: a file of one row is no stream" for file in layout.one_row]
    not_read += anchor.not_read
    # A table that is only a clock is not a stream. In the path of such tables, {camera} stands for a camera's folder.
    clocks = {stream.time.file for stream in (anchor.stream, *cameras) if stream.time.file}
    for bucket in layout.others:
        pattern = _pattern_beside(layout, bucket)
        ours = [table for table in tables if table.alone and table.pattern == pattern]
        used = pattern and any(match_end(pattern, clock) is not None for clock in clocks)
        if not any(used or table.lists_images for table in ours):
            _add_stream(streams, not_read, layout, bucket, anchor, choices)
    _add_array_files(streams, not_read, layout, chosen, anchor)
    streams += cameras
    not_read += not_read_videos
    not_read += unread_files(layout.tree, streams, counted=not_read_videos)
    streams = _unique(streams)
    action, reasons, sample = choose_sample(streams, anchor.clock, anchor.num_rows, choices)
    instruction, metadata = _guess_instruction(layout, chosen)
    return SchemaGuess(
        name=identifier(layout.tree.root.name, "recordings"),
        description=f"{layout.tree.root.name}: {PurePosixPath(files[0]).name}",
        episodes=EpisodeLayout(
            per_file=layout.per_file,
            split_column=anchor.split_column,
            split_gap_s=anchor.split_gap_s,
            task=_task(layout),
            metadata=metadata,
        ),
        episode_reasons=(*layout.reasons, *anchor.split_reasons),
        instruction=instruction,
        streams=tuple(streams),
        action=action,
        action_reasons=tuple(reasons),
        sample=sample,
        not_read=tuple(not_read),
    )


def _guess_anchor(layout: Layout, choices: Choices) -> _Anchor | None:
    files = layout.anchor.files
    pattern = pattern_of_anchor(layout)
    if not layout.anchor.looks:
        paths = [layout.tree.root / files[0]]
        if files[0].lower().endswith(".npy"):  # all files of its folder are its arrays
            pattern = tuple(str(PurePosixPath(name).with_name("*.npy")) for name in pattern[:1])
            paths = sorted(paths[0].parent.glob("*.npy"))
        arrays = guess_arrays(ANCHOR, pattern, paths)
        if arrays is None or not arrays.stream.fields:
            return None
        return _Anchor(arrays.stream, arrays.clock, arrays.num_rows, cameras=arrays.cameras, not_read=arrays.not_read)
    table = guess_table(ANCHOR, pattern, layout.anchor.looks, choices, may_split=True)
    if not any(field.numeric for field in table.stream.fields):
        return None  # there is a clock beside text, but nothing to train on
    return _Anchor(
        table.stream, table.clock, table.num_rows, table.split_column, table.split_gap_s, table.split_reasons
    )


def _stamp_tables(layout: Layout) -> tuple[StampTable, ...]:
    """List the tables of an episode, the anchor's included, that could be the clock of its rows or of its images."""
    found = []
    for bucket in (layout.anchor, *layout.others):
        pattern = _pattern_beside(layout, bucket) if bucket is not layout.anchor else None
        if bucket is layout.anchor and not layout.per_file and bucket.looks:
            pattern = pattern_of([relative_path(layout, file) for file in bucket.files], [])[0]
        table = stamp_table(pattern, bucket.looks[0]) if pattern and bucket.looks else None
        if table is not None:
            found.append(table)
    return tuple(found)


def _with_clock_file(anchor: _Anchor, tables: tuple[StampTable, ...]) -> _Anchor:
    """Give an anchor without a clock the clock of a table that has as many stamps as the anchor has rows."""
    fitting = [table for table in tables if table.alone and table.num_rows == anchor.num_rows]
    if not anchor.clock.assumed or not fitting:
        return anchor
    table = fitting[0]
    clock = replace(table.clock, time=table.time, columns=())
    said = (f"{table.pattern} has a stamp for each row", *clock.reasons)
    stream = replace(anchor.stream, time=clock.time, time_reasons=said, rate_hz=clock.rate_hz, assumed=False)
    return replace(anchor, stream=stream, clock=clock)


def _add_stream(
    streams: list[StreamGuess],
    not_read: list[str],
    layout: Layout,
    bucket: Bucket,
    anchor: _Anchor,
    choices: Choices,
) -> None:
    """Add a stream for tables or arrays that lie beside the anchor's files, one file an episode."""
    pattern = _pattern_beside(layout, bucket)
    name = PurePosixPath(bucket.files[0]).name
    if pattern is None:
        what = f"{name}: not one an episode" if len(bucket.files) > 1 else f"{name}: belongs to no episode"
        not_read.append(what)
        return
    stem = telling_name(pattern.replace("{stem}", ""))
    stream_name = identifier(stem.replace("*", ""), "sensor")
    if any(stream.name == stream_name for stream in streams):  # there is one such file in each of several folders
        stream_name = identifier(pattern.partition(".")[0].replace("*", "").replace("{stem}", ""), "sensor")
    first = layout.tree.root / bucket.files[0]
    if bucket.looks:
        table = guess_table(stream_name, (pattern,), bucket.looks, choices, may_split=False)
        if not table.stream.fields:
            not_read.append(f"{name}: no column to keep")
            return
        streams.append(_on_the_anchors_clock(table.stream, table.clock, anchor))
        return
    arrays = guess_arrays(stream_name, (pattern,), [first])
    if arrays is None:
        not_read.append(f"{name}: no arrays of numbers")
        return
    not_read += arrays.not_read
    _add_arrays(streams, arrays, anchor)


def _add_arrays(streams: list[StreamGuess], arrays: ArraysGuess, anchor: _Anchor) -> None:
    if arrays.stream.fields:
        streams.append(_on_the_anchors_clock(arrays.stream, arrays.clock, anchor))
        streams += arrays.cameras
    else:
        streams += [_on_the_anchors_clock(camera, arrays.clock, anchor) for camera in arrays.cameras]


def _add_array_files(
    streams: list[StreamGuess], not_read: list[str], layout: Layout, chosen: list[str], anchor: _Anchor
) -> None:
    """Add a stream for the NPY files of each folder of an episode."""
    if layout.per_file and len(layout.anchor.files) > 1:
        return
    files = layout.anchor.files
    episodes = [set(files_below(layout, file, {".npy"})) for file in chosen]
    folders: dict[str, list[str]] = defaultdict(list)
    for path in sorted(set.intersection(*episodes)):
        folders[str(PurePosixPath(path).parent)].append(path)
    root = layout.tree.root / layout.folder(chosen[0])
    for folder, paths in folders.items():
        if relative_path(layout, files[0]) in paths and files[0].lower().endswith(".npy"):
            continue  # the anchor's own folder
        name = identifier("arrays" if folder == "." else PurePosixPath(folder).name, "arrays")
        pattern = "*.npy" if folder == "." else f"{pattern_of([folder], [])[0]}/*.npy"
        arrays = guess_arrays(name, (pattern,), [root / path for path in paths])
        if arrays is None:
            not_read.append(f"{pattern}: no arrays of numbers")
        else:
            not_read += arrays.not_read
            _add_arrays(streams, arrays, anchor)


def _pattern_beside(layout: Layout, bucket: Bucket) -> str | None:
    """Return the pattern of the bucket's files relative to their episodes.

    Returns ``None`` if an episode has several of the files, most episodes have none, or the files' depths differ.
    """
    ends: dict[str, list[str]] = defaultdict(list)
    for file in layout.anchor.files:
        folder = layout.folder(file)
        stem = layout.stem(file)
        for other in bucket.files:
            if folder and not other.startswith(f"{folder}/"):
                continue
            end = other[len(folder) + 1 :] if folder else other
            if layout.per_file:
                if stem not in end:
                    continue
                end = end.replace(stem, "{stem}")
            ends[file].append(end)
    if 2 * len(ends) < len(layout.anchor.files) or any(len(found) > 1 for found in ends.values()):
        return None
    found = [end for each in ends.values() for end in each]
    if len({end.count("/") for end in found}) != 1:
        return None
    against = (
        [f for b in (layout.anchor, *layout.others) if b is not bucket for f in b.files] if len(set(found)) > 1 else []
    )
    return pattern_of(found, against)[0]


def _on_the_anchors_clock(stream: StreamGuess, clock: ClockGuess, anchor: _Anchor) -> StreamGuess:
    """Shift a clock to start with the anchor's, if the two clocks cannot be the same."""
    apart = ""
    counted = bool(clock.columns) == bool(anchor.clock.columns)  # True if both clocks use columns, or neither does
    if clock.assumed != anchor.clock.assumed or clock.epoch != anchor.clock.epoch or not counted:
        apart = f"its clock is not that of {ANCHOR}"
    elif len(clock.stamps_s) and len(anchor.clock.stamps_s) and not clock.epoch:
        end = anchor.clock.stamps_s[0] + anchor.num_rows / (anchor.clock.rate_hz or 1.0)
        if clock.stamps_s[0] > end:
            apart = f"it begins after {ANCHOR} has ended"
    if not apart:
        return stream
    reasons = (*stream.time_reasons, f"{apart}: both are taken to start together")
    return replace(stream, time=replace(stream.time, starts_with=ANCHOR), time_reasons=reasons)


def _unique(streams: list[StreamGuess]) -> list[StreamGuess]:
    taken: set[str] = set()
    named: list[StreamGuess] = []
    renamed: dict[str, str] = {}  # cameras follow the stream whose rows they share
    for stream in streams:
        name, number = stream.name, 2
        while name in taken or (named and name in _RESERVED):
            name, number = f"{stream.name}_{number}", number + 1
        taken.add(name)
        renamed[stream.name] = name
        like = stream.time.rows_of
        time = replace(stream.time, rows_of=renamed.get(like, like)) if like else stream.time
        named.append(replace(stream, name=name, time=time))
    return named


def _task(layout: Layout) -> str:
    if not layout.per_file and len(layout.anchor.files) == 1 and not layout.folder(layout.anchor.files[0]):
        return "{folder}"
    return "{parent}"


def _guess_instruction(layout: Layout, chosen: list[str]) -> tuple[InstructionSpec, str | None]:
    """Find the instruction that each episode has: a key of a JSON file, or a text file."""
    names = [set(files_below(layout, file, {".json", ".txt"})) for file in chosen] if not layout.per_file else []
    common = sorted(set.intersection(*names)) if names else []
    folder = layout.tree.root / layout.folder(chosen[0])
    metadata, key = None, None
    for name in common:
        found = _instruction_key(folder / name) if name.endswith(".json") else None
        if found is not None and (metadata is None or found):
            metadata, key = name, found or None
        if key:
            break
    if metadata is None and chosen[0].lower().endswith(".zip"):  # the JSON beside the table in its archive
        found = _instruction_key(layout.tree.root / chosen[0])
        pattern = pattern_of_anchor(layout)[0]
        if found is not None:
            metadata, key = "{stem}.zip" if layout.per_file else pattern, found or None
    texts = [name for name in common if name.endswith(".txt") and any(w in name.lower() for w in _INSTRUCTION_KEYS)]
    return InstructionSpec(metadata_key=key, file=texts[0] if texts else None), metadata


def _instruction_key(path: Path) -> str | None:
    """Return the key of a JSON object, a file or the one in an archive, that holds an instruction.

    Returns ``""`` for an object without such a key, and ``None`` if the file is not a JSON object.
    """
    try:
        values = json.loads(json_in_zip(path) if path.suffix.lower() == ".zip" else path.read_bytes())
    except (OSError, ValueError, ArchiveError):
        return None
    if not isinstance(values, dict):
        return None
    return next((key for key in _INSTRUCTION_KEYS if isinstance(values.get(key), str)), "")

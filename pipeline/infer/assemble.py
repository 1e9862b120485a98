"""Builds a whole schema from the guesses about the layout, the tables, the containers and the images."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path, PurePosixPath

from vlapipe.pipeline.discover.file_kinds import suffix_of
from vlapipe.pipeline.discover.file_tree import WholeTree, match_end
from vlapipe.pipeline.infer.arrays.containers import guess_container
from vlapipe.pipeline.infer.arrays.look import Look
from vlapipe.pipeline.infer.choices import Choices
from vlapipe.pipeline.infer.columns.clock import ClockGuess
from vlapipe.pipeline.infer.columns.groups import identifier
from vlapipe.pipeline.infer.columns.tables import guess_table
from vlapipe.pipeline.infer.files.bags import guess_bags
from vlapipe.pipeline.infer.files.beside_files import (
    Found,
    cameras_beside,
    files_below,
    pattern_of_anchor,
    raised_to_images,
    relative_path,
    videos_beside,
)
from vlapipe.pipeline.infer.files.cameras import Beside
from vlapipe.pipeline.infer.files.clock_files import StampTable, stamp_table
from vlapipe.pipeline.infer.files.heads import Bucket
from vlapipe.pipeline.infer.files.known_datasets import built_in_that_fits, rate_of_built_in
from vlapipe.pipeline.infer.files.layout import Layout, escape, find_layout, pattern_of, telling_name
from vlapipe.pipeline.infer.files.one_step_files import one_step_a_file
from vlapipe.pipeline.infer.files.unread import unread_files
from vlapipe.pipeline.infer.guess import SchemaGuess, SourceGuess, StreamGuess
from vlapipe.pipeline.infer.lexicon import lexicon, words_in
from vlapipe.pipeline.infer.roles.sample import choose_sample
from vlapipe.pipeline.read.archives import ArchiveError, json_in_zip
from vlapipe.schemas.schema import EpisodeLayout, InstructionSpec, TimeSpec

__all__ = ["guess_schema"]

ANCHOR = "robot"
_RESERVED = {"action", "align", ANCHOR}


def guess_schema(tree: WholeTree, choices: Choices) -> SchemaGuess | None:
    """Guess the whole schema. Returns ``None`` if no file holds numbers."""
    steps = one_step_a_file(tree)
    if steps is not None:
        return _guess_steps(tree, steps, choices)
    layout = find_layout(tree, choices)
    without: list[Bucket] = []
    while layout is not None:
        anchor = _guess_source(ANCHOR, pattern_of_anchor(layout), layout.anchor, choices, may_split=True)
        if anchor is not None and any(field.numeric for field in anchor.stream.fields):
            return _guess_around(layout, anchor, choices)
        without.append(layout.anchor)  # there is a clock beside text, but nothing to train on
        choices.made.clear()
        layout = find_layout(tree, choices, without)
    return guess_bags(tree, choices)


def _guess_steps(tree: WholeTree, steps: Look, choices: Choices) -> SchemaGuess | None:
    """Guess a schema that joins files of one time step each, the files of a folder to an episode."""
    path = PurePosixPath(steps.path)
    files = (f"{escape(path.stem.rstrip('0123456789'))}*{path.suffix}",)
    found = guess_container(ANCHOR, files, [steps], choices, may_split=False)
    if found is None:
        return None
    streams = [replace(found.stream, one_row_a_file=True), *found.beside]
    action, reasons, sample = choose_sample(streams, found.clock, found.num_rows, choices)
    return SchemaGuess(
        name=identifier(path.parent.name or path.stem, "recordings"),
        description=f"{tree.root.name}: {path.name}",
        episodes=EpisodeLayout(metadata=None),
        episode_reasons=(
            f"each of {steps.num_rows} files such as {path} holds one time step: they are joined by their numbers",
            "each folder is taken for an episode; or say ranges = 'FILE.npy' under [episodes]",
        ),
        instruction=InstructionSpec(metadata_key=None, file=None),
        streams=tuple(streams),
        action=action,
        action_reasons=tuple(reasons),
        sample=sample,
        not_read=found.not_read,
    )


def _guess_around(layout: Layout, anchor: SourceGuess, choices: Choices) -> SchemaGuess:
    layout = _as_the_container_says(layout, anchor)
    anchor = _named_by(layout, anchor)
    files = layout.anchor.files
    chosen = [files[i] for i in sorted({0, len(files) // 2, len(files) - 1})]
    tables = _stamp_tables(layout)
    anchor = _at_known_rate(_with_clock_file(anchor, tables))
    beside = Beside(name=ANCHOR, clock=anchor.clock, num_rows=anchor.num_rows, tables=tables)
    found = _images_beside(layout, chosen, beside, anchor, choices)
    streams = [anchor.stream, *anchor.beside]
    not_read = [f"{file}: other columns than {files[0]}; it needs a schema of its own" for file in layout.unlike]
    not_read += [f"{file}: a file of one row is no stream" for file in layout.one_row]
    not_read += anchor.not_read
    # A table that is only a clock is not a stream. In the path of such tables, {camera} stands for a camera's folder.
    clocks = {stream.time.file for stream in (anchor.stream, *found.streams) if stream.time.file}
    unread = set(layout.unlike)
    for bucket in layout.others:
        pattern = _pattern_beside(layout, bucket)
        ours = [table for table in tables if table.alone and table.pattern == pattern]
        used = pattern and any(match_end(pattern, clock) is not None for clock in clocks)
        if not any(used or table.lists_images for table in ours):
            _add_streams(streams, not_read, bucket, pattern, anchor, choices)
            unread |= set(bucket.files)
    streams += found.streams
    not_read += [
        *found.not_read,
        *unread_files(layout.tree, streams, choices, tables=unread, told=bool(found.not_read)),
    ]
    streams = [stream for stream in _unique(streams) if stream.name not in choices.apart]
    for file in choices.apart.values():
        about = f"files: the times of {PurePosixPath(file).name} lie wholly before or after those of {ANCHOR}"
        choices.ask(about, "left out", "no stream", "a recording of its own", "a schema of its own")
    action, reasons, sample = choose_sample(streams, anchor.clock, anchor.num_rows, choices)
    instruction, metadata = _guess_instruction(layout, chosen)
    told = anchor.instruction.metadata_key or anchor.instruction.column
    return SchemaGuess(
        name=identifier(layout.tree.root.name, "recordings"),
        description=f"{layout.tree.root.name}: {PurePosixPath(files[0]).name}",
        episodes=replace(anchor.episodes, per_file=layout.per_file, task=_task(layout), metadata=metadata),
        episode_reasons=(*(anchor.episode_reasons or layout.reasons),),
        instruction=anchor.instruction if told else instruction,
        streams=tuple(streams),
        action=action,
        action_reasons=tuple(reasons),
        sample=sample,
        not_read=tuple(not_read),
    )


def _guess_source(
    name: str, files: tuple[str, ...], bucket: Bucket, choices: Choices, *, may_split: bool
) -> SourceGuess | None:
    """Guess the streams of one kind of file. Returns ``None`` if it holds nothing to keep."""
    if bucket.is_folder:  # all files of the folder are its arrays
        files = (str(PurePosixPath(files[0]).with_name(f"*{suffix_of(bucket.files[0])}")),)
    if not bucket.tables:
        return guess_container(name, files, bucket.looks, choices, may_split=may_split)
    found = guess_table(name, files, bucket.tables, choices, may_split=may_split)
    return found if found.stream.fields else None


def _as_the_container_says(layout: Layout, anchor: SourceGuess) -> Layout:
    """Lay out containers that may hold several episodes, or a single container, as a file an episode."""
    in_file = anchor.stream.kind != "csv" and not layout.anchor.is_folder
    several = anchor.episodes.group or anchor.episodes.ends or anchor.episodes.split_column
    if in_file and (several or len(layout.anchor.files) == 1):
        layout = replace(layout, per_file=True, up=0)
    return raised_to_images(layout) if layout.per_file and not several else layout


def _named_by(layout: Layout, anchor: SourceGuess) -> SourceGuess:
    """Give the anchor's streams the pattern that its files have in the final layout."""
    files = anchor.stream.files if layout.anchor.is_folder else pattern_of_anchor(layout)
    beside = tuple(replace(stream, files=files) for stream in anchor.beside)
    return replace(anchor, stream=replace(anchor.stream, files=files), beside=beside)


def _images_beside(layout: Layout, chosen: list[str], beside: Beside, anchor: SourceGuess, choices: Choices) -> Found:
    """Guess the cameras whose images or videos lie beside the anchor's files. A file of several episodes has none."""
    of_parts = anchor.stream.kind != "csv" and (anchor.episodes.group or anchor.episodes.ends)
    if of_parts:
        return Found([], [])
    by_stem = layout.per_file and len(layout.anchor.files) > 1
    cameras = cameras_beside(layout, chosen, beside, choices, by_stem=by_stem)
    videos = videos_beside(layout, chosen, beside, choices, by_stem=by_stem)
    return Found([*cameras, *videos.streams], videos.not_read)


def _stamp_tables(layout: Layout) -> tuple[StampTable, ...]:
    """List the tables of an episode, the anchor's included, that could be the clock of its rows or of its images."""
    found = []
    for bucket in (layout.anchor, *layout.others):
        if not bucket.tables:
            continue
        pattern = _pattern_beside(layout, bucket) if bucket is not layout.anchor else None
        if bucket is layout.anchor and not layout.per_file:
            pattern = pattern_of([relative_path(layout, file) for file in bucket.files], [])[0]
        table = stamp_table(pattern, bucket.tables[0]) if pattern else None
        if table is not None:
            found.append(table)
    return tuple(found)


def _with_clock_file(anchor: SourceGuess, tables: tuple[StampTable, ...]) -> SourceGuess:
    """Give an anchor without a clock the clock of a table that has as many stamps as the anchor has rows."""
    fitting = [table for table in tables if table.alone and table.num_rows == anchor.num_rows]
    if not anchor.clock.assumed or not fitting:
        return anchor
    table = fitting[0]
    clock = replace(table.clock, time=table.time, columns=())
    said = (f"{table.pattern} has a stamp for each row", *clock.reasons)
    stream = replace(anchor.stream, time=clock.time, time_reasons=said, rate_hz=clock.rate_hz, assumed=False)
    return replace(anchor, stream=stream, clock=clock)


def _at_known_rate(anchor: SourceGuess) -> SourceGuess:
    """Give an anchor without a clock the rate of the built-in schema that knows its arrays."""
    known = built_in_that_fits((anchor.stream,), anchor.episodes) if anchor.clock.assumed else None
    rate = None if known is None else rate_of_built_in(known)
    if rate is None:
        return anchor
    said = (f"no array is a clock; {rate:g} rows a second, as the built-in schema {known!r} says of such arrays",)
    clock = replace(anchor.clock, time=TimeSpec(index_rate_hz=rate), rate_hz=rate, reasons=said, assumed=False)
    stream = replace(anchor.stream, time=clock.time, time_reasons=said, rate_hz=rate, assumed=False)
    return replace(anchor, stream=stream, clock=clock)


def _add_streams(
    streams: list[StreamGuess],
    not_read: list[str],
    bucket: Bucket,
    pattern: str | None,
    anchor: SourceGuess,
    choices: Choices,
) -> None:
    """Add the streams of tables or containers that lie beside the anchor's files, one file an episode."""
    name = PurePosixPath(bucket.files[0]).name
    if pattern is None:
        not_read.append(f"{name}: not one an episode" if len(bucket.files) > 1 else f"{name}: belongs to no episode")
        return
    stem = telling_name(pattern.replace("{stem}", ""))
    if bucket.is_folder:
        stem = PurePosixPath(pattern).parent.name or "arrays"
    stream_name = identifier(stem.replace("*", ""), "sensor")
    if any(stream.name == stream_name for stream in streams):  # there is one such file in each of several folders
        stream_name = identifier(pattern.partition(".")[0].replace("*", "").replace("{stem}", ""), "sensor")
    source = _guess_source(stream_name, (pattern,), bucket, choices, may_split=False)
    if source is None:
        not_read.append(f"{name}: no column to keep")
        return
    not_read += source.not_read
    for stream in (source.stream, *source.beside):
        if (stream.fields or stream.kind == "images") and stream.time.rows_of:
            streams.append(stream)
        elif stream.fields or stream.kind == "images":
            streams.append(_on_the_anchors_clock(stream, source.clock, anchor))


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


def _on_the_anchors_clock(stream: StreamGuess, clock: ClockGuess, anchor: SourceGuess) -> StreamGuess:
    """Shift a clock to start with the anchor's, if the two clocks cannot be the same."""
    apart = ""
    counted = bool(clock.columns) == bool(anchor.clock.columns)  # True if both clocks use columns, or neither does
    if clock.assumed != anchor.clock.assumed or clock.epoch != anchor.clock.epoch or not counted:
        apart = f"its clock is not that of {ANCHOR}"
    elif (
        len(clock.stamps_s)
        and len(anchor.clock.stamps_s)
        and not clock.epoch
        and not _has_the_same_columns(stream, anchor)
    ):
        end = anchor.clock.stamps_s[0] + anchor.num_rows / (anchor.clock.rate_hz or 1.0)
        if clock.stamps_s[0] > end:
            apart = f"it begins after {ANCHOR} has ended"
    if not apart:
        return stream
    reasons = (*stream.time_reasons, f"{apart}: both are taken to start together")
    return replace(stream, time=replace(stream.time, starts_with=ANCHOR), time_reasons=reasons)


def _has_the_same_columns(stream: StreamGuess, anchor: SourceGuess) -> bool:
    """Return True if a stream may be a part of the anchor's recording that was written to another file."""
    return [field.columns for field in stream.fields] == [field.columns for field in anchor.stream.fields]


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
    texts = [
        name
        for name in common
        if name.endswith(".txt") and lexicon().likeness(PurePosixPath(name).stem, "arrays", "instruction")
    ]
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
    texts = {" ".join(words_in(key)): key for key, value in values.items() if isinstance(value, str)}
    return next((texts[key] for key in lexicon().phrases("arrays", "instruction") if key in texts), "")

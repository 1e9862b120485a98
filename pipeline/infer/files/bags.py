"""Guesses a schema for recordings that are bags alone: a stream for each topic of numbers, and one for each camera."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from vlapipe.pipeline.discover.file_kinds import kind_that_reads
from vlapipe.pipeline.discover.file_tree import WholeTree
from vlapipe.pipeline.infer.arrays.containers import guess_container
from vlapipe.pipeline.infer.arrays.look import LOOKED_AT, Array, Look
from vlapipe.pipeline.infer.choices import Choices
from vlapipe.pipeline.infer.columns.groups import identifier
from vlapipe.pipeline.infer.files.unread import unread_files
from vlapipe.pipeline.infer.guess import FieldGuess, SchemaGuess, SourceGuess, StreamGuess
from vlapipe.pipeline.infer.lexicon import lexicon
from vlapipe.pipeline.infer.roles.sample import choose_sample
from vlapipe.pipeline.read.bags.recording import topics_at_start
from vlapipe.pipeline.read.bags.topics import Topic
from vlapipe.pipeline.read.containers.arrays import ArrayEntry
from vlapipe.pipeline.read.containers.bag import RECEIVED, arrays_of
from vlapipe.pipeline.read.refused import RefusedError
from vlapipe.schemas.schema import EpisodeLayout, InstructionSpec, TimeSpec

__all__ = ["bags_in", "guess_bags"]

_STAMP = "header.stamp"
_FEWEST_MESSAGES = 3
_WIDEST = 4096


@dataclass(frozen=True)
class _Read:
    """What was read of one topic: numbers, or images if ``arrays`` are none. ``stamped``: its header has the times."""

    topic: Topic
    arrays: tuple[Array, ...]
    stamped: bool


def bags_in(tree: WholeTree) -> list[str]:
    """List the bags of a folder of recordings."""
    return sorted(path for path in tree.files if kind_that_reads(path) == "bag")


def guess_bags(tree: WholeTree, choices: Choices) -> SchemaGuess | None:
    """Guess a schema by the topics of the first bag. Returns ``None`` if no topic of numbers can be read."""
    bags = bags_in(tree)
    if not bags:
        return None
    folders: dict[str, list[str]] = defaultdict(list)
    for path in bags:
        folders[path.rpartition("/")[0]].append(path)
    # Of several bags in a folder each is a recording, unless metadata beside them says that they are parts of one.
    per_file = any(
        len(paths) > 1 and f"{folder}/metadata.yaml".lstrip("/") not in tree.files for folder, paths in folders.items()
    )
    read, not_read = _read_topics(tree, bags[0])
    files = (f"*{PurePosixPath(bags[0]).suffix}",)
    found = {each.topic.name: _guess(each, files, choices) for each in read if each.arrays}
    streams = sorted((guess for guess in found.values() if guess is not None), key=_tells, reverse=True)
    if not streams:
        return None
    anchor = replace(streams[0].stream, name="robot")
    kept = [anchor, *(each.stream for each in streams[1:]), *(_camera(each, files) for each in read if not each.arrays)]
    kept = [stream for stream in kept if stream.name not in choices.apart]
    for name in choices.apart:
        choices.ask(
            f"topics: the times of {name} lie wholly before or after those of robot",
            "left out",
            "no stream",
            "read",
            'starts_with = "robot"',
        )
    action, reasons, sample = choose_sample(kept, streams[0].clock, streams[0].num_rows, choices)
    where = "each bag" if per_file else "each folder with a bag"
    return SchemaGuess(
        name=identifier(tree.root.name, "recordings"),
        description=f"{tree.root.name}: {PurePosixPath(bags[0]).name}",
        episodes=EpisodeLayout(
            per_file=per_file, metadata=None, task="{folder}" if not per_file and "" in folders else "{parent}"
        ),
        episode_reasons=(f"{len(bags)} bags: {where} is taken for an episode",),
        instruction=InstructionSpec(metadata_key=None, file=None),
        streams=tuple(kept),
        action=action,
        action_reasons=tuple(reasons),
        sample=sample,
        not_read=(*not_read, *unread_files(tree, kept, choices, tables=(), told=False)),
    )


def _read_topics(tree: WholeTree, bag: str) -> tuple[list[_Read], list[str]]:
    """Read the beginning of a bag. Returns its topics, and lines about those that are not read."""
    path = tree.root / bag
    names = [topic.name for topic in topics_at_start(path) if not _is_camera(topic)]
    read: list[_Read] = []
    not_read: list[str] = []
    for topic in topics_at_start(path, wanted=names):
        is_stamped, arrays = True, tuple[Array, ...]()
        if not _is_camera(topic):
            topic.sort()
            try:
                entries = arrays_of(topic, bag)
            except (RefusedError, ValueError):
                entries = {}
            arrays, is_stamped = tuple(_numbers(entries)), _STAMP in entries
        elif topic.name.startswith(
            tuple(each.topic.name.rpartition("/")[0] + "/" for each in read if _is_camera(each.topic))
        ):
            not_read.append(f"topic {topic.name} ({topic.kind.type}): another form of the same camera's images")
            continue
        if arrays or _is_camera(topic):
            read.append(_Read(topic, arrays, is_stamped))
        else:
            not_read.append(
                f"topic {topic.name} ({topic.kind.type or topic.kind.encoding}): no numbers in each message"
            )
    return read, not_read


def _is_camera(topic: Topic) -> bool:
    return topic.kind.type.rpartition("/")[2] in ("Image", "CompressedImage")


def _numbers(entries: Mapping[str, ArrayEntry]) -> Iterator[Array]:
    """Yield the members that are numbers in each message; the numbers of a message of numbers alone are one array."""
    leaves: dict[str, NDArray[np.generic]] = {}
    for name, entry in entries.items():
        if not any(other.startswith(f"{name}.") for other in entries):
            with suppress(RefusedError, ValueError):  # lists whose lengths differ, texts that are none
                leaves[name] = np.asarray(entry.load(None))
    together: dict[str, NDArray[np.generic]] = {}
    for name, values in leaves.items():
        above = name.rpartition(".")[0]
        if above and above not in together and values.ndim == 1 and not above.endswith("header"):
            with suppress(RefusedError, ValueError):
                together[above] = np.asarray(entries[above].load(None))
    found = {name: values for name, values in leaves.items() if name.rpartition(".")[0] not in together} | together
    for name, values in found.items():
        is_aside = name != _STAMP and (name.startswith(("header.", "layout")) or name.endswith("covariance"))
        if is_aside or values.dtype.kind not in "iufb" or values.ndim > 2 or len(values) < _FEWEST_MESSAGES:
            continue
        if 0 < values.size <= _WIDEST * len(values):
            first = values[:LOOKED_AT]
            yield Array(name, values.shape, values.dtype, values=first.reshape(len(first), -1))


def _guess(read: _Read, files: tuple[str, ...], choices: Choices) -> SourceGuess | None:
    name = identifier(read.topic.name, "topic")
    clock = _STAMP if read.stamped and np.any(next(a.values for a in read.arrays if a.name == _STAMP)) else RECEIVED
    arrays = tuple(each for each in read.arrays if each.name == clock or each.name not in (_STAMP, RECEIVED))
    if len(arrays) < 2:
        return None
    found = guess_container(name, files, [Look(files[0], "bag", arrays)], choices, may_split=False)
    if found is None or not any(field.numeric for field in found.stream.fields):
        return None
    fields = tuple(_as_quaternion(field) for field in found.stream.fields)
    return replace(found, stream=replace(found.stream, topic=read.topic.name, fields=fields))


def _as_quaternion(field: FieldGuess) -> FieldGuess:
    is_turn = field.shape == (4,) and lexicon().likeness(field.columns[0], "before_axis", "orientation")
    return replace(field, quaternion="xyzw") if is_turn else field


def _tells(guess: SourceGuess) -> tuple[bool, bool, int]:
    """Return how much a topic says of the robot: joints, else poses, and no commands; then how many messages it has."""
    likeness, stream = lexicon().likeness, guess.stream
    said = " ".join([stream.topic or "", *(field.name for field in stream.fields)])
    is_command = bool(likeness(said, "roles", "command"))
    return not is_command, any(bool(likeness(said, "roles", key)) for key in ("joint", "pose")), guess.num_rows


def _camera(read: _Read, files: tuple[str, ...]) -> StreamGuess:
    name = identifier(read.topic.name, "camera")
    time = TimeSpec(sources=(_STAMP,), unit="ns", integer=True)
    unit = "mm" if lexicon().likeness(read.topic.name, "arrays", "depth") else None
    return StreamGuess(name=name, kind="images", files=files, topic=read.topic.name, time=time, unit=unit)

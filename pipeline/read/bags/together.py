"""Lets several streams of an episode read their topics in one pass over a bag.

The first stream that asks reads all topics that the episode's streams want. Each topic's messages are dropped after the
last stream that wants them has taken them.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path

from vlapipe.pipeline.long_images import Pieces
from vlapipe.pipeline.read.bags.recording import Recording, read_recording
from vlapipe.pipeline.read.bags.topics import Topic
from vlapipe.schemas.findings import Findings

__all__ = ["lacks_topic", "read_together", "recording_of", "take_topic"]


@dataclass
class _Pass:
    """The bags of one episode. ``uses`` counts the streams that have yet to take a topic, by the bag's files."""

    uses: dict[tuple[str, ...], Counter[str]]
    recordings: dict[tuple[str, ...], Recording | None] = field(default_factory=dict)


_pass: ContextVar[_Pass | None] = ContextVar("bags", default=None)


@contextlib.contextmanager
def read_together(wanted: Iterable[tuple[list[str], str]]) -> Iterator[None]:
    """Reads the given topics, each with the bag's files, in one pass a bag for as long as the context lasts."""
    uses: dict[tuple[str, ...], Counter[str]] = {}
    for files, topic in wanted:
        uses.setdefault(tuple(files), Counter())[topic] += 1
    token = _pass.set(_Pass(uses))
    try:
        yield
    finally:
        _pass.reset(token)


def recording_of(root: Path, files: list[str], topic: str, findings: Findings) -> Recording | None:
    """Returns a bag of which the topic's messages are kept, if it has any; ``None`` after errors, told once a bag."""
    here, key = _pass.get(), tuple(files)
    if here is None or topic not in here.uses.get(key, ()):
        return read_recording(root, files, {topic}, findings)
    if key not in here.recordings:
        here.recordings[key] = None  # so that errors are told once
        here.recordings[key] = read_recording(root, files, here.uses[key], findings)
    return here.recordings[key]


def take_topic(recording: Recording, files: list[str], name: str) -> Topic:
    """Returns a topic for one stream. The bag lets go of the messages if no other stream wants them."""
    here, topic = _pass.get(), recording.topics[name]
    uses = here.uses.get(tuple(files)) if here is not None else None
    if uses is not None and uses[name] > 0:
        uses[name] -= 1
        if not uses[name]:
            recording.topics[name] = replace(topic, payloads=Pieces())
    return topic


def lacks_topic(root: Path, files: list[str], topic: str, findings: Findings) -> bool:
    """Returns whether a bag that could be read has no such topic, or no message of it."""
    recording = recording_of(root, files, topic, findings)
    return recording is not None and not (topic in recording.topics and recording.topics[topic].num_messages)
